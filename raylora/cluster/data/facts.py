"""What the files of a split hold, in numbers, from the outline of their rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raylora.cluster.data.rows import Source, Split
from raylora.config import DataSection
from raylora.model.cut import most_tokens
from raylora.scripts import SCRIPTS
from raylora.tasks import task_of
from raylora.tasks.task import LabelCounts, NumberRange

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHOWN_PLACES = 5
SHOWN_REASONS = 20
IN_ORDER: list[tuple[str, str]] = [("source", "ascending"), ("place", "ascending")]


@dataclass(frozen=True)
class Tokens:
    """Tokens of whole texts, special ones included: half of the texts have at most `p50`. `cut` texts have more than
    `data.max_length`, or its windows, can hold, and `none` none at all."""

    p50: int
    p95: int
    max: int
    cut: int
    none: int


@dataclass(frozen=True)
class SplitFacts:
    """What a split's files hold; from `labels` on, of the rows that can be used.

    Attributes:
        files: those with rows.
        empty: of the bad rows, those with no text, or a blank one.
        reasons: why bad rows cannot be used, and how many cannot for it, the commonest 20.
        first_bad: the first five, with place and reason.
        scripts: texts by the script of most of their letters, the commonest first.
        duplicates: rows that repeat an earlier text with its label.
        conflicts: texts that carry more than one label.
        in_train: rows whose text stands in train too.
    """

    files: int
    rows: int
    bad_rows: int
    empty: int
    reasons: dict[str, int]
    first_bad: list[str]
    labels: LabelCounts | NumberRange
    tokens: Tokens | None
    scripts: dict[str, int]
    duplicates: int
    conflicts: int
    in_train: int

    @property
    def good_rows(self) -> int:
        return self.rows - self.bad_rows

    @property
    def counts(self) -> dict[str, int]:
        """Rows by label; none of labels that are numbers."""
        return self.labels.counts if isinstance(self.labels, LabelCounts) else {}


def facts_of(outline: pa.Table, sources: Sequence[Source], data: DataSection, special: int) -> dict[Split, SplitFacts]:
    """Of each split that has files.

    Args:
        outline: of `prepare.outline_of`, the rows of all files in any order.
        special: tokens that the tokenizer adds to each text.
    """
    split_of_row = np.array([s.split for s in sources])[outline["source"].to_numpy()]
    rows: dict[Split, pa.Table] = {split: outline.filter(pa.array(split_of_row == split)) for split in SPLITS}
    train, nothing = _good(rows["train"])["hash"].to_numpy(), np.array([], dtype=np.uint64)
    there: list[Split] = [split for split in SPLITS if any(source.split == split for source in sources)]
    return {s: _facts(rows[s], sources, data, special, nothing if s == "train" else train) for s in there}


def _good(rows: pa.Table) -> pa.Table:
    return rows.filter(rows["fault"].is_null())


def _facts(
    rows: pa.Table, sources: Sequence[Source], data: DataSection, special: int, others: np.ndarray
) -> SplitFacts:
    """Args:
    others: hashes of the texts that must not stand in this split.
    """
    good, bad = _good(rows), rows.filter(rows["fault"].is_valid())
    reasons = counted(bad["fault"])
    first = bad.sort_by(IN_ORDER).slice(0, SHOWN_PLACES).to_pylist()
    hashes = good["hash"].to_numpy()
    different = different_rows(hashes, label_codes(good["label"]))
    return SplitFacts(
        files=len(rows["source"].unique()),
        rows=rows.num_rows,
        bad_rows=bad.num_rows,
        empty=sum(count for reason, count in reasons.items() if reason in _empty_reasons(data)),
        reasons=dict(list(reasons.items())[:SHOWN_REASONS]),
        first_bad=[f"{sources[row['source']].place(row['place'])}: {row['fault']}" for row in first],
        labels=task_of(data.problem_type).tally(counted(good["label"])),
        tokens=token_facts(good["tokens"].to_numpy(), most_tokens(data, special), special),
        scripts=counted(pa.array(SCRIPTS).take(good["script"].combine_chunks())),
        duplicates=good.num_rows - len(different),
        conflicts=conflicts(different),
        in_train=int(np.isin(hashes, others).sum()),
    )


def _empty_reasons(data: DataSection) -> set[str]:
    """As `rows.check_row` words them."""
    columns = [data.text_column, *([data.text_pair_column] if data.text_pair_column else [])]
    return {f"'{column}' is {what}" for column in columns for what in ("null", "blank")}


def counted(column: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, the commonest first, equally common ones by name."""
    found = [(each["values"], each["counts"]) for each in column.value_counts().to_pylist()]
    return dict(sorted(found, key=lambda pair: (-pair[1], pair[0])))


def label_codes(column: pa.ChunkedArray) -> np.ndarray:
    """[N] an int for each row, equal where the labels' texts are."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False)


def token_facts(tokens: np.ndarray, most: int, special: int) -> Tokens | None:
    """Of [N] token counts; None of no rows.

    Args:
        most: of a text that is kept whole.
    """
    if not len(tokens):
        return None
    half, p95 = np.quantile(tokens, (0.5, 0.95), method="inverted_cdf")
    cut, none = int((tokens > most).sum()), int((tokens <= special).sum())
    return Tokens(int(half), int(p95), int(tokens.max()), cut, none)


def different_rows(hashes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The texts of rows that differ by text or label, in order: a text that carries two labels is there twice."""
    order = np.lexsort((codes, hashes))
    hashes, codes = hashes[order], codes[order]
    first = np.r_[True, (hashes[1:] != hashes[:-1]) | (codes[1:] != codes[:-1])][: len(hashes)]
    return hashes[first]


def conflicts(different: np.ndarray) -> int:
    """Texts that carry more than one label, of `different_rows`."""
    repeated = different[1:] == different[:-1]
    return int(repeated.sum() - (repeated[1:] & repeated[:-1]).sum())
