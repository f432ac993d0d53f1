"""Many trials over one base: each ends up where it would alone."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import apart, demo_splits, largest_difference, save_base, tiny_job
from transformers import set_seed

from raylora.config import Job
from raylora.config.space import trial_job
from raylora.errors import ModelError
from raylora.model.bank import Bank
from raylora.model.base.find import resolve
from raylora.model.base.load import load_base, read_config
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import fit
from raylora.model.fit.splits import Splits
from raylora.model.fit.start import begin_from, local_start
from raylora.model.lora.manifest import Manifest
from raylora.model.lora.save import load_adapter, save_adapter, set_trainable_state, trainable_state
from raylora.model.packing import NotPackable, pack_key, packable, slots
from raylora.model.resolved import ResolvedJob, resolve_job

Bases = Callable[[str], Path]
Weights = dict[str, torch.Tensor]

CLOSE = 3e-3  # of `apart`, after 50 steps: sums in another order make 1e-3 on some CPUs, other masks 1
# a row may move to the next bin of the calibration error, or change places with another of about its score
NEAR = {
    "eval_loss": 1e-3,
    "eval_log_loss": 1e-3,
    "eval_ece": 0.1,
    "eval_roc_auc": 0.02,
    "eval_average_precision": 0.02,
    "eval_pearson": 1e-3,
    "eval_spearman": 0.02,
    "eval_mse": 1e-3,
    "eval_mae": 1e-3,
    "eval_r2": 1e-3,
}
ROWS = 125  # 100 to train on: 13 steps of 8 rows, 4 epochs make 52


@dataclass
class Run:
    """A trial's reports, its weights after the last epoch, and those of its best."""

    metrics: list[Event]
    last: Weights
    best: Weights


def alone(job: Job, splits: Splits, **options: Any) -> Run:
    metrics: list[Event] = []
    run = Run(metrics, {}, {})

    def report(record: Event, folder: Path | None) -> None:
        assert folder
        metrics.append(record)
        run.last, run.best = load_file(folder / "adapter_model.safetensors"), load_file(folder / "best.safetensors")

    fit(resolve_job(job), splits, report=report, **options)
    return run


def bank_of(jobs: dict[str, Job], splits: Splits) -> Bank:
    first = next(iter(jobs.values()))
    bank = Bank(resolve_job(first), splits)
    for name, job in jobs.items():
        bank.admit(name, job)
    return bank


def weights(bank: Bank, name: str, folder: Path) -> tuple[Weights, Weights]:
    """A trial's weights now, under the names of an adapter's file, and the best."""
    bank.save(name, folder)
    last = load_file(folder / "weights.safetensors")
    plain = {n.replace(".modules_to_save.default", "").replace(".default", ""): t for n, t in last.items()}
    return plain, load_file(folder / "best.safetensors")


def follow(bank: Bank, folder: Path, runs: dict[str, Run], epochs: int = 99) -> dict[str, Run]:
    """Train until every trial has finished (or so many epochs); those that have are dropped, as a tuner does."""
    for _ in range(epochs):
        for name, result in bank.run_epoch().items():
            run = runs.setdefault(name, Run([], {}, {}))
            run.metrics.append(result.metrics)
            run.last, run.best = weights(bank, name, folder / name)
            if result.finished:
                bank.drop(name)
        if not bank.names:
            break
    return runs


def packed(jobs: dict[str, Job], splits: Splits, folder: Path) -> dict[str, Run]:
    return follow(bank_of(jobs, splits), folder, {})


def agree(one: Run, other: Run, within: float = CLOSE) -> None:
    assert len(one.metrics) == len(other.metrics)
    for mine, theirs in zip(one.metrics, other.metrics, strict=True):
        assert mine == {
            key: pytest.approx(value, abs=NEAR[key]) if key in NEAR else value for key, value in theirs.items()
        }
    assert apart(one.last, other.last) < within
    assert apart(one.best, other.best) < within


def quick_job(base: Path, **changes: Any) -> Job:
    return tiny_job(base, **{"train__num_train_epochs": 4, "train__learning_rate": 2e-3} | changes)


ALL = ["query", "key", "value", "dense"]
MIXED: list[dict[str, Any]] = [
    {},
    {"lora__r": 16, "lora__lora_alpha": 8},
    {"lora__target_modules": ALL, "lora__r": 2},
    {"lora__layers_to_transform": [0], "train__learning_rate": 5e-3},
    {"train__weight_decay": 0.1, "train__lr_scheduler_type": "cosine", "train__warmup_steps": 0.1},
    {"lora__lora_dropout": 0.1, "lora__use_rslora": True, "train__max_grad_norm": 0.0},
    {"lora__lora_dropout": 0.3, "lora__target_modules": "all-linear", "train__optim": "adafactor"},
    {"train__num_train_epochs": 3, "train__optim": "sgd", "train__learning_rate": 0.1, "train__max_grad_norm": 0.1},
]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_packed_trials_end_where_each_would_alone(bases: Bases, tmp_path: Path, count: int) -> None:
    """Ranks, targets, layers, dropout, rates, schedules, optimizers and epochs all differ; 52 steps."""
    jobs = {str(i): quick_job(bases("bert"), **changes) for i, changes in enumerate(MIXED[:count])}
    splits = demo_splits(jobs["0"], bases("bert"), ROWS)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_pack_of_another_seed_than_the_splits_ends_where_its_trials_would_alone(
    bases: Bases, tmp_path: Path, kind: str
) -> None:
    """Weights, order of rows and dropout are drawn with the trials' seed; the rows are the sweep's."""
    sweep = quick_job(bases(kind), lora__lora_dropout=0.1, train__num_train_epochs=2)
    jobs = {str(r): trial_job(sweep, {"lora.r": r, "seed": 43}) for r in (2, 8)}
    splits = demo_splits(sweep, bases(kind), ROWS)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))
    assert apart(runs["2"].last, alone(jobs["2"].replace({"seed": 42}), splits).last) > 0.1


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "deberta-v2", "modernbert", "llama"])
def test_every_supported_base_packs(bases: Bases, tmp_path: Path, kind: str) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"lora__target_modules": "all-linear", "lora__r": 2, "lora__lora_dropout": 0.1},
    ]
    jobs = {str(i): quick_job(bases(kind), **change) for i, change in enumerate(changes)}
    splits = demo_splits(jobs["0"], bases(kind), ROWS)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))


def test_trials_leave_early_and_others_take_their_places(bases: Bases, tmp_path: Path) -> None:
    """Places change while trials are at different epochs, whose batches differ in width."""
    base, folder = bases("bert"), tmp_path
    jobs = {
        "short": quick_job(base, train__num_train_epochs=1, lora__r=16),
        "stopped": quick_job(base, lora__target_modules=ALL),
        "whole": quick_job(base, lora__lora_dropout=0.1, train__lr_scheduler_type="cosine"),
        "late": quick_job(base, lora__lora_dropout=0.1, lora__r=2, train__learning_rate=5e-3),
    }
    splits = demo_splits(jobs["whole"], base, ROWS)
    late = jobs.pop("late")
    bank = bank_of(jobs, splits)
    runs = follow(bank, folder, {}, epochs=1)
    assert bank.names == ["stopped", "whole"]
    bank.drop("stopped")
    bank.admit("late", late)
    follow(bank, folder, runs)
    agree(runs["whole"], alone(jobs["whole"], splits))
    agree(runs["late"], alone(late, splits))
    agree(runs["short"], alone(jobs["short"], splits))


def test_accumulated_micro_batches_add_up_as_alone(bases: Bases, tmp_path: Path) -> None:
    """76 rows in steps of 16: the last step has 12, in micro-batches of 6."""
    changes = {"train__gradient_accumulation_steps": 2, "train__num_train_epochs": 4, "lora__lora_dropout": 0.1}
    jobs = {str(r): quick_job(bases("bert"), lora__r=r, **changes) for r in (2, 8)}
    splits = demo_splits(jobs["2"], bases("bert"), 94)
    runs = packed(jobs, splits, tmp_path)
    assert runs["2"].metrics[-1]["step"] == 20
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_trials_above_a_frozen_prefix_share_it(bases: Bases, tmp_path: Path, kind: str) -> None:
    targets = {"bert": ALL, "deberta-v2": ["query_proj", "dense"]}[kind]
    job = quick_job(bases(kind), lora__layers_to_transform=[1], train__num_train_epochs=2)
    jobs = {"a": job, "b": job.replace({"lora.target_modules": targets, "lora.lora_dropout": 0.1})}
    splits = demo_splits(job, bases(kind), ROWS)
    bank = bank_of(jobs, splits)
    assert bank.train.table.frozen_states is not None
    runs = follow(bank, tmp_path, {})
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))


def test_positions_that_share_the_projections_are_each_trials_own(tmp_path: Path) -> None:
    """As in DeBERTa-v3: query and key also project the table of positions, so that it differs by trial."""
    base = tmp_path / "base"
    save_base("deberta-v2", base, share_att_key=True, position_buckets=8)
    changes = {"lora__target_modules": ["query_proj", "key_proj"], "lora__lora_dropout": 0.1}
    jobs = {str(r): quick_job(base, lora__r=r, train__num_train_epochs=2, **changes) for r in (2, 8)}
    splits = demo_splits(jobs["2"], base, ROWS)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))


def test_a_base_held_in_bf16_packs_as_it_trains_alone(bases: Bases, tmp_path: Path) -> None:
    """Within bf16's own noise: its 8 bits round every state to 0.4 %, and the order of sums differs."""
    jobs = {str(r): quick_job(bases("bert"), lora__r=r, train__bf16=True, train__num_train_epochs=1) for r in (2, 8)}
    splits = demo_splits(jobs["2"], bases("bert"), ROWS)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        reference = alone(job, splits)
        assert runs[name].metrics[0]["dtype"] == reference.metrics[0]["dtype"] == "bfloat16"
        assert all(tensor.dtype == torch.float32 for tensor in runs[name].last.values())
        moved = largest_difference(start_of(job, splits), reference.best)
        assert largest_difference(runs[name].best, reference.best) < 0.1 * moved


def start_of(job: Job, splits: Splits) -> Weights:
    set_seed(job.seed)
    model = build(resolve_job(job), splits.labels, splits.tokenizer.pad_id)
    begin_from(model, job, local_start(job, splits, model))
    return trainable_state(model)


def test_first_weights_and_a_given_base_are_those_of_a_trial_alone(bases: Bases) -> None:
    job = quick_job(bases("roberta"))
    splits = demo_splits(job, bases("roberta"), 40)
    base = resolve(job.model)
    state = load_base(
        base, read_config(base, splits.labels, False), splits.tokenizer.pad_id
    ).model.base_model.state_dict()
    given = {f"roberta.{name}": tensor for name, tensor in state.items()}
    torch.manual_seed(99)
    bank = Bank(ResolvedJob(job, base), splits, weights=given)
    for name in ("first", "second"):
        torch.manual_seed(7)
        bank.admit(name, job)
        assert largest_difference(bank.trials[-1].state(), start_of(job, splits)) == 0


def test_a_resumed_trial_goes_on_as_if_never_stopped(bases: Bases, tmp_path: Path) -> None:
    """To the bit, with another trial beside it before and a different one after."""
    job = quick_job(bases("bert"), lora__lora_dropout=0.1, train__lr_scheduler_type="cosine", train__warmup_steps=5.0)
    job = job.replace({"train.metric_for_best_model": "loss"})
    other = job.replace({"lora.r": 16})
    splits = demo_splits(job, bases("bert"), ROWS)
    whole = packed({"a": job, "b": other}, splits, tmp_path)["a"]
    runs = follow(bank_of({"a": job, "b": other}, splits), tmp_path, {}, epochs=2)
    again = bank_of({"c": other}, splits)
    again.admit("a", job, resume_from=tmp_path / "a")
    follow(again, tmp_path, runs)
    agree(runs["a"], whole, within=1e-12)


def test_a_resumed_trial_takes_its_new_hyperparameters(bases: Bases, tmp_path: Path) -> None:
    """As population based training has it: weights and moments of the checkpoint, all else of the new job."""
    job = quick_job(bases("bert"), train__learning_rate=2e-3)
    splits = demo_splits(job, bases("bert"), ROWS)
    bank = bank_of({"a": job}, splits)
    follow(bank, tmp_path, {}, epochs=1)
    records: list[Event] = []
    mutated = job.replace({"train.learning_rate": 1e-3, "train.weight_decay": 0.3, "train.logging_steps": 1})
    bank.admit("b", mutated, resume_from=tmp_path / "a")
    mine, its = bank.trials[1].state(), bank.trials[0].state()
    assert largest_difference(mine, its) == 0
    bank.run_epoch(lambda name, record: records.append({"name": name, **record}))
    first = next(record for record in records if record["name"] == "b")
    assert first["step"] == 14
    assert first["learning_rate"] == pytest.approx(1e-3 * 39 / 52)  # linear: 13 of 52 steps are behind it
    assert bank.trials[1].optimizer.param_groups[0]["weight_decay"] == 0.3


def test_a_checkpoint_of_another_adapter_is_refused(bases: Bases, tmp_path: Path) -> None:
    job = quick_job(bases("bert"))
    bank = bank_of({"a": job}, demo_splits(job, bases("bert"), 40))
    follow(bank, tmp_path, {}, epochs=1)
    with pytest.raises(ModelError, match="another rank or other modules"):
        bank.admit("b", job.replace({"lora.r": 8}), resume_from=tmp_path / "a")
    with pytest.raises(ModelError, match="not a checkpoint of a packed trial"):
        bank.admit("b", job, resume_from=tmp_path)
    assert bank.names == ["a"]


def test_a_diverged_trial_leaves_the_others_bits_alone(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert")
    job = quick_job(base, lora__lora_dropout=0.1, train__num_train_epochs=2)
    wild = job.replace({"train.learning_rate": 1e30, "train.max_grad_norm": 0.0})
    splits = demo_splits(job, base, ROWS)
    calm = packed({"a": job, "b": job.replace({"lora.r": 8}), "c": job}, splits, tmp_path)
    bank = bank_of({"a": job, "b": wild.replace({"lora.r": 8}), "c": job}, splits)
    results = bank.run_epoch()
    assert str(results["b"].error).endswith("Lower `train.learning_rate` (now 1e+30).")
    assert results["b"].finished and not results["a"].error
    bank.drop("b")
    runs = follow(bank, tmp_path, {})
    for name in ("a", "c"):
        assert largest_difference(runs[name].last, calm[name].last) == 0


def test_early_stopping_ends_a_trial_when_it_would_alone(bases: Bases, tmp_path: Path) -> None:
    """One that cannot get better, and one whose rate makes it worse; epochs of 6 steps."""
    changes = {
        "train__num_train_epochs": 9,
        "train__early_stopping_patience": 2,
        "train__metric_for_best_model": "loss",
    }
    jobs = {
        "still": quick_job(bases("bert"), **changes | {"train__learning_rate": 1e-12}),
        "wild": quick_job(bases("bert"), **changes | {"train__learning_rate": 0.05}),
    }
    splits = demo_splits(jobs["still"], bases("bert"), 60)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        reference = alone(job, splits)
        assert len(runs[name].metrics) == len(reference.metrics) < 9
        ends = [min(run.metrics, key=lambda record: record["eval_loss"])["epoch"] for run in (runs[name], reference)]
        assert ends[0] == ends[1] == len(reference.metrics) - 2


def test_a_trial_that_goes_on_from_its_early_stop_is_over(bases: Bases, tmp_path: Path) -> None:
    job = quick_job(bases("bert"), train__num_train_epochs=9, train__early_stopping_patience=1)
    job = job.replace({"train.learning_rate": 1e-12})
    bank = bank_of({"a": job}, demo_splits(job, bases("bert"), 40))
    for epoch in (1, 2):
        assert bank.run_epoch()["a"].finished is (epoch == 2)
        bank.save("a", tmp_path / str(epoch))
    for epoch in (1, 2):
        bank.drop("a")
        bank.admit("a", job, resume_from=tmp_path / str(epoch))
        assert bank.trials[0].over is (epoch == 2)


def test_a_packed_trials_best_weights_make_an_ordinary_adapter(bases: Bases, tmp_path: Path) -> None:
    base = bases("distilbert")
    jobs = {str(r): quick_job(base, lora__r=r, train__num_train_epochs=1) for r in (2, 8)}
    splits = demo_splits(jobs["2"], base, 60)
    bank = bank_of(jobs, splits)
    runs = follow(bank, tmp_path, {}, epochs=1)
    resolved = resolve_job(jobs["8"])
    model = build(resolved, splits.labels, splits.tokenizer.pad_id).eval()
    set_trainable_state(model, runs["8"].best)
    manifest = Manifest(splits.labels, resolved.base.id, None, "", 64)
    save_adapter(model, resolved.base, manifest, tmp_path / "adapter")
    config = read_config(resolved.base, splits.labels, dropout=True)
    again = load_adapter(load_base(resolved.base, config, 0).model, tmp_path / "adapter")
    batch = Collator(splits.validation, splits.tokenizer)(np.arange(len(splits.validation)))
    with torch.inference_mode():
        logits = again(**batch)
    assert float(logits.loss) == pytest.approx(runs["8"].metrics[0]["eval_loss"], abs=1e-5)


def test_each_trials_losses_are_logged_as_alone(bases: Bases) -> None:
    jobs = {n: quick_job(bases("bert"), lora__r=4, train__logging_steps=n, train__num_train_epochs=2) for n in (1, 5)}
    splits = demo_splits(jobs[1], bases("bert"), ROWS)
    bank = bank_of({str(n): job for n, job in jobs.items()}, splits)
    records: dict[str, list[Event]] = {"1": [], "5": []}
    for _ in range(2):
        bank.run_epoch(lambda name, record: records[name].append(record))
    for n, job in jobs.items():
        own: list[Event] = []
        fit(resolve_job(job), splits, log=own.append)
        for mine, its in zip(
            records[str(n)], [r for r in own if r["kind"] not in ("model", "head", "calibration")], strict=True
        ):
            close = {k: v if isinstance(v, str) else pytest.approx(v, rel=1e-4) for k, v in its.items()}
            both = mine.keys() & its.keys()
            assert both >= {"kind", "step", "epoch"}
            assert {key: mine[key] for key in both} == {key: close[key] for key in both}


def test_what_is_no_linear_layer_is_not_packed_and_harms_no_other(bases: Bases) -> None:
    job = quick_job(bases("bert"))
    bank = bank_of({"a": job}, demo_splits(job, bases("bert"), 40))
    with pytest.raises(NotPackable, match="word_embeddings is a Embedding, not a linear layer"):
        bank.admit("b", job.replace({"lora.target_modules": ["word_embeddings"]}))
    assert list(bank.run_epoch()) == ["a"]


def test_a_layer_that_is_fed_other_rows_is_not_packed_and_harms_no_other(
    bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeBERTa's positions, were they not known: the probe finds them."""
    monkeypatch.setattr("raylora.model.bank.packed.is_fed_positions", lambda parent, leaf: False)
    job = quick_job(bases("deberta-v2"))
    bank = bank_of({"a": job}, demo_splits(job, bases("deberta-v2"), 40))
    with pytest.raises(NotPackable, match="pos_key_proj is fed 1 rows where the batch has 2"):
        bank.admit("b", job.replace({"lora.target_modules": ["pos_key_proj"]}))
    assert list(bank.run_epoch()) == ["a"]


def test_a_bank_without_trials_has_nothing_to_report(bases: Bases) -> None:
    job = quick_job(bases("bert"))
    bank = bank_of({"a": job}, demo_splits(job, bases("bert"), 40))
    bank.drop("a")
    assert bank.run_epoch() == {}


def test_packing_is_decided_without_torch() -> None:
    code = (
        "import sys, raylora.model.packing as p; from raylora.config import Job; p.pack_key(Job()); p.packable(Job());"
    )
    code += (
        "import numpy; p.slots(Job(), numpy.ones(3), False); sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_pack_shares_all_but_the_adapters_own_settings() -> None:
    job = Job()
    for own in (
        {"lora.r": 2},
        {"train.learning_rate": 1e-3},
        {"run_name": "x"},
        {"ray.num_workers": 2},
        {"tune.mode": "max"},
    ):
        assert pack_key(job.replace(own)) == pack_key(job)
    for shared in (
        {"seed": 1},
        {"data.max_length": 64},
        {"train.per_device_train_batch_size": 4},
        {"train.bf16": True},
        {"lora.modules_to_save": ["pooler"]},
        {"lora.layers_to_transform": [3, 4]},
    ):
        assert pack_key(job.replace(shared)) != pack_key(job)
    assert pack_key(job.replace({"lora.layers_to_transform": [0, 4]})) == pack_key(job)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"lora.target_modules": "all-linear"}, None),
        ({"lora.use_dora": True}, "lora.use_dora"),
        ({"lora.bias": "all"}, "lora.bias: all"),
        ({"train.base_dropout": True}, "train.base_dropout"),
    ],
)
def test_a_trial_that_cannot_be_packed_says_why(changes: dict[str, Any], reason: str | None) -> None:
    assert packable(Job().replace(changes)) == reason


def test_a_packs_size_is_capped_by_tokens_per_step() -> None:
    """8 rows of 25: 200 tokens; 4096 / 200 = 20, at most 8. 8 rows of 128: 4 packs of 1024. 64 of 128: alone."""
    eight, many = (Job().replace({"train.per_device_train_batch_size": rows}) for rows in (8, 64))
    assert slots(eight, np.full(100, 25), use_gpu=False) == 8
    assert slots(eight, np.full(100, 128), use_gpu=False) == 4
    assert slots(many, np.full(100, 128), use_gpu=False) == 1
    assert slots(eight, np.full(100, 25), use_gpu=True) == 32
