"""The folder that an evaluation is written to."""

import csv
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from raylora.cluster.evaluate.job import Evaluated
from raylora.cluster.storage.filesystem import Location, locate
from raylora.cluster.storage.run_folder import EVALUATION_RECORD as RECORD
from raylora.cluster.storage.run_folder import REPORT
from raylora.errors import ConfigError
from raylora.evaluation.answered import Answered
from raylora.evaluation.record import Evaluation
from raylora.report import evaluation_page

ROWS = "predictions.parquet"
TABLES = ("metrics.csv", "per_class.csv", "confusion.csv", "slices.csv", "coverage.csv", "robustness.csv")
OURS = {RECORD, ROWS, REPORT, "comparisons.csv", *TABLES}


def open_output(address: str) -> Location:
    """Raises:
    ConfigError: it cannot be used, or holds what no evaluation wrote.
    """
    try:
        folder = locate(address)
        stat = folder.stat()
        if stat and not stat.is_folder:
            raise ConfigError(f"--output {address} is a file. Name a folder.")
        others = sorted(set(folder.files()) - OURS)
    except OSError as error:
        raise ConfigError(f"--output {address} cannot be used: {error}") from None
    if others:
        raise ConfigError(
            f"--output {address} holds what no evaluation wrote ({', '.join(others[:5])}). Name another folder: it "
            "would be replaced."
        )
    return folder


def write(found: Evaluated, folder: Location) -> None:
    """All files or none: the folder appears, or is replaced, when they are whole.

    Raises:
        ConfigError: it cannot be written to.
    """
    with tempfile.TemporaryDirectory(prefix="raylora-evaluate-") as part:
        _write_here(found, Path(part))
        try:
            folder.copy_from(Path(part))
        except OSError as error:
            raise ConfigError(f"--output {folder.address} cannot be written to: {error}") from None


def _write_here(found: Evaluated, folder: Path) -> None:
    record = json.dumps(found.record.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RECORD).write_text(record + "\n", encoding="utf-8")
    (folder / REPORT).write_text(evaluation_page(json.loads(record)), encoding="utf-8")
    pyarrow.parquet.write_table(predictions(found), folder / ROWS)
    rows_of = (_metrics, _groups, _confusion, _slices, _coverage, _robustness)
    for name, rows in zip(TABLES, rows_of, strict=True):
        _write_csv(folder / name, [{"adapter": e.name, **row} for e in found.record.adapters for row in rows(e)])
    pairs = found.record.comparisons
    _write_csv(
        folder / "comparisons.csv",
        [
            {"first": pair.first, "second": pair.second, "metric": name, **vars(each)}
            for pair in pairs
            for name, each in pair.differences.items()
        ],
    )


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Nothing where there is no row: a task may have no such table."""
    if not rows:
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _metrics(found: Evaluation) -> Iterable[dict[str, Any]]:
    return ({"metric": name, **vars(each)} for name, each in found.metrics.items())


def _groups(found: Evaluation) -> Iterable[dict[str, Any]]:
    return ({"group": each.name, "rows": each.rows, **each.values} for each in found.groups)


def _confusion(found: Evaluation) -> Iterable[dict[str, Any]]:
    """A line for each label and decision, those of no row, too."""
    if found.confusion is None:
        return ()
    labels = found.confusion.labels
    return (
        {"label": true, "predicted": said, "rows": count}
        for true, counts in zip(labels, found.confusion.counts, strict=True)
        for said, count in zip(labels, counts, strict=True)
    )


def _slices(found: Evaluation) -> Iterable[dict[str, Any]]:
    return (
        {
            "by": each.by,
            "slice": each.value,
            "rows": each.rows,
            "metric": found.row_metric,
            **vars(each.metric),
            "merit": each.merit,
            "rest": each.rest,
            "p": each.p,
            "p_adjusted": each.p_adjusted,
            "worse": each.worse,
        }
        for each in found.slices
    )


def _coverage(found: Evaluation) -> Iterable[dict[str, Any]]:
    return (vars(each) for each in found.coverage)


def _robustness(found: Evaluation) -> Iterable[dict[str, Any]]:
    return (
        {
            "kind": each.kind,
            "texts_changed": each.changed,
            "moved": each.moved.value,
            "moved_low": each.moved.low,
            "moved_high": each.moved.high,
            **each.metrics,
        }
        for each in found.robustness
    )


def predictions(found: Evaluated) -> pa.Table:
    """A row for each text and adapter: what it says, with what score, and how well."""
    return pa.concat_tables([_predictions(found, each) for each in found.answered])


def _predictions(found: Evaluated, answered: Answered) -> pa.Table:
    rows, exam, labels = found.rows, answered.exam, answered.learned.labels
    pair = {"text_pair": [text[1] for text in rows.texts]} if isinstance(rows.texts[0], tuple) else {}
    return pa.table(
        {
            **{name: [None if v is None else str(v) for v in values] for name, values in rows.columns.items()},
            "adapter": [answered.name] * len(rows.texts),
            "place": rows.places,
            "text": [text if isinstance(text, str) else text[0] for text in rows.texts],
            **pair,
            "label": exam.told(answered.targets, labels),
            "predicted": exam.told(answered.decisions, labels),
            "score": exam.best_scores(answered.outputs),
            "merit": answered.merits,
        }
    )
