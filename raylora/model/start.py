"""Before the first step: where the head starts, and the floor that the adapter must beat, from a frozen forward."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from raylora.config import Job
from raylora.floor import Baseline, Floor, FloorSplit, fit_tfidf
from raylora.model.batches import sorted_batches
from raylora.model.head import Features, HeadStart, features, join, last_linear, start_head
from raylora.model.tokens import Collator, TokenTable
from raylora.probe import fit_probe, spread

if TYPE_CHECKING:
    from raylora.model.fit import Splits

TRAIN_ROWS = 20_000  # of train at most: the fits then take seconds, however many rows there are
FLOOR_SHARE = 0.025  # of the run's forwards go to the baselines' scores on each split
FLOOR_ROWS = (500, 10_000)  # the fewest and the most of a split
# The probe's weights are damped by this: a confident head that is wrong must be unlearned first (docs/accuracy.md).
HEAD_SCALE = 0.3


@dataclass(frozen=True)
class Start:
    """`head` is None where it starts at random, `floor` where none was asked for."""

    head: HeadStart | None = None
    floor: Floor | None = None


def begin_from(model: nn.Module, job: Job, start: Start) -> None:
    """Give the model's head its first weights, where the job wants them."""
    if start.head and job.train.head_init == "probe":
        start_head(model, start.head)


def make_start(
    job: Job,
    splits: "Splits",
    model: nn.Module,
    features_of: Callable[[Collator], Features],
    is_main: bool = True,
    floor_rows: int | None = None,
) -> Start:
    """The start of a run, a pure function of its rows and its base.

    Nothing is made where `train.floor` and `train.head_init` want nothing, or the model has no last linear layer, as
    code that comes with a base may not.

    Args:
        model: as it will be trained, before its first step.
        features_of: the frozen base's features of a table's rows, in order; called on every worker in the same order.
        is_main: False on workers whose weights will be taken from the first one's; they get nothing.
        floor_rows: of each split that the floor is shown on; None = a small part of the run's work.
    """
    wanted, last = job.train.floor or job.train.head_init == "probe", last_linear(model)
    if not wanted or last is None:
        return Start()
    spec, num_labels = splits.tokenizer, len(splits.labels)
    train = Collator(_some(splits.train, spread(splits.train.label_ids, TRAIN_ROWS)), spec)
    known = features_of(train)
    count = floor_rows or _floor_rows(job, len(splits.train))
    floor = _floor(splits, train, known, features_of, count, is_main) if job.train.floor else None
    if not is_main or job.train.head_init != "probe":
        return Start(None, floor)
    layer = getattr(*last)
    probe = fit_probe(known.head, train.table.label_ids, num_labels, bias=layer.bias is not None)
    return Start(HeadStart(HEAD_SCALE * probe.weight, HEAD_SCALE * probe.bias), floor)


def local_start(job: Job, splits: "Splits", model: Any, floor_rows: int | None = None) -> Start:
    """`make_start` in one process."""

    def features_of(split: Collator) -> Features:
        return join(features(model, split, sorted_batches(split.table.lengths, job.train.per_device_eval_batch_size)))

    return make_start(job, splits, model, features_of, floor_rows=floor_rows)


def _floor_rows(job: Job, train_rows: int) -> int:
    """A training step costs about three forwards."""
    fewest, most = FLOOR_ROWS
    return min(most, max(fewest, int(FLOOR_SHARE * 3 * job.train.num_train_epochs * train_rows)))


def _floor(
    splits: "Splits",
    train: Collator,
    known: Features,
    features_of: Callable[[Collator], Features],
    count: int,
    is_main: bool,
) -> Floor | None:
    """Both baselines fitted on rows of train, and what they say of the other splits."""
    started = time.perf_counter()
    places = {name: spread(table.label_ids, count) for name, table in splits.scored().items()}
    shown = {name: Collator(_some(splits.scored()[name], rows), splits.tokenizer) for name, rows in places.items()}
    seen = {name: features_of(split) for name, split in shown.items()}
    if not is_main:
        return None
    ids = train.table.label_ids
    tfidf = fit_tfidf(train.tokens(), ids, len(splits.labels))
    probe = fit_probe(known.mean, ids, len(splits.labels))
    found: dict[str, FloorSplit] = {}
    for name, split in shown.items():
        predicted: dict[Baseline, np.ndarray] = {
            "tfidf": tfidf.predict(split.tokens()),
            "probe": probe.logits(seen[name].mean).argmax(axis=1),
        }
        found[name] = FloorSplit(places[name], split.table.label_ids, predicted)
    return Floor(found, len(ids), time.perf_counter() - started)


def _some(table: TokenTable, places: np.ndarray) -> TokenTable:
    return replace(table, rows=table.rows[places], label_ids=table.label_ids[places], lengths=table.lengths[places])
