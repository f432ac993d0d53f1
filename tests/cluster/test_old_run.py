"""A run that was interrupted under earlier code (tests/data/old, made by its make.py) goes on under today's."""

import json
from pathlib import Path

import pytest

from raylora.cluster.data.sources import list_sources
from raylora.cluster.train.job import train
from raylora.config import file as jobfile
from raylora.config.renamed import RenamedKeyWarning

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def test_an_old_interrupted_run_goes_on_from_its_checkpoint(old_folders: Path) -> None:
    cut = old_folders / "cut"
    reached = json.loads((cut / "checkpoint_manager_snapshot.json").read_text())["latest_checkpoint_result"]["metrics"]
    with pytest.warns(RenamedKeyWarning):
        job = jobfile.read(["cut/config.yaml"], {})
    lines: list[str] = []
    result = train(job, list_sources(job.data), say=lines.append)
    assert f"resuming   from epoch {reached['epoch']:g} of 40, step {reached['step']}" in lines
    history = [json.loads(line) for line in (cut / "history.jsonl").read_text().splitlines()]
    evaluations = [each for each in history if each["kind"] == "evaluation"]
    epochs = [each["epoch"] for each in evaluations]
    assert epochs == list(range(1, 41)), "each epoch once"
    assert evaluations[-1]["step"] == 40 * 2, "20 rows, 16 a step, as before"
    best = max(evaluations, key=lambda each: each["eval_accuracy"])
    assert result.validation.accuracy == best["eval_accuracy"]
