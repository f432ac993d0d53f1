"""The train job on a local Ray: what does not depend on the number of workers."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import largest_difference, tiny_job

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.sources import list_sources
from raylora.cluster.serve.quantized import tell_change
from raylora.cluster.storage import lock
from raylora.cluster.train.job import train
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ClusterError, ConfigError, DataError, FullDiskError, LockError, ModelError, TrainingError
from raylora.records import TrainResult

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

Bases = Callable[[str], Path]
Write = Callable[[int], str]


@pytest.fixture
def job(bases: Bases, reviews_file: Write, tmp_path: Path) -> Job:
    """94 rows: 76 to train on, 18 to validate on; 16 rows a step leave 12 for the last."""
    return tiny_job(
        bases("bert"),
        data__train=reviews_file(94),
        data__test=reviews_file(31),
        storage_path=str(tmp_path / "runs"),
        train__per_device_train_batch_size=16,
    )


def run(job: Job, name: str, lines: list[str] | None = None, **changes: Any) -> TrainResult:
    job = job.replace({"run_name": name} | {key.replace("__", "."): value for key, value in changes.items()})
    said = lines if lines is not None else []
    return train(job, list_sources(job.data), say=said.append)


def adapter(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_file(f"{result.adapter_uri}/adapter_model.safetensors")


def furthest(a: TrainResult, b: TrainResult) -> float:
    return largest_difference(adapter(a), adapter(b))


def baselines(result: TrainResult) -> dict[tuple[str, str], Any]:
    assert result.floor
    return {(split, name): result.floor[split][name] for split in ("validation", "test") for name in ("tfidf", "probe")}


def test_two_workers_reach_the_adapter_of_one_and_exact_scores(job: Job) -> None:
    job = job.replace({"train.floor": True, "lora.lora_dropout": 0.1})
    one = run(job, "one")
    two = run(job, "two", ray__num_workers=2, train__per_device_train_batch_size=8)
    assert one.metrics["data"] == two.metrics["data"], "the split depends on nothing"
    assert furthest(one, two) < 1e-4
    assert one.validation.rows == two.validation.rows == 18
    assert one.test and two.test
    assert one.test.rows == two.test.rows == 31
    assert two.validation.loss == pytest.approx(one.validation.loss, abs=1e-4)
    assert two.test.loss == pytest.approx(one.test.loss, abs=1e-4)
    assert [r.metrics["num_workers"] for r in (one, two)] == [1, 2]
    assert baselines(one) == baselines(two)


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_two_workers_reach_the_scores_of_one_in_any_task(kind: str, job: Job, tmp_path: Path) -> None:
    """Labels of the made-up rows: which of two words a text holds, or how much longer than another it is."""
    rows = [json.loads(line) for line in Path(str(job.data.train)).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        words = row["text"].lower().split()
        row["label"] = [w for w in ("the", "and") if w in words] if kind.startswith("multi") else len(words) / 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = job.replace({"data.train": str(tmp_path / "rows.jsonl"), "data.test": None, "train.floor": True})
    lines: list[str] = []
    one = run(job, "one", lines)
    two = run(job, "two", ray__num_workers=2, train__per_device_train_batch_size=8)
    assert any(line.startswith(f"task       {kind}, by the labels of the first") for line in lines)
    assert one.metrics["data"] == two.metrics["data"]
    assert furthest(one, two) < 1e-4 * max(1.0, float(adapter(one)["base_model.model.classifier.weight"].abs().max()))
    assert dict(two.validation) == pytest.approx(dict(one.validation), abs=1e-3, rel=1e-3)
    assert two.validation.loss == pytest.approx(one.validation.loss, abs=1e-4)
    assert jobfile.read_saved((Path(one.folder_uri) / "config.yaml").read_text(), "").data.problem_type == kind


@pytest.mark.slow
def test_three_workers_have_the_splits_of_two_and_two_once_more_have_the_same_bits(job: Job) -> None:
    """Three workers step 24 rows, not 16, so that theirs is another adapter; splits, rows, baselines are the same."""
    job = job.replace({"train.floor": True, "train.per_device_train_batch_size": 8})
    two, again = (run(job, name, ray__num_workers=2) for name in ("two", "again"))
    assert furthest(two, again) == 0, "same seed, data and worker count: the same bits"
    three = run(job, "three", ray__num_workers=3)
    assert two.metrics["data"] == three.metrics["data"]
    assert two.test and three.test
    assert (two.validation.rows, two.test.rows) == (three.validation.rows, three.test.rows)
    assert three.metrics["num_workers"] == 3
    assert baselines(two) == baselines(three)


def test_two_workers_start_as_one_does_and_the_floor_is_told_everywhere(job: Job) -> None:
    """What has not been trained is the probe."""
    still = job.replace({"train.learning_rate": 1e-12, "train.floor": True, "train.per_device_eval_batch_size": 5})
    lines: list[str] = []
    one = run(still, "one", lines)
    assert one.floor and one.test
    two = run(still, "two", ray__num_workers=2)
    assert two.test
    assert furthest(one, two) < 1e-4
    assert one.validation.loss == pytest.approx(two.validation.loss, abs=1e-5)
    assert one.validation.accuracy == two.validation.accuracy
    assert one.test.loss == pytest.approx(two.test.loss, abs=1e-5)
    assert any(re.match(r"head +starts (from a linear probe|at random: a linear probe)", line) for line in lines)
    floor = re.compile(r"floor +TF-IDF 0\.\d{4}, linear probe 0\.\d{4}  \(validation accuracy")
    assert any(map(floor.match, lines))
    folder = Path(one.folder_uri)
    metrics = json.loads((folder / "metrics.json").read_text())
    manifest = json.loads((folder / "adapter" / "raylora.json").read_text())
    assert metrics["floor"] == manifest["floor"] == one.floor
    assert metrics["floor"]["test"]["rows"] == 31
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in history][:3] == ["model", "head", "floor"]
    assert "linear probe |" in (folder / "adapter" / "README.md").read_text()


def test_a_run_that_lost_its_lock_writes_nothing_that_looks_finished(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 600.0)  # as on a laptop that slept: it has not looked since
    folder = Path(job.storage_path) / "slept"

    def lose(line: str) -> None:
        if line.startswith("base "):
            (folder / "lock.json").unlink()

    with pytest.raises(LockError, match=r"lock\.json is gone"):
        train(job.replace({"run_name": "slept"}), list_sources(job.data), say=lose)
    assert list(folder.glob("checkpoint_*"))
    assert not (folder / "adapter").exists()
    assert not (folder / "metrics.json").exists()
    assert run(job, "slept").metrics["best_epoch"]
    assert not list(folder.glob("lock.json*"))


def test_the_run_folder_holds_what_the_design_says(job: Job) -> None:
    lines: list[str] = []
    result = run(job, "first", lines, train__num_train_epochs=2)
    folder = Path(result.folder_uri)
    saved = jobfile.read([str(folder / "config.yaml")], {})
    assert saved.run_name == "first"
    assert saved.train.num_train_epochs == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["validation"]["accuracy"] == result.validation.accuracy
    assert metrics["data"]["rows"]["validation"] == {"negative": 9, "positive": 9}
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in history if r["kind"] == "evaluation"] == [1, 2]
    manifest = json.loads((folder / "adapter" / "raylora.json").read_text())
    assert manifest["labels"] == ["negative", "positive"]
    assert manifest["metrics"]["validation"]["loss"] == result.validation.loss
    assert manifest["config"]["run_name"] == "first"
    assert {p.name for p in (folder / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "README.md",
    }
    assert not list(folder.glob("*.part"))
    said = "\n".join(lines)
    for words in ("76 train, 18 validation, 31 test", "parameters", "epoch 1 ", "epoch 2 ", "left"):
        assert words in said
    with pytest.raises(ConfigError, match="is finished"):
        run(job, "first", train__num_train_epochs=2)


@pytest.mark.slow
def test_a_run_stopped_by_its_driver_goes_on_where_it_was(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver dies after the second epoch's line; the same command ends as if nothing had happened."""
    import raylora.cluster.train.job as module

    whole = run(job, "whole", train__num_train_epochs=3, lora__lora_dropout=0.1)
    original = module._conclude  # pyright: ignore[reportPrivateUsage]

    def die(*_: Any) -> TrainResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_conclude", die)
    with pytest.raises(KeyboardInterrupt):
        run(job, "cut", train__num_train_epochs=3, lora__lora_dropout=0.1)
    folder = Path(job.storage_path) / "cut"
    assert not (folder / "metrics.json").exists()
    monkeypatch.setattr(module, "_conclude", original)
    with pytest.raises(ConfigError, match=r"lora.r: 4 -> 8"):
        run(job, "cut", train__num_train_epochs=3, lora__lora_dropout=0.1, lora__r=8)
    data = Path(str(job.data.train))
    rows = data.read_text()
    data.write_text(rows.replace("negative", "positive", 1))
    with pytest.raises(DataError, match=r"is not what run .*/cut began with:\n  .* rows of 'negative'"):
        run(job, "cut", train__num_train_epochs=3, lora__lora_dropout=0.1)
    data.write_text(rows)
    lines: list[str] = []
    resumed = run(job, "cut", lines, train__num_train_epochs=3, lora__lora_dropout=0.1)
    assert any("resuming" in line and "epoch 3 of 3" in line for line in lines)
    assert furthest(whole, resumed) == 0
    assert resumed.validation == whole.validation


def test_a_diverged_run_fails_once_with_its_reason_and_leaves_nothing_finished(job: Job) -> None:
    with pytest.raises(TrainingError, match=r"Lower `train\.learning_rate`"):
        run(job, "nan", train__learning_rate=1e30, train__max_grad_norm=0.0)
    folder = Path(job.storage_path) / "nan"
    assert not (folder / "metrics.json").exists()
    assert not (folder / "adapter").exists()


def before_the_workers(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something when all checks are past and no worker has begun."""

    def hook(dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        act()
        return dataset

    monkeypatch.setattr("raylora.cluster.train.job.with_frozen_states", hook)


def test_what_would_end_so_again_is_not_tried_again(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = shutil.copytree(job.model.base_model, tmp_path / "base")
    before_the_workers(monkeypatch, lambda: shutil.rmtree(base))
    with pytest.raises(ModelError, match="was not found"):  # after another try it is a TrainingError of Ray Train's
        run(job, "gone", model__base_model=str(base), ray__max_failures=5)


def test_a_disk_that_fills_up_ends_a_run_and_says_so(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("no mount here")

    def fill() -> None:
        with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    try:
        before_the_workers(monkeypatch, fill)
        with pytest.raises(FullDiskError, match=r"is full: .*No space left on device.*Make room there"):
            run(job, "full", storage_path=str(disk / "runs"), ray__max_failures=5)
        with pytest.raises(FullDiskError, match="has room for 0 MB"):
            run(job, "more", storage_path=str(disk / "runs"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_more_workers_than_the_cluster_has_are_refused_at_once(job: Job) -> None:
    with pytest.raises(ClusterError, match=r"needs 99 CPU; the cluster .* has 4"):
        run(job, "many", ray__num_workers=99)
    with pytest.raises(ClusterError, match="found no room within 1 s"):
        run(job, "many", ray__num_workers=99, ray__scale_up_timeout_s=1.0)
    with pytest.raises(ClusterError, match=r"1 GPU; the cluster .* has 0"):
        run(job, "gpu", ray__use_gpu=True)
    assert not (Path(job.storage_path) / "many").exists()


def test_what_int8_costs_is_told_from_the_adapters_own_validation_rows(job: Job) -> None:
    result, lines = run(job, "one"), list[str]()
    tell_change(job.replace({"serve.adapters": {"own": result.adapter_uri}, "serve.int8": True}), lines.append)
    assert len(lines) == 1
    accuracy = f"{result.validation.accuracy:.4f}"
    assert re.fullmatch(
        rf"int8       own: accuracy 0\.\d{{4}}, in float32 {accuracy}, on 18 of its .*; \d+ get another label", lines[0]
    )
    Path(str(job.data.train)).unlink()
    tell_change(job.replace({"serve.adapters": {"own": result.adapter_uri}}), lines.append)
    assert "own: the change in its scores is not measured: " in lines[1]
