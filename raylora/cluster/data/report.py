"""What `raylora inspect` says of data, and, shorter, the head of every run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from raylora.cluster.data.facts import SplitFacts, Tokens, facts_of
from raylora.cluster.data.rows import Source, Split
from raylora.cluster.data.warn import DataWarning, warn
from raylora.config import DataSection
from raylora.model.cut import limit_in_words
from raylora.model.tokens import TokenizerSpec, special_tokens
from raylora.tasks.task import NumberRange

SHOWN = 10


@dataclass(frozen=True)
class DataReport:
    """The facts of a job's files, whole: before `data.max_samples`, and before a validation split is taken off train.

    `limit` names the key that cuts long texts; `warnings` are those that `data.mute` lets through.
    """

    max_length: int
    limit: str
    splits: dict[Split, SplitFacts]
    warnings: tuple[DataWarning, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def report_of(data: DataSection, sources: Sequence[Source], outline: pa.Table, tokenizer: TokenizerSpec) -> DataReport:
    """Args:
    outline: of `prepare.outline_of`, the rows of all files in any order.
    """
    special = special_tokens(tokenizer, pair=data.text_pair_column is not None)
    splits = facts_of(outline, sources, data, special)
    return DataReport(data.max_length, limit_in_words(data), splits, warn(data, splits, tokenizer))


def warning_lines(report: DataReport) -> list[str]:
    return [f"{'warning':<11}{warning.code} {warning.text}" for warning in report.warnings]


def head_lines(report: DataReport) -> list[str]:
    """Two lines for the head of a run."""
    train = report.splits["train"]
    lines = [f"{'tokens':<11}{tokens_in_words(train.tokens, train.good_rows, report.limit)}"] if train.tokens else []
    return [*lines, f"{'texts':<11}{scripts_in_words(train)}; {sameness_in_words(train)}"]


def split_lines(split: Split, facts: SplitFacts, limit: str) -> list[str]:
    """All of a split's facts."""
    files = f"{facts.files} file{'s' * (facts.files != 1)}"
    lines = [f"{split:<11}{facts.rows:,} rows in {files}{_bad_in_words(facts)}"]
    lines += [f"{'':<11}{place}" for place in facts.first_bad]
    if facts.tokens is None:
        return lines
    found = {
        "labels": labels_in_words(facts),
        "tokens": tokens_in_words(facts.tokens, facts.good_rows, limit),
        "texts": f"{scripts_in_words(facts)}; {sameness_in_words(facts)}",
    }
    return lines + [f"  {name:<9}{text}" for name, text in found.items()]


def _bad_in_words(facts: SplitFacts) -> str:
    if not facts.bad_rows:
        return ""
    empty = f", {facts.empty:,} of them empty" if facts.empty else ""
    return f"; {facts.bad_rows:,} cannot be used{empty}:"


def labels_in_words(facts: SplitFacts) -> str:
    if isinstance(facts.labels, NumberRange):
        return f"min {facts.labels.min:g}, mean {facts.labels.mean:g}, max {facts.labels.max:g}"
    shares = [f"{label} {count:,} ({percent(count, facts.good_rows)})" for label, count in facts.counts.items()]
    more = f" and {len(shares) - SHOWN} more" if len(shares) > SHOWN else ""
    return f"{len(shares)}: {', '.join(shares[:SHOWN])}{more}"


def tokens_in_words(tokens: Tokens, rows: int, limit: str) -> str:
    cut = f"{tokens.cut:,} ({percent(tokens.cut, rows)})" if tokens.cut else "none"
    return f"p50 {tokens.p50}, p95 {tokens.p95}, max {tokens.max}; {cut} cut at {limit}"


def scripts_in_words(facts: SplitFacts) -> str:
    return ", ".join(f"{name} {percent(count, facts.good_rows)}" for name, count in facts.scripts.items())


def sameness_in_words(facts: SplitFacts) -> str:
    found = f"{facts.duplicates:,} duplicates, {facts.conflicts:,} with other labels"
    return f"{found}, {facts.in_train:,} in train too" if facts.in_train else found


def percent(count: int, rows: int) -> str:
    """Of the rows; what is there is never said to be 0 %, and what is not all never 100 %."""
    share = 100 * count / rows
    if 0 < share < 0.1 or 99.9 < share < 100:
        return "<0.1 %" if share < 1 else ">99.9 %"
    return f"{f'{share:.1f}'.removesuffix('.0')} %"
