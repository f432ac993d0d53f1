"""report.html of a folder: its files read, drawn by `raylora.report`, written beside them."""

import csv
import io
import json
from typing import Any

from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import (
    CONFIG,
    DATA_REPORT,
    EVALUATION,
    EVALUATION_RECORD,
    FINISHED,
    HISTORY,
    REPORT,
    TRIALS_TABLE,
    kind_of,
)
from raylora.config import yaml12
from raylora.errors import ConfigError, RayLoraError
from raylora.records import Say
from raylora.report import run_page, sweep_page
from raylora.report.run import RunFiles
from raylora.report.sweep import SweepFiles


def write_report(folder: Location) -> Location:
    """Write the page of a run or a sweep, finished or not, over an earlier one.

    Raises:
        ConfigError: the folder is no run's and no sweep's, or a file in it cannot be read.
    """
    page = folder.inside(REPORT)
    page.write_text(page_of(folder))
    return page


def report_finished(folder: Location, say: Say) -> None:
    """Write the page of what has just finished; that it could not be is no failure of the run."""
    try:
        say(f"report     {write_report(folder).address}")
    except (OSError, RayLoraError) as error:
        say(f"warning    {REPORT} could not be written: {error} `raylora report {folder.address}` writes it anew.")


def page_of(folder: Location) -> str:
    """Raises:
    ConfigError: as `write_report`.
    """
    kind = kind_of(folder.files())
    if kind not in ("run", "sweep", "unknown"):
        raise ConfigError(
            f"{folder.address} is not the folder of a run or a sweep: it has no {CONFIG} beside its files."
        )
    config = folder.inside(CONFIG)
    text = config.read_text()
    tree: dict[str, Any] = yaml12.load(text, config.address) or {}
    shared: dict[str, Any] = {
        "name": folder.name,
        "config": tree,
        "config_text": text,
        "metrics": _json(folder, FINISHED),
        "history": _events(folder),
        "data_report": _json(folder, DATA_REPORT),
    }
    if kind == "sweep":
        table = folder.inside(TRIALS_TABLE)
        rows = list(csv.DictReader(io.StringIO(table.read_text()))) if table.exists() else []
        return sweep_page(SweepFiles(trials=rows, **shared))
    evaluation = _json(folder.inside(EVALUATION), EVALUATION_RECORD)
    return run_page(RunFiles(evaluation=evaluation["adapters"][0] if evaluation else None, **shared))


def _json(folder: Location, name: str) -> Any:
    """Raises:
    ConfigError: the file is broken.
    """
    file = folder.inside(name)
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file.address} is broken: {error}.") from None


def _events(folder: Location) -> list[dict[str, Any]]:
    """Of history.jsonl; a last line that a kill cut short is left out."""
    file = folder.inside(HISTORY)
    found: list[dict[str, Any]] = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
