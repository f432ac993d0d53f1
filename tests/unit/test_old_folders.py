"""Folders of runs and sweeps that earlier code wrote (tests/data/old, made by its make.py) are read as today's are."""

import json
from pathlib import Path

import pytest

from raylora.cli.main import main
from raylora.cluster.resolve import check_folder
from raylora.cluster.storage.listing import list_runs, show_run
from raylora.cluster.storage.run_folder import RunFolder
from raylora.config import file as jobfile
from raylora.config import parse_saved
from raylora.config.renamed import RenamedKeyWarning
from raylora.errors import ConfigError
from raylora.model.lora.manifest import read_manifest

SILENT = pytest.mark.filterwarnings("error::raylora.config.renamed.RenamedKeyWarning")
SAYS = "`train.prefix_cache_bytes` is `train.frozen_states_cache_bytes` now"


def test_old_runs_and_sweeps_are_listed_with_their_scores(old_folders: Path) -> None:
    found = {each.name: each for each in list_runs(str(old_folders))}
    assert {n: (e.kind, e.state) for n, e in found.items()} == {
        "run": ("run", "finished"),
        "sweep": ("sweep", "finished"),
        "cut": ("run", "unfinished"),
    }
    for name in ("run", "sweep"):
        metrics = json.loads((old_folders / name / "metrics.json").read_text())
        assert (found[name].validation, found[name].test) == (metrics["validation"], metrics["test"])
    assert found["run"].reached.startswith("best epoch ")
    assert found["sweep"].reached == "2 trials"
    assert found["cut"].validation and found["cut"].validation["rows"] == 4


@SILENT
def test_an_old_run_is_shown_whole_and_warns_of_no_key(old_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [each["epoch"] for each in show_run(str(old_folders), "run").history] == [1, 2, 3, 4, 5, 6]
    assert len(show_run(str(old_folders), "sweep").history) == 2
    for name in ("run", "sweep", "cut"):
        assert main(["runs", "show", name, str(old_folders)]) == 0
        shown = capsys.readouterr().out
        assert "train.frozen_states_cache_bytes: 1000000" in shown


@SILENT
def test_a_run_that_goes_on_warns_of_no_key_in_its_folder(old_folders: Path) -> None:
    with pytest.warns(RenamedKeyWarning):
        job = jobfile.read(["cut/config.yaml"], {})
    folder = RunFolder(job)
    assert check_folder(folder, job) == job.replace({"data.problem_type": "single_label_classification"})
    with pytest.raises(ConfigError, match=r"lora\.r: 2 -> 3"):
        check_folder(folder, job.replace({"lora.r": 3}))


@SILENT
def test_the_config_in_an_old_manifest_warns_of_no_key(old_folders: Path) -> None:
    assert parse_saved(read_manifest(Path("run/adapter")).config).train.frozen_states_cache_bytes == 1_000_000


@pytest.mark.parametrize(
    "words", [["train", "run/config.yaml"], ["train", "sweep/best_config.yaml"], ["tune", "sweep/config.yaml"]]
)
def test_a_config_that_is_named_is_read_and_its_old_key_told(
    words: list[str], old_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--dry-run"]) == 0
    shown, warned = capsys.readouterr()
    assert "  frozen_states_cache_bytes: 1000000\n" in shown and "prefix_cache" not in shown
    assert warned.startswith(f"warning: {SAYS}") and warned.count("\n") == 1
    assert main(["runs", words[1]]) == 0
    assert capsys.readouterr().err == warned
