"""The dataset of a run: token blocks in the object store, its labels, and which rows each split holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray import ObjectRef

from raylora.cluster.data.exclude import read_excluded
from raylora.cluster.data.facts import IN_ORDER
from raylora.cluster.data.labels import Known, Names, find_labels
from raylora.cluster.data.report import DataReport, report_of
from raylora.cluster.data.rows import Source, Split, bad_rows_message
from raylora.cluster.data.split import canonical_order, divide_train, fingerprint
from raylora.config import DataSection
from raylora.errors import DataError
from raylora.model.tokens import TokenizerSpec, TokenTable
from raylora.tasks import Task

if TYPE_CHECKING:  # torch and PEFT: 8 s, which a task that only reads would wait for
    from raylora.model.fit.splits import Splits
    from raylora.model.fit.start import Start


@dataclass(frozen=True)
class SplitRows:
    """Some rows of all blocks laid end to end, with what the driver knows of them."""

    rows: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Token blocks in the object store, and which of their rows each split holds.

    Every worker reads any row it needs: the blocks are shared memory on its node, so that the batches of a run can be
    the same for any number of workers. `frozen_states` holds, per block, the states that enter layer `frozen_depth`;
    `start` is that of a sweep's trial. `left_out` says what became of `data.exclude`.
    """

    blocks: list[ObjectRef]
    splits: dict[Split, SplitRows]
    labels: tuple[str, ...]
    task: Task
    tokenizer: TokenizerSpec
    facts: dict[str, Any]
    bad_rows: list[dict[str, str]]
    report: DataReport
    left_out: str | None = None
    frozen_states: list[ObjectRef] | None = None
    frozen_depth: int = 0
    start: "Start | None" = None

    def load(self) -> "Splits":
        """The splits as token tables over the blocks, without copying them; called in each worker."""
        return self.over(ray.get(self.blocks), ray.get(self.frozen_states) if self.frozen_states else None)

    def over(self, chunks: list[pa.Table], frozen_states: list[np.ndarray] | None = None) -> "Splits":
        """The splits over blocks that are here."""
        from raylora.model.fit.splits import Splits

        tables = {
            split: TokenTable(chunks, r.rows, r.targets, r.lengths, frozen_states) for split, r in self.splits.items()
        }
        train, validation, test = tables["train"], tables["validation"], tables.get("test")
        return Splits(train, validation, test, self.labels, self.tokenizer, self.facts, self.start, self.task)


def assemble(
    data: DataSection,
    seed: int,
    sources: list[Source],
    tokenizer: TokenizerSpec,
    blocks: list[ObjectRef],
    outline: pa.Table,
) -> Dataset:
    """Decide labels and splits from the outline of all rows."""
    bad = outline.filter(outline["fault"].is_valid()).sort_by(IN_ORDER)
    bad_rows = [{"place": sources[r["source"]].place(r["place"]), "reason": r["fault"]} for r in bad.to_pylist()]
    if bad_rows and data.on_bad_row == "error":
        raise DataError(bad_rows_message(bad_rows, outline.num_rows))

    good = outline["fault"].is_null().to_numpy(zero_copy_only=False)
    names = Names.of(outline["label"])
    hashes = outline["hash"].to_numpy()
    split_of_source = np.array([("train", "validation", "test").index(s.split) for s in sources])
    split_of_row = split_of_source[outline["source"].to_numpy()]
    members: dict[Split, np.ndarray] = {
        split: np.flatnonzero(good & (split_of_row == i)) for i, split in enumerate(("train", "validation", "test"))
    }

    excluded, left_out = read_excluded(data, seed), np.zeros(len(hashes), dtype=bool)
    if excluded:
        left_out = excluded.among(hashes, names, data)
        members |= {split: members[split][~left_out[members[split]]] for split in ("train", "validation")}
    known = find_labels(data, names, members, sources, outline)
    splits = _splits(data, seed, members, hashes, known)
    lengths = outline["length"].to_numpy()
    return Dataset(
        blocks=blocks,
        splits={split: SplitRows(rows, known.targets[rows], lengths[rows]) for split, rows in splits.items()},
        labels=known.labels,
        task=known.task,
        tokenizer=tokenizer,
        facts=_facts(data, sources, splits, hashes, known),
        bad_rows=bad_rows,
        report=report_of(data, sources, outline, tokenizer),
        left_out=excluded.in_words(int(left_out.sum()), hashes) if excluded else None,
    )


def _splits(
    data: DataSection,
    seed: int,
    members: dict[Split, np.ndarray],
    hashes: np.ndarray,
    known: Known,
) -> dict[Split, np.ndarray]:
    """Row indices per split, in the order of the rows' hashes: the same for any block order."""

    def ordered(rows: np.ndarray) -> np.ndarray:
        return rows[canonical_order(hashes[rows], known.order[rows])]

    rows, labels = members["train"], known.task.on_both_sides(known.labels)
    strata = known.task.strata(known.targets[rows])  # other rows have no say in how these are shared out
    parts = divide_train(data, hashes[rows], known.order[rows], strata, labels)
    splits: dict[Split, np.ndarray] = {"train": rows[parts.train], "validation": rows[parts.validation]}
    if data.validation is not None:
        splits["validation"] = ordered(members["validation"])
    if data.test is not None:
        splits["test"] = ordered(members["test"])
    for split, found in splits.items():
        if not len(found):
            raise DataError(_nothing_left(split, data, len(rows)))
    if why := known.task.nothing_to_learn(known.targets[splits["train"]]):
        raise DataError(
            f"{why}, of {len(rows)} that there are with validation's: there is nothing to learn. Add rows, or give a "
            "`data.validation` file."
        )
    return splits


def _nothing_left(split: Split, data: DataSection, rows: int) -> str:
    """Args:
    rows: of train, before the split.
    """
    if split != "validation" or data.validation is not None:
        return f"no usable row is left in `data.{split}`."
    texts = "1 row holds" if rows == 1 else f"{rows} rows hold"
    return (
        f"`data.train` cannot be split: its {texts} too few different texts to train on some and to validate on "
        "others. Add rows, or give a `data.validation` file."
    )


def _facts(
    data: DataSection,
    sources: list[Source],
    splits: dict[Split, np.ndarray],
    hashes: np.ndarray,
    known: Known,
) -> dict[str, Any]:
    counts = {split: known.task.counts(known.targets[rows], known.labels) for split, rows in splits.items()}
    digest = fingerprint((hashes[rows], known.targets[rows]) for rows in splits.values())
    return {"files": [s.name for s in sources], "rows": counts, "fingerprint": digest}
