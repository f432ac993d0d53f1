"""The dataset of a run: token blocks in the object store, its labels, and which rows each split holds."""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray import ObjectRef

from raylora.cluster.data.report import DataReport, report_of
from raylora.cluster.data.rows import Source, Split
from raylora.cluster.data.split import canonical_order, divide, sample
from raylora.cluster.data.warn import form
from raylora.config import DataSection
from raylora.errors import DataError
from raylora.model.tokens import TokenizerSpec, TokenTable

if TYPE_CHECKING:  # torch and PEFT: 8 s, which a task that only reads would wait for
    from raylora.model.fit.splits import Splits
    from raylora.model.fit.start import Start

SHOWN_FAULTS = 5
IN_ORDER: Any = [("source", "ascending"), ("place", "ascending")]


@dataclass(frozen=True)
class SplitRows:
    """Some rows of all blocks laid end to end, with what the driver knows of them."""

    rows: np.ndarray
    label_ids: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Token blocks in the object store, and which of their rows each split holds.

    Every worker reads any row it needs: the blocks are shared memory on its node, so that the batches of a run can be
    the same for any number of workers. `frozen_states` holds, per block, the states that enter layer `frozen_depth`;
    `start` is that of a sweep's trial.
    """

    blocks: list[ObjectRef]
    splits: dict[Split, SplitRows]
    labels: tuple[str, ...]
    tokenizer: TokenizerSpec
    facts: dict[str, Any]
    bad_rows: list[dict[str, str]]
    report: DataReport
    frozen_states: list[ObjectRef] | None = None
    frozen_depth: int = 0
    start: "Start | None" = None

    def load(self) -> "Splits":
        """The splits as token tables over the blocks, without copying them; called in each worker."""
        from raylora.model.fit.splits import Splits

        chunks = ray.get(self.blocks)
        frozen_states = ray.get(self.frozen_states) if self.frozen_states else None
        tables = {
            split: TokenTable(chunks, r.rows, r.label_ids, r.lengths, frozen_states) for split, r in self.splits.items()
        }
        train, validation, test = tables["train"], tables["validation"], tables.get("test")
        return Splits(train, validation, test, self.labels, self.tokenizer, self.facts, self.start)


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
        raise DataError(_bad_rows_message(bad_rows, outline.num_rows))

    good = outline["fault"].is_null().to_numpy(zero_copy_only=False)
    names = _Names.of(outline["label"])
    hashes = outline["hash"].to_numpy()
    split_of_source = np.array([("train", "validation", "test").index(s.split) for s in sources])
    split_of_row = split_of_source[outline["source"].to_numpy()]
    members: dict[Split, np.ndarray] = {
        split: np.flatnonzero(good & (split_of_row == i)) for i, split in enumerate(("train", "validation", "test"))
    }

    labels = _labels(data, names, members["train"])
    ids = _label_ids(names, labels, members, sources, outline)
    splits = _splits(data, seed, members, hashes, ids, labels)
    lengths = outline["length"].to_numpy()
    return Dataset(
        blocks=blocks,
        splits={split: SplitRows(rows, ids[rows], lengths[rows]) for split, rows in splits.items()},
        labels=labels,
        tokenizer=tokenizer,
        facts=_facts(data, sources, splits, hashes, ids, labels),
        bad_rows=bad_rows,
        report=report_of(data, sources, outline, tokenizer),
    )


def _bad_rows_message(bad_rows: list[dict[str, str]], rows: int) -> str:
    shown = "\n".join(f"  {r['place']}: {r['reason']}" for r in bad_rows[:SHOWN_FAULTS])
    more = f"\n  and {len(bad_rows) - SHOWN_FAULTS} more" if len(bad_rows) > SHOWN_FAULTS else ""
    if len(bad_rows) == rows:
        return f"None of the {rows} rows can be used:\n{shown}{more}\nAre the columns and `data.format` right?"
    return (
        f"{len(bad_rows)} of {rows} rows cannot be used:\n{shown}{more}\n"
        "Mend them, or leave them out with data.on_bad_row=skip (they are then listed in bad_rows.jsonl)."
    )


@dataclass(frozen=True)
class _Names:
    """Every row's label as a code into `known`: a string object a row took 60 bytes and most of the time."""

    codes: np.ndarray
    known: list[str]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "_Names":
        encoded: Any = column.combine_chunks().dictionary_encode()
        return cls(encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist())

    def among(self, rows: np.ndarray) -> list[str]:
        """The labels that these rows carry, each once."""
        return [self.known[code] for code in np.unique(self.codes[rows])]


def _labels(data: DataSection, names: _Names, train: np.ndarray) -> tuple[str, ...]:
    """Label names in id order: as configured, or sorted (as numbers where all are).

    Raises:
        DataError: fewer than two labels, or more labels than rows.
    """
    if not len(train):
        raise DataError("no usable row is left in `data.train`.")
    found = names.among(train)
    are_numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in found)
    found.sort(key=(lambda name: (int(name), name)) if are_numbers else None)  # 1 and 01 in one order, too
    labels = tuple(data.labels or found)
    if len(found) == 1:
        raise DataError(
            f"all {len(train)} rows carry one label, '{found[0]}'; a classifier needs two. "
            f"Is `data.label_column` ('{data.label_column}') right?"
        )
    if len(labels) > len(train):
        raise DataError(f"`data.labels` names {len(labels)} labels, more than the {len(train)} rows to train on.")
    if len(found) == len(train) and len(train) > 2:
        raise DataError(
            f"{len(train)} rows carry {len(found)} labels, each its own: '{data.label_column}' looks like an id, not a "
            "label. Set `data.label_column`."
        )
    return labels


def _label_ids(
    names: _Names,
    labels: tuple[str, ...],
    members: dict[Split, np.ndarray],
    sources: list[Source],
    outline: pa.Table,
) -> np.ndarray:
    """[N] label id of every good row.

    Raises:
        DataError: a label of validation or test is not among those of train.
    """
    index = {label: i for i, label in enumerate(labels)}
    ids = np.array([index.get(name, -1) for name in names.known], dtype=np.int64)[names.codes]
    for split, rows in members.items():
        unseen = rows[ids[rows] < 0]
        if len(unseen):
            where = outline.select(["source", "place"]).take(unseen).sort_by(IN_ORDER)
            place = sources[where["source"][0].as_py()].place(where["place"][0].as_py())
            alike = {form(label): label for label in labels}
            wrong = ", ".join(
                f"'{name}'" + (f" (train has '{alike[form(name)]}')" if form(name) in alike else "")
                for name in sorted(names.among(unseen))[:5]
            )
            raise DataError(
                f"{split} holds labels that train never saw: {wrong} ({len(unseen)} rows, the first at {place}). "
                f"Labels of train: {', '.join(labels[:20])}. Mend the rows, or name all labels in `data.labels`."
            )
    return ids


def _splits(
    data: DataSection,
    seed: int,
    members: dict[Split, np.ndarray],
    hashes: np.ndarray,
    ids: np.ndarray,
    labels: tuple[str, ...],
) -> dict[Split, np.ndarray]:
    """Row indices per split, in the order of the rows' hashes: the same for any block order."""

    def ordered(rows: np.ndarray) -> np.ndarray:
        return rows[canonical_order(hashes[rows], ids[rows])]

    splits: dict[Split, np.ndarray] = {}
    rows = members["train"]
    if data.max_samples:
        rows = sample(ordered(rows), ids, data.max_samples)
    if data.validation is None:
        parts = divide(hashes[rows], ids[rows], list(labels), data.validation_fraction)
        splits["train"], splits["validation"] = rows[parts.train], rows[parts.validation]
    else:
        splits["train"], splits["validation"] = ordered(rows), ordered(members["validation"])
    if data.test is not None:
        splits["test"] = ordered(members["test"])
    for split, found in splits.items():
        if not len(found):
            raise DataError(f"no usable row is left in `data.{split}`.")
    return splits


def _facts(
    data: DataSection,
    sources: list[Source],
    splits: dict[Split, np.ndarray],
    hashes: np.ndarray,
    ids: np.ndarray,
    labels: tuple[str, ...],
) -> dict[str, Any]:
    fingerprint = hashlib.sha256()
    for rows in splits.values():
        fingerprint.update(hashes[rows].tobytes() + ids[rows].tobytes())
    counts = {
        split: dict(zip(labels, np.bincount(ids[rows], minlength=len(labels)).tolist(), strict=True))
        for split, rows in splits.items()
    }
    return {"files": [s.name for s in sources], "rows": counts, "fingerprint": fingerprint.hexdigest()}
