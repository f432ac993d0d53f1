"""`raylora inspect RUN`: the rows of a run's train split whose labels may be wrong, for people to look at."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raylora.cluster.data.dataset import Dataset, assemble
from raylora.cluster.data.exclude import LABEL, PAIR, TEXT
from raylora.cluster.data.prepare import blocks_here, outline_of
from raylora.cluster.data.rows import Row, Source
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import Job
from raylora.model.base.load import load_tokenizer
from raylora.model.folds import OutOfFold, out_of_fold
from raylora.model.resolved import resolve_job
from raylora.model.tokens import spec_for
from raylora.neighbours import MOST_ROWS, Neighbours, neighbours
from raylora.records import Say
from raylora.tasks.doubts import Doubts

REASONS = ("label", "near duplicate", "outlier")
MOST = 1000  # rows of a review that is not asked for more


@dataclass(frozen=True)
class Suspect:
    """One row to look at.

    Args:
        reason: `label` (models that did not see it say otherwise), `near duplicate` (of a row with another label) or
            `outlier` (unlike all other texts).
        quality: from 0, the label is surely wrong, to 1.
        suggested: what the models say; of several labels the row's own with the doubtful ones turned.
        near: of a near duplicate the other row: its place and its label.
    """

    reason: str
    quality: float
    label: str
    suggested: str
    text: str
    text_pair: str | None
    place: str
    near: str


@dataclass(frozen=True)
class Review:
    """`suspects` are the most doubtful first; `found` counts all of each reason among `rows` of train."""

    rows: int
    found: dict[str, int]
    suspects: tuple[Suspect, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def as_csv(self) -> str:
        """For a spreadsheet, and for `data.exclude`."""
        stream, pairs = io.StringIO(), any(each.text_pair is not None for each in self.suspects)
        names = ["reason", "quality", LABEL, "suggested", TEXT, *([PAIR] if pairs else []), "place", "near"]
        writer = csv.writer(stream)
        writer.writerow(names)
        for each in self.suspects:
            writer.writerow([f"{each.quality:.4f}" if name == "quality" else getattr(each, name) for name in names])
        return stream.getvalue()


def review(job: Job, say: Say, folds: int, most: int = MOST) -> Review:
    """Read the job's data anew and train an adapter for each fold of its train rows, in this process.

    Args:
        job: of a run, its task decided.
        most: rows of the review.

    Raises:
        DataError: a file cannot be read, or holds too few rows.
        ModelError: the base model is not to be had.
    """
    import torch

    from raylora.model.fit.splits import Worker

    use_gpu = torch.cuda.is_available()
    resolved, sources = resolve_job(job, use_gpu), list_sources(job.data)
    tokenizer = spec_for(load_tokenizer(resolved.base.path), job.data)
    block = blocks_here(job, sources, tokenizer).combine_chunks()
    outline = outline_of(block)
    dataset = assemble(job.data, job.split_seed, sources, tokenizer, [], outline)
    train = outline.take(dataset.splits["train"].rows)
    say(f"rows       {train.num_rows:,} train, in {folds} folds")
    texts = train["hash"].to_numpy()
    found = out_of_fold(resolved, dataset.over([block]), texts, say, Worker(use_gpu=use_gpu), folds)
    return _review(_Rows(job, sources, dataset, train), found, most)


@dataclass(frozen=True)
class _Rows:
    """The train rows: `train` are theirs of the outline, in the split's order."""

    job: Job
    sources: Sequence[Source]
    dataset: Dataset
    train: pa.Table

    def written(self, targets: np.ndarray) -> str:
        """One row's target as people write it."""
        return self.dataset.task.written(self.dataset.task.form(targets, self.dataset.labels))

    def place(self, row: int) -> str:
        return self.sources[self.train["source"][row].as_py()].place(self.train["place"][row].as_py())

    def texts(self, rows: Sequence[int]) -> list[Row]:
        """These rows as the files hold them, which are read anew: only tokens were kept."""
        wanted = [(self.train["source"][row].as_py(), self.train["place"][row].as_py()) for row in rows]
        found: dict[tuple[int, int], Row] = {}
        for number in sorted({source for source, _ in wanted}):
            places = {place for source, place in wanted if source == number}
            read = read_rows(self.sources[number], self.job.data)
            found |= {(number, row.place): row for row in read if row.place in places}
        return [found[each] for each in wanted]


def _review(rows: _Rows, found: OutOfFold, most: int) -> Review:
    targets = rows.dataset.splits["train"].targets
    doubts = rows.dataset.task.doubts(found.outputs, targets)
    near = None
    if found.features is not None and len(targets) <= MOST_ROWS:
        near = neighbours(found.features, np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1))
    reasons = _reasons(doubts, near)
    order = doubts.rank[np.argsort(reasons[doubts.rank], kind="stable")]
    shown: list[int] = order[reasons[order] < len(REASONS)][:most].tolist()
    suspects: list[Suspect] = []
    for row, read in zip(shown, rows.texts(shown), strict=True):
        twin = -1 if near is None else int(near.twin[row])
        suspects.append(
            Suspect(
                reason=REASONS[reasons[row]],
                quality=float(doubts.quality[row]),
                label=rows.written(targets[row]),
                suggested=rows.written(doubts.suggested[row]),
                text=read.text,
                text_pair=read.text_pair,
                place=rows.place(row),
                near="" if twin < 0 else f"{rows.place(twin)}: {rows.written(targets[twin])}",
            )
        )
    counts = {reason: int((reasons == i).sum()) for i, reason in enumerate(REASONS)}
    return Review(len(targets), counts, tuple(suspects))


def _reasons(doubts: Doubts, near: Neighbours | None) -> np.ndarray:
    """[N] places in `REASONS` of the first that holds; its length where none does."""
    nothing = np.zeros(len(doubts.quality), dtype=bool)
    hold = [doubts.is_error, near.twin >= 0 if near else nothing, near.is_far if near else nothing]
    return np.argmax([*hold, ~nothing], axis=0)
