"""What the benches count, draw and compare, on numbers worked out by hand."""

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tiny import demo_splits, tiny_job

from raylora.bench import accuracy
from raylora.bench.flops import flops_per_row
from raylora.bench.packs import Trained, trials_of
from raylora.bench.processes import run_together
from raylora.bench.rows import check_files, draw, make_splits
from raylora.bench.train import contenders
from raylora.bench.tune import check_pack, ways
from raylora.bench.verdict import target
from raylora.config import Job
from raylora.errors import ConfigError, DataError, TrainingError
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.fit import fit, use_frozen_states
from raylora.model.fit.splits import Worker
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]


@pytest.fixture
def data(tmp_path: Path, reviews: list[dict[str, str]]) -> Job:
    """A job on 64 train and 32 validation rows of the demo, as parquet."""
    files = {"train": reviews[:64], "validation": reviews[64:96]}
    for split, rows in files.items():
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    return Job().replace({f"data.{split}": str(tmp_path / f"{split}.parquet") for split in files})


def test_flops_of_a_row_are_those_counted_by_hand(bases: Bases) -> None:
    """2 layers of width 32: 4 projections of 1,024 weights, two of 2,048; rank 4 on query and value.

    A token forward: 2 layers x 2 x 8,192, and 8 LoRA matrices x 2 x 128: 34,816. Back: the upper layer 2 x 8,192, the
    lower one without query, key and value, whose input nobody trains: 2 x 5,120; LoRA 2 x 2 x (4 + 3) x 128: 30,208.
    Attention: T numbers of 32, (4 + 8) in the upper layer, (4 + 6) in the lower, whose keys need no gradient: 704 T.
    A row: pooler 4 x 1,024, head 6 x 64.
    """
    job = tiny_job(bases("bert"), train__bf16=False)
    splits = demo_splits(job, bases("bert"), rows=20)
    model = build(resolve_job(job), splits.labels, splits.tokenizer.pad_id)
    lengths = splits.train.lengths.astype(float)
    expected = np.mean(lengths * (34_816 + 30_208) + 704 * lengths**2 + 4_480)
    assert flops_per_row(model, Collator(splits.train, splits.tokenizer)) == pytest.approx(expected, rel=1e-9)


def test_flops_leave_out_layers_below_the_frozen_prefix(bases: Bases, tmp_path: Path) -> None:
    """As above, with the upper layer alone, and nothing trained below it: 2 x 8,192 + 1,024 + 2 x 5,120 + 1,536."""
    job = tiny_job(bases("bert"), train__bf16=False, lora__layers_to_transform=[1])
    splits = demo_splits(job, bases("bert"), rows=20)
    model = build(resolve_job(job), splits.labels, splits.tokenizer.pad_id)
    splits = use_frozen_states(job, model, splits, Worker(), tmp_path)
    lengths = splits.train.lengths.astype(float)
    expected = np.mean(lengths * 29_184 + 320 * lengths**2 + 4_480)
    assert flops_per_row(model, Collator(splits.train, splits.tokenizer)) == pytest.approx(expected, rel=1e-9)


def test_the_drawn_rows_are_the_same_each_time(data: Job, tmp_path: Path) -> None:
    first, second = (draw(data, 16, 8, tmp_path) for _ in range(2))
    train, validation = (pyarrow.parquet.read_table(getattr(first.data, split)) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (16, 8)
    assert first == second
    assert len(set(train["text"].to_pylist())) == 16


def test_more_rows_than_there_are_is_all_of_them(data: Job, tmp_path: Path) -> None:
    drawn = draw(data, 1_000, 1_000, tmp_path)
    assert len(pyarrow.parquet.read_table(drawn.data.validation)) == 32


def test_files_that_a_bench_cannot_read_are_named(data: Job) -> None:
    check_files(data, ("train", "validation"))
    with pytest.raises(ConfigError, match=r"`data.train`, `data.test`, each one parquet file"):
        check_files(data, ("train", "test"))


def test_trials_alone_share_out_the_cores() -> None:
    assert {name: (w.processes, w.threads) for name, w in ways(8, cores=2).items()} == {
        "packed": (1, 2),
        "in turn": (1, 2),
        "at once": (8, 1),
        "per core": (2, 1),
        "packed per core": (2, 1),
    }
    assert ways(8, cores=16)["at once"].threads == 2
    assert "per core" not in ways(8, cores=16) and "per core" not in ways(8, cores=1)


def test_trials_that_cannot_share_a_pack_are_refused(data: Job) -> None:
    check_pack(data)
    mixed = data.replace({"tune.space": {"train.per_device_train_batch_size": {"choice": [4, 8]}}})
    with pytest.raises(ConfigError, match="cannot share a pack: they differ in more than"):
        check_pack(mixed)
    with pytest.raises(ConfigError, match=r"cannot share a pack: lora.use_dora"):
        check_pack(data.replace({"lora.use_dora": True}))


def test_bf16_is_compared_only_where_the_machine_is_asked_for_it() -> None:
    assert not [name for name in contenders(Job(), [4, 5], bf16=False) if "bf16" in name]
    wide = contenders(Job(), [4, 5], bf16=True)
    assert {name for name in wide if "bf16" in name} == {"grouped bf16", "fit bf16", "top bf16"}
    assert wide["top bf16"].overrides == {"train.bf16": True, "lora.layers_to_transform": [4, 5]}


def test_a_missed_target_is_called_missed() -> None:
    said: list[str] = []
    target(said.append, "ratio", 1.4, ">=", 1.4)
    target(said.append, "ratio", 1.39, ">=", 1.4)
    target(said.append, "share", 10.5, "<=", 10)
    assert [line.split()[0] for line in said] == ["met", "MISSED", "MISSED"]
    assert said[1] == "  MISSED  ratio: 1.39 (target >= 1.4)"


def test_packed_trials_score_as_the_same_trials_one_after_another(data: Job, bases: Bases) -> None:
    """In processes of their own, as the bench runs them: packed, and dealt out to two processes."""
    job = data.replace({"model.base_model": str(bases("bert")), "tune.num_samples": 3, "train.num_train_epochs": 1})
    tree = json.dumps(job.model_dump())
    packed = run_together("raylora.bench.packs", [("packed", tree, "0", "1", "1")])
    alone = run_together("raylora.bench.packs", [("alone", tree, first, "2", "1") for first in ("0", "1")])
    one = Trained(**packed.answers[0])
    evens, odds = (Trained(**answer) for answer in alone.answers)
    assert len(trials_of(job)) == 3
    assert one.accuracies == [evens.accuracies[0], odds.accuracies[0], evens.accuracies[1]]
    assert one.trainable == [evens.trainable[0], odds.trainable[0], evens.trainable[1]]
    assert packed.wall_s > 0 and packed.peak_bytes > 2**26


def test_a_rival_that_fails_is_an_error_with_its_own_words() -> None:
    with pytest.raises(TrainingError, match=r"bench of 'packed' failed:(.|\n)*nope.parquet is not there"):
        tree = json.dumps(Job().replace({"data.train": "nope.parquet"}).model_dump())
        run_together("raylora.bench.packs", [("packed", tree, "0", "1", "1")] * 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data.max_length": 16}, "changes data.max_length: 64 -> 16; settings are of `train.` and `lora.` alone"),
        ({"lora.target_modules": ["nope"]}, "has no module 'nope'"),
    ],
)
def test_bench_accuracy_refuses_what_it_would_not_measure(
    changes: dict[str, object], reason: str, data: Job, bases: Bases
) -> None:
    job = tiny_job(bases("bert")).replace({"data.train": data.data.train, "data.test": data.data.validation})
    with pytest.raises(ConfigError, match=re.escape(reason)):
        accuracy.bench(job, {"own": job.replace(changes)}, samples=0, seeds=1, threads=1, say=print)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({"train.head_init": {"choice": ["probe", "random"]}}, "leave `train.head_init` out"),
        ({"model.base_model": {"choice": ["a", "b"]}}, "changes model.base_model"),
        ({"lora.use_dora": {"choice": [True, False]}}, "cannot be trained beside others: lora.use_dora"),
    ],
)
def test_samples_are_refused_as_settings_are(space: dict[str, Any], reason: str, data: Job, bases: Bases) -> None:
    job = tiny_job(bases("bert")).replace({"data.train": data.data.train, "data.test": data.data.validation})
    with pytest.raises(ConfigError, match=re.escape(reason)):
        accuracy.bench(job.replace({"tune.space": space}), {}, samples=2, seeds=1, threads=1, say=print)


def test_rows_that_a_bench_cannot_take_are_named(data: Job, bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert")).replace({"data.train": data.data.train})
    test = str(tmp_path / "test.parquet")

    def refused(table: dict[str, list[str | None]]) -> str:
        pyarrow.parquet.write_table(pa.table(table), test)
        own = job.replace({"data.test": test})
        with pytest.raises(DataError) as caught:
            accuracy.bench(own, {"own": own}, samples=0, seeds=1, threads=1, say=print)
        return str(caught.value)

    assert "has no column 'label'. Columns found: 'text', 'stars'" in refused({"text": ["a"], "stars": ["1"]})
    assert "row 2: 'text' is null" in refused({"text": ["a", None], "label": ["negative", "positive"]})
    assert "test holds labels that train never saw: 'new' (1 rows" in refused({"text": ["a"], "label": ["new"]})


def test_bench_accuracy_shows_baselines_settings_and_ranks(data: Job, bases: Bases) -> None:
    """Two seeds; rows without a validation file are split as a job splits them."""
    space = {"train.learning_rate": {"grid": [1e-12, 1e-2]}}
    job = tiny_job(bases("bert"), train__num_train_epochs=2, tune__space=space).replace(
        {"data.train": data.data.train, "data.test": data.data.validation}
    )
    lines: list[str] = []
    settings = {"alone": job.replace({"train.per_device_train_batch_size": 4}), "two": job}
    accuracy.bench(job, settings, samples=1, seeds=2, threads=1, say=lines.append)
    said = "\n".join(lines)
    assert re.search(r"^seed 42 +52 / 12 / 32 rows, 2 labels; test accuracy: TF-IDF 0\.\d{4}", said, re.M)
    means = said[said.index("means      of 2 seeds") :]
    for name in ("TF-IDF", "linear probe", "alone", "two", "head_init=random learning_rate=0.01"):
        assert re.search(rf"^  {name} +0\.\d{{4}}", means, re.M)
    (still,) = re.findall(r"head_init=probe learning_rate=1e-12 +\S+ ± \S+  by epoch (\S+) (\S+)", means)
    assert still[0] == still[1], "nothing is learned at that rate: the probe's own score"
    assert len(re.findall(r"^ranks +head_init=\w+: correlation of epoch 1 with the last ", said, re.M)) == 2


@pytest.mark.parametrize(("changes", "alone"), [({"lora.use_dora": True}, False), ({}, True)])
def test_what_no_pack_takes_is_trained_as_a_run_trains_it(
    changes: dict[str, object], alone: bool, data: Job, bases: Bases
) -> None:
    """Its figure is that of `fit`, which scores the adapter as it is saved."""
    job = tiny_job(bases("bert"), **{"train.head_init": "random"}).replace(
        {**changes, "data.train": data.data.train, "data.test": data.data.validation}
    )
    lines: list[str] = []
    accuracy.bench(job, {"own": job}, samples=0, seeds=1, threads=1, say=lines.append, alone=alone)
    own = accuracy.decided(job)
    resolved = resolve_job(own)
    test = fit(resolved, make_splits(own, resolved.base), worker=Worker(threads=1)).test
    assert test is not None
    assert re.search(rf"^  own +{test.accuracy:.4f}  by epoch {test.accuracy:.4f}  0\.\d min$", "\n".join(lines), re.M)


@pytest.mark.parametrize("bench", ["train", "tune"])
def test_rivals_that_cut_the_end_are_not_compared_with_windows(bench: str) -> None:
    job, module = Job().replace({"data.truncation": "windows"}), import_module(f"raylora.bench.{bench}")
    counts: dict[str, Any] = {"train": (1, 1, 8, 1), "tune": (["pack"], 1, 8, 8)}
    with pytest.raises(ConfigError, match=r"leave out `data\.truncation: windows`"):
        module.bench(job, *counts[bench], print)
