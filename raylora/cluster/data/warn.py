"""Warnings about data, each under a code of `config.codes`: what it means and how to mend it is in docs/data.md."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from raylora.cluster.data.facts import SplitFacts
from raylora.cluster.data.find import splits_there
from raylora.cluster.data.folders import UNDIVIDED, few
from raylora.cluster.data.rows import Split
from raylora.config import DataSection
from raylora.model.cut import limit_in_words
from raylora.model.tokens import TokenizerSpec, vocabulary
from raylora.scripts import OTHER, SCRIPTS, pieces_of
from raylora.tasks import task_of

MANY_DUPLICATES = 0.01  # of a split's rows
MANY_CUT = 0.05  # of the train texts
FEW_ROWS = 10
LOPSIDED = 10  # times the rows of the rarest label
MANY_OF_A_SCRIPT = 0.01  # of the train texts
FEW_PIECES = 1000  # all-MiniLM-L6-v2: 27,529 of Latin, 488 of Han, 8 of Cyrillic


@dataclass(frozen=True)
class DataWarning:
    code: str
    text: str


@dataclass(frozen=True)
class _Seen:
    data: DataSection
    splits: Mapping[Split, SplitFacts]
    tokenizer: TokenizerSpec

    @property
    def train(self) -> SplitFacts:
        return self.splits["train"]

    @property
    def labels(self) -> list[str]:
        """Those of train, or as configured, in a fixed order."""
        return self.data.labels or sorted(self.train.counts)


def warn(data: DataSection, splits: Mapping[Split, SplitFacts], tokenizer: TokenizerSpec) -> tuple[DataWarning, ...]:
    """By code, without those that `data.mute` names."""
    seen = _Seen(data, splits, tokenizer)
    return tuple(
        DataWarning(code, text) for code, check in CHECKS.items() if code not in data.mute for text in check(seen)
    )


def _bad_rows(seen: _Seen) -> Iterator[str]:
    ends = "a run ends on them; mend them, or leave them out with data.on_bad_row=skip"
    skips = "they are left out, and a run lists them in bad_rows.jsonl"
    for split, facts in seen.splits.items():
        if facts.bad_rows:
            reasons = [f"{reason} ({count:,})" for reason, count in facts.reasons.items()]
            yield (
                f"{facts.bad_rows:,} of {facts.rows:,} {split} rows cannot be used: {few(reasons)}; "
                f"{ends if seen.data.on_bad_row == 'error' else skips}."
            )


def _in_splits(counts: Mapping[Split, int], what: str, seen: _Seen) -> Iterator[str]:
    """One sentence on all splits that have any: `5 of 100 train, 2 of 20 test texts` and `what`."""
    shares = [f"{count:,} of {seen.splits[split].good_rows:,} {split}" for split, count in counts.items() if count]
    if shares:
        yield f"{', '.join(shares)} {what}"


def _duplicates(seen: _Seen) -> Iterator[str]:
    repeated: dict[Split, int] = {split: f.duplicates for split, f in seen.splits.items()}
    many: dict[Split, int] = {
        split: n for split, n in repeated.items() if n >= MANY_DUPLICATES * seen.splits[split].good_rows
    }
    yield from _in_splits(many, "rows repeat the text and label of another row: each is counted again.", seen)


def _conflicts(seen: _Seen) -> Iterator[str]:
    for split, facts in seen.splits.items():
        if facts.conflicts:
            one = facts.conflicts == 1
            texts = "text stands" if one else "texts stand"
            yield f"{facts.conflicts:,} {split} {texts} in rows of different labels."


def _leaks(seen: _Seen) -> Iterator[str]:
    leaked: dict[Split, int] = {split: facts.in_train for split, facts in seen.splits.items()}
    scores = " and ".join(split for split, count in leaked.items() if count)
    yield from _in_splits(leaked, f"texts are in train too: the {scores} scores will flatter.", seen)


def _cut(seen: _Seen) -> Iterator[str]:
    tokens, rows = seen.train.tokens, seen.train.good_rows
    if tokens and tokens.cut > MANY_CUT * rows:
        cut = f"{100 * tokens.cut / rows:.0f} % of train texts are cut at {limit_in_words(seen.data)}"
        yield f"{cut}; 95 % have at most {tokens.p95} tokens."


def _few_rows(seen: _Seen) -> Iterator[str]:
    rare = {label: count for label, count in seen.train.counts.items() if count < FEW_ROWS}
    if rare:
        shown = few([f"'{label}' {count}" for label, count in sorted(rare.items(), key=lambda each: each[1])])
        what = f"{len(rare)} of {len(seen.train.counts)} labels have"
        yield f"{what} fewer than {FEW_ROWS} train rows, too few to learn from or to be scored by: {shown}."


def _missing(seen: _Seen) -> Iterator[str]:
    known = dict.fromkeys(label for facts in seen.splits.values() for label in facts.counts)
    known |= dict.fromkeys(seen.data.labels or [])
    outcomes: dict[Split, str] = {"train": "never learned", "validation": "never scored"}
    for split, outcome in outcomes.items():
        facts = seen.splits.get(split)
        missing = [f"'{label}'" for label in known if facts and facts.counts and label not in facts.counts]
        if missing:
            yield f"{split} has no row of {few(missing)}: {outcome}."


def _lopsided(seen: _Seen) -> Iterator[str]:
    counts = list(seen.train.counts.items())
    if counts and counts[0][1] >= LOPSIDED * counts[-1][1]:
        (common, most), (rare, least) = counts[0], counts[-1]
        metrics = task_of(seen.data.problem_type).metrics
        metric = "f1" if len(counts) == 2 and "f1" in metrics else "f1_macro"
        yield (
            f"'{common}' has {most:,} train rows, '{rare}' {least:,}: {metrics[0]} hardly tells of rare labels. Set "
            f"train.metric_for_best_model={metric}, or train.class_weights=balanced."
        )


def _tokenless(seen: _Seen) -> Iterator[str]:
    bare: dict[Split, int] = {split: facts.tokens.none if facts.tokens else 0 for split, facts in seen.splits.items()}
    yield from _in_splits(bare, "texts are empty to the base's tokenizer, which keeps nothing of them.", seen)


def _foreign_scripts(seen: _Seen) -> Iterator[str]:
    many = MANY_OF_A_SCRIPT * seen.train.good_rows
    found = {script: count for script, count in seen.train.scripts.items() if count >= many}
    # Latin is in every vocabulary; decoding one takes 0.1 s per 30,000 pieces
    foreign = [script for script in found if script not in (SCRIPTS[0], "Latin", OTHER)]
    pieces = vocabulary(seen.tokenizer) if foreign else []
    for script in foreign:
        known = pieces_of(script, pieces)
        if known < FEW_PIECES:
            share = f"{100 * found[script] / seen.train.good_rows:.0f} % of train texts"
            yield (
                f"{share} are mostly in {script} letters, of which the base's vocabulary has {known} pieces: it may "
                "read them letter by letter. A base that was trained on such texts reads them better."
            )


def _unused_files(seen: _Seen) -> Iterator[str]:
    data = seen.data
    given: dict[Split, str | list[str] | None] = {"validation": data.validation, "test": data.test}
    unused: list[Split] = [split for split, where in given.items() if where is None]
    there = splits_there(data.train, data.format) if data.train else UNDIVIDED
    for split in unused:
        if files := [file.path for file in there.splits.get(split, [])]:
            where = data.train if isinstance(data.train, str) else files[0]
            yield f"{few(files)} {'are' if len(files) > 1 else 'is'} not used: set data.{split}={where} to use it."
    if there.aside:
        yield (
            f"{few(there.aside)} {'are' if len(there.aside) > 1 else 'is'} in no split: what else is there is named "
            f"for one ({', '.join(there.splits)}). To use it, name it so, or name all files in data.train."
        )


def _alike(seen: _Seen) -> Iterator[str]:
    forms: dict[str, str] = {}
    for label in seen.labels:
        other = forms.setdefault(form(label), label)
        if other == label:
            continue
        if other.casefold() == label.casefold():
            yield f"labels '{other}' and '{label}' differ by case only."
        else:
            yield f"labels {other!a} and {label!a} look alike: they differ by their Unicode form or white space only."


def form(label: str) -> str:
    """What labels share that look alike."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


CHECKS: dict[str, Callable[[_Seen], Iterable[str]]] = {
    "D001": _bad_rows,
    "D002": _duplicates,
    "D003": _conflicts,
    "D004": _leaks,
    "D005": _cut,
    "D006": _few_rows,
    "D007": _missing,
    "D008": _lopsided,
    "D009": _tokenless,
    "D010": _foreign_scripts,
    "D011": _unused_files,
    "D012": _alike,
}
