"""A sweep that trains each sample with several seeds: the same rows for all, each trial as it would be alone."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import apart, demo_splits, tiny_job

from raylora.cluster.data.sources import list_sources
from raylora.cluster.train.job import train
from raylora.cluster.tune.sweep import tune
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.config.space import trial_job
from raylora.model.fit.fit import fit
from raylora.model.resolved import resolve_job
from raylora.records import TuneResult

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

ROWS = 80
CLOSE = 3e-3  # of `apart`, as in tests/local/test_bank.py


@dataclass
class Swept:
    job: Job
    lines: list[str]
    result: TuneResult
    rows: list[dict[str, str]]

    @property
    def folder(self) -> Path:
        return Path(self.result.folder_uri)


# the head of the second has a layer below its last one that the seed draws: what its probe sees is another by seed
@pytest.fixture(scope="module", params=["bert", pytest.param("distilbert", marks=pytest.mark.slow)])
def swept(
    request: pytest.FixtureRequest,
    bases: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    reviews: list[dict[str, str]],
) -> Swept:
    """Ranks 2 and 8 with seeds 42 and 43, two epochs."""
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews[:ROWS]), encoding="utf-8")
    job = tiny_job(bases(request.param)).replace(
        {
            "run_name": "sweep",
            "storage_path": str(folder / "runs"),
            "data.train": str(folder / "reviews.jsonl"),
            "lora.lora_dropout": 0.1,
            "train.num_train_epochs": 2,
            "ray.resources_per_worker": {"CPU": 4},
            "tune.space": {"lora.r": {"grid": [2, 8]}},
            "tune.seeds": 2,
            "tune.scheduler": "none",
            "tune.metric": "loss",
        }
    )
    lines: list[str] = []
    result = tune(job, list_sources(job.data), say=lines.append)
    rows = list(csv.DictReader((Path(result.folder_uri) / "trials.csv").open(encoding="utf-8")))
    return Swept(job, lines, result, rows)


def test_as_many_trials_run_as_are_told_and_those_of_a_seed_share_a_pack(swept: Swept) -> None:
    assert any(line.startswith("trials     4, 4 at once") for line in swept.lines)
    assert sorted((row["lora.r"], row["seed"]) for row in swept.rows) == [(r, s) for r in "28" for s in ("42", "43")]
    assert {(row["status"], row["packed"]) for row in swept.rows} == {("finished", "2")}
    history = [json.loads(line) for line in (swept.folder / "history.jsonl").read_text().splitlines()]
    assert {item["words"] for item in history} == {f"r={r} seed={seed}" for r in (2, 8) for seed in (42, 43)}


def test_the_sample_with_the_best_mean_wins_and_of_its_trials_the_best(swept: Swept) -> None:
    scores = {(row["lora.r"], row["seed"]): float(row["score"]) for row in swept.rows}
    means = {r: (scores[r, "42"] + scores[r, "43"]) / 2 for r in "28"}
    best = min(means, key=lambda r: means[r])
    assert [row["lora.r"] for row in swept.rows] == [best, best, *(r for r in "28" if r != best for _ in range(2))]
    assert [float(row["mean_score"]) for row in swept.rows] == pytest.approx(
        [means[row["lora.r"]] for row in swept.rows]
    )
    first, second = (float(row["score"]) for row in swept.rows[:2])
    assert first < second
    winner = json.loads((swept.folder / "metrics.json").read_text())["winner"]
    assert winner["sample"] == {"lora.r": int(best), "seed": int(swept.rows[0]["seed"])}
    assert winner["mean_score"] == pytest.approx(means[best])
    assert winner["std_score"] == pytest.approx((second - first) / 2**0.5)


def test_train_repeats_the_winner_of_any_seed_on_the_sweeps_split(swept: Swept) -> None:
    best = jobfile.read([str(swept.folder / "best_config.yaml")], {})
    assert (best.seed, best.data.seed, best.tune.seeds) == (int(swept.rows[0]["seed"]), 42, 1)
    best = best.replace({"run_name": "again"})
    again = train(best, list_sources(best.data), say=lambda line: None)
    facts = [json.loads((swept.folder.parent / name / "data.json").read_text()) for name in ("sweep", "again")]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    kept, new = (load_file(f"{done.adapter_uri}/adapter_model.safetensors") for done in (swept.result, again))
    assert apart(kept, new) < CLOSE


@pytest.mark.parametrize("seed", [42, 43])
def test_a_trial_ends_where_a_fit_of_its_seed_would_alone(swept: Swept, seed: int, tmp_path: Path) -> None:
    (row,) = (row for row in swept.rows if (row["lora.r"], row["seed"]) == ("8", str(seed)))
    (checkpoint,) = (swept.folder / "trials" / row["trial"]).glob("checkpoint_*")
    held = load_file(checkpoint / "best.safetensors")
    weights = {n.replace(".modules_to_save.default", "").replace(".default", ""): t for n, t in held.items()}
    job = trial_job(swept.job, {"lora.r": 8, "seed": seed}).replace({"train.calibrate": False})  # as checkpoints are
    fit(resolve_job(job), demo_splits(job, Path(job.model.base_model), ROWS), save_to=tmp_path / "alone")
    assert apart(weights, load_file(tmp_path / "alone" / "adapter_model.safetensors")) < CLOSE
