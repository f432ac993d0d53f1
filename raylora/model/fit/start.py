"""Before the first step: where the head starts, and the floor that the adapter must beat, from a frozen forward."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor, nn
from transformers import set_seed

from raylora.config import Job
from raylora.floor import Baseline, Floor, FloorSplit, read_floor, summary
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.callback import FLOOR, Event
from raylora.model.fit.head import (
    Features,
    HeadStart,
    NotProbed,
    brings_head,
    draws_below_last,
    features,
    join,
    last_linear,
    start_head,
    units_of,
)
from raylora.model.losses import class_weights
from raylora.model.resolved import ResolvedJob
from raylora.probe import FITTED, spread
from raylora.tasks import ProblemType
from raylora.tfidf import fit_tfidf

if TYPE_CHECKING:
    from raylora.model.fit.splits import Splits

TRAIN_ROWS = 20_000  # of train, at most
FIT_WORK = 4e9  # rows x labels x features of a fit, at most: some 20 s on two cores
MOST_LABELS = 2000  # with more, not even one row a label stays within that
FLOOR_SHARE = 0.025  # of the run's forwards go to the baselines' scores on each split
FLOOR_ROWS = (500, 10_000)  # the fewest and the most of a split
FLOOR_WORK = 2e6  # rows x labels of a split, at most: the bootstrap of F1 counts each label in each resample
NO_LAYER = "the base does not end in a new linear layer that raylora knows"
# The probe's weights are damped by this: a confident head that is wrong must be unlearned first (docs/accuracy.md).
HEAD_SCALES: dict[ProblemType, float] = {
    "single_label_classification": 0.3,
    "multi_label_classification": 0.3,
    "regression": 1.0,
}
# A probe of less skill is worth nothing to a head that has time to learn: sst5, of 0.13, ended a point higher from a
# random one after 20,000 rows. trec6 with 160 rows, of 0.13 to 0.35, ended at 34 instead of 78 (docs/accuracy.md).
LEAST_SKILL = 0.2
MANY_ROWS = 5000  # of train, over all epochs
WEAK = "a linear probe of what it sees labels {:.0%} of held-out rows rightly, their commonest label alone {:.0%}"


@dataclass(frozen=True)
class Start:
    """`head` is None where it starts at random, or where the base `brings_head`; `floor` where there is none; `reason`
    says why what was wanted is not there."""

    head: HeadStart | None = None
    floor: Floor | None = None
    reason: str | None = None
    brings_head: bool = False

    @property
    def init(self) -> Literal["probe", "base", "random"]:
        """What the head starts from."""
        return "probe" if self.head else "base" if self.brings_head else "random"


def begin_from(model: nn.Module, job: Job, start: Start) -> None:
    """Give the model's head its first weights, where the job wants them."""
    if start.head and job.train.head_init == "probe":
        start_head(model, start.head)


def begin(
    job: Job,
    splits: "Splits",
    model: nn.Module,
    features_of: Callable[[Collator], Features],
    resume_from: Path | None,
    log: Callable[[Event], None] | None,
) -> Start:
    """Start the head, and know the floor: as a sweep made them, as an interrupted run left them, or made now.

    Args:
        log: None on workers but the first.
    """
    if splits.start:
        begin_from(model, job, splits.start)
        return replace(splits.start, floor=None)
    if resume_from:  # the head is among the checkpoint's weights
        kept = resume_from / FLOOR
        return Start(None, read_floor(kept.read_text()) if kept.is_file() else None)
    started = time.perf_counter()
    start = make_start(job, splits, model, features_of, is_main=log is not None)
    begin_from(model, job, start)
    seconds = time.perf_counter() - started - (start.floor.seconds if start.floor else 0)
    if log and (start.head or start.reason or start.brings_head):
        log({"kind": "head", "init": start.init, "reason": start.reason, "seconds": round(seconds, 3)})
    if log and start.floor:
        log({"kind": "floor", **summary(start.floor, {}, job.metric)})
    return start


def make_start(
    job: Job,
    splits: "Splits",
    model: nn.Module,
    features_of: Callable[[Collator], Features],
    is_main: bool = True,
    floor_rows: int | None = None,
) -> Start:
    """The start of a run, a pure function of its rows and its base; of what the job does not want, nothing.

    Args:
        model: as it will be trained, before its first step.
        features_of: the frozen base's features of a table's rows, in order; called on every worker in the same order.
        is_main: False on workers whose weights will be taken from the first one's; their floor is without predictions.
        floor_rows: of each split that the floor is shown on; None = a small part of the run's work.
    """
    if not (job.train.floor or job.train.head_init == "probe"):
        return Start()
    try:
        return _make_start(job, splits, model, features_of, is_main, floor_rows)
    except NotProbed as why:
        return Start(reason=str(why), brings_head=brings_head(model))


def _make_start(
    job: Job,
    splits: "Splits",
    model: nn.Module,
    features_of: Callable[[Collator], Features],
    is_main: bool,
    floor_rows: int | None,
) -> Start:
    """Raises:
    NotProbed: on every worker alike.
    """
    last, num_labels = last_linear(model), len(splits.labels)
    if num_labels > MOST_LABELS:
        raise NotProbed(f"{num_labels:,} labels are more than {MOST_LABELS:,}")
    if why := splits.task.check_learnable(splits.train.targets):
        raise NotProbed(why)
    first = Collator(splits.train.take(np.arange(1)), splits.tokenizer)
    width = features(model, first, 1)[0][1].mean.shape[1]  # every worker tries a row by itself
    count = min(TRAIN_ROWS, max(num_labels, int(FIT_WORK / (num_labels * width))))
    train = Collator(splits.train.take(spread(splits.task.strata(splits.train.targets), count)), splits.tokenizer)
    known = features_of(train)
    if not all(np.isfinite(part).all() for part in (known.head, known.mean) if part is not None):
        raise NotProbed("the base's hidden states are not all finite numbers")
    count = floor_rows or _floor_rows(job, len(splits.train), num_labels)
    floor = _floor(splits, train, known, features_of, count, is_main, job.metric) if job.train.floor else None
    if last is None or known.head is None:
        is_wanted = job.train.head_init == "probe" and not brings_head(model)
        return Start(None, floor, NO_LAYER if is_wanted else None, brings_head(model))
    if not is_main or job.train.head_init != "probe":
        return Start(None, floor)
    return replace(probe_head(job, splits, model, known.head, train.table.targets), floor=floor)


def probe_head(job: Job, splits: "Splits", model: nn.Module, seen: np.ndarray, targets: np.ndarray) -> Start:
    """Where the head starts that knows some rows: at a probe of them, or at random where that knows too little.

    Args:
        model: with a last linear layer (`last_linear`); `seen` [N, F] is what that sees of the rows.
        targets: [N, ...] theirs.
    """
    last = last_linear(model)
    assert last is not None, "whoever has features of it has the layer"
    has_bias, weights = getattr(*last).bias is not None, class_weights(job, splits)
    targets = splits.task.standard(units_of(splits, model), targets)
    probe = FITTED[splits.task.problem_type](seen, targets, len(splits.labels), has_bias, weights)
    if probe.skill < LEAST_SKILL and job.train.num_train_epochs * len(splits.train) >= MANY_ROWS:
        return Start(None, reason=WEAK.format(probe.accuracy, probe.majority))
    return Start(HeadStart(*probe.damped(HEAD_SCALES[splits.task.problem_type])))


def local_start(job: Job, splits: "Splits", model: Any, floor_rows: int | None = None) -> Start:
    """`make_start` in one process."""

    def features_of(split: Collator) -> Features:
        return join(features(model, split, job.train.per_device_eval_batch_size))

    return make_start(job, splits, model, features_of, floor_rows=floor_rows)


def start_key(job: Job) -> str:
    """Equal for trials whose heads start alike: those of one seed, whose probes weigh labels alike."""
    return json.dumps([job.seed, job.train.class_weights], sort_keys=True)


def key_in_words(key: str) -> str:
    """A `start_key`, for a terminal."""
    seed, weights = json.loads(key)
    return f"seed {seed}" + (f", class_weights {json.dumps(weights, ensure_ascii=False)}" if weights else "")


def starts_of(
    resolved: ResolvedJob, splits: "Splits", trials: Sequence[Job], weights: Mapping[str, Tensor] | None, device: str
) -> dict[str, Start]:
    """The starts of a sweep's trials by `start_key`, the floor with the first.

    Args:
        resolved: the sweep's job.
        trials: one of each key.
        weights: the base's, of `load_base`.
    """
    starts: dict[str, Start] = {}
    alike: dict[str, Start] = {}  # the seed draws no more of most heads than what a start replaces
    for trial in trials:
        set_seed(trial.seed)
        model: Any = build(resolved, splits.labels, splits.tokenizer.pad_id, weights)
        own: dict[str, Any] = {"train.class_weights": trial.train.class_weights, "seed": trial.seed}
        what = start_key(resolved.job.replace(own if draws_below_last(model) else own | {"seed": 0}))
        if what not in alike:
            wanted = resolved.job.replace(own | {"train.floor": resolved.job.train.floor and not alike})
            alike[what] = local_start(wanted, splits, model.to(device))
        starts[start_key(trial)] = alike[what]
    return starts


def _floor_rows(job: Job, train_rows: int, num_labels: int) -> int:
    """A training step costs about three forwards."""
    fewest, most = FLOOR_ROWS
    share = int(FLOOR_SHARE * 3 * job.train.num_train_epochs * train_rows)
    return min(most, int(FLOOR_WORK / num_labels), max(fewest, share))


def _floor(
    splits: "Splits",
    train: Collator,
    known: Features,
    features_of: Callable[[Collator], Features],
    count: int,
    is_main: bool,
    metric: str,
) -> Floor:
    """Both baselines fitted on rows of train, and what they say of rows of the other splits."""
    started = time.perf_counter()
    places = {name: spread(splits.task.strata(table.targets), count) for name, table in splits.scored().items()}
    shown = {name: Collator(splits.scored()[name].take(rows), splits.tokenizer) for name, rows in places.items()}
    seen = {name: features_of(split) for name, split in shown.items()}
    predicted: dict[str, dict[Baseline, np.ndarray]] = {name: {} for name in shown}
    targets, task, num_labels = train.table.targets, splits.task, len(splits.labels)
    if is_main:
        tfidf = fit_tfidf(train.tokens(), targets, num_labels, task)
        probe = FITTED[task.problem_type](known.mean, targets, num_labels)
        outputs: dict[Baseline, dict[str, np.ndarray]] = {
            "tfidf": {name: tfidf.outputs(split.tokens()) for name, split in shown.items()},
            "probe": {name: probe.logits(seen[name].mean) for name in shown},
        }
        for baseline, by_split in outputs.items():  # as fair as the adapter's: thresholds of the same kind
            thresholds = task.thresholds(by_split["validation"], shown["validation"].table.targets, metric)
            for name in shown:
                predicted[name][baseline] = task.decisions(by_split[name], thresholds)
    found = {
        name: FloorSplit(places[name], split.table.targets, predicted[name], num_labels, task)
        for name, split in shown.items()
    }
    return Floor(found, len(targets), time.perf_counter() - started)
