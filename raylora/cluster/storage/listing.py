"""What a storage path holds: its runs, sweeps and endpoints, told from their folders alone. No Ray, no torch."""

import json
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from raylora.cluster.events.history import Event, parse_history
from raylora.cluster.serve.table_log import TableLog
from raylora.cluster.storage.filesystem import Location, Stat
from raylora.cluster.storage.run_folder import (
    ADAPTERS,
    CONFIG,
    FINISHED,
    HISTORY,
    Kind,
    kind_of,
    open_storage,
)
from raylora.config import Job
from raylora.config.explain import close_to
from raylora.config.file import read_saved
from raylora.errors import ConfigError
from raylora.metrics import METRICS, Scores
from raylora.tasks import shown_metrics

TAIL = 256 * 1024  # bytes; more of a file is not read for a list: a long sweep's history has tens of megabytes
AT_ONCE = 16  # runs; on object storage each costs two or three requests of 50 ms

State = Literal["finished", "unfinished", "unreadable"]
Found = dict[str, Stat]


@dataclass(frozen=True)
class Summary:
    """One folder in a line.

    Args:
        kind: `unknown` where a job was interrupted before it left anything but its config.
        state: `unfinished` runs now or was interrupted: the folder does not tell. None = an endpoint's: neither.
        validation: scores of the best epoch; while unfinished, a run's last and, by the task's first metric, a
            sweep's best so far.
        reached: epochs, trials or adapters, in words.
        written: when a file of it was last written, in seconds since 1970.
        size_bytes: of all its files.
    """

    name: str
    kind: Kind
    state: State | None
    uri: str
    validation: Event | None = None
    test: Event | None = None
    reached: str = ""
    written: float = 0.0
    size_bytes: int = 0


@dataclass(frozen=True)
class Details:
    """One folder, whole.

    Args:
        job: of config.yaml; None where there is none that this version can read.
        history: evaluations, in order; of a sweep, each trial's last report.
        files: bytes by name; None = a folder.
        adapters: of an endpoint, each name's path.
        configured: those of them that came with the endpoint's config.
    """

    summary: Summary
    job: Job | None
    history: list[Event] = field(default_factory=list)
    files: Mapping[str, int | None] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    configured: Mapping[str, str] = field(default_factory=dict)


def list_runs(storage_path: str) -> list[Summary]:
    """All that the path holds, last written first; other folders are passed over.

    Raises:
        ConfigError: the path is not there, is no folder, or is itself a run.
    """
    storage = _open(storage_path)
    folders = [storage.inside(name) for name in _folders(storage)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda folder: _summary(folder, _files(folder)), folders)
        return sorted(filter(None, found), key=lambda summary: (-summary.written, summary.name))


def show_run(storage_path: str, name: str) -> Details:
    """Raises:
    ConfigError: the path is not there, or holds no such run; names a close one.
    """
    storage = _open(storage_path)
    names, folder = _folders(storage), storage.inside(name)
    files = _files(folder) if name in names else {}
    summary = _summary(folder, files)
    if summary is None:
        raise ConfigError(f"{storage.address} holds no run '{name}'{close_to(name, names)}")
    details = Details(summary, _job(folder, files), files=_sizes(files))
    if summary.kind == "endpoint":
        table = TableLog(folder, apart=0).load()
        configured = {each: line.path for each, line in table.configured.items()}
        adapters = {each: entry.current.path for each, entry in table.entries.items()}
        return replace(details, adapters=adapters, configured=configured)
    records = parse_history(folder.inside(HISTORY).read_text()) if HISTORY in files else []
    return replace(details, history=_reports(records) if summary.kind == "sweep" else _evaluations(records))


def _open(storage_path: str) -> Location:
    storage = open_storage(Job().replace({"storage_path": storage_path}))
    try:
        stat = storage.stat()
    except OSError as error:  # no such host, no access
        raise ConfigError(f"storage path {storage.address} cannot be read: {error}") from None
    if stat is None and not _files(storage):
        raise ConfigError(f"storage path {storage.address} is not there{_near(storage)}")
    if stat and not stat.is_folder:
        raise ConfigError(f"storage path {storage.address} is a file, not a folder of runs.")
    if kind_of(_files(storage)) is not None:
        command = shlex.join(["raylora", "runs", "show", storage.name, storage.parent.address])
        raise ConfigError(f"{storage.address} is a run, not a folder of runs. Try: {command}")
    return storage


def _near(storage: Location) -> str:
    near = close_to(storage.name, _folders(storage.parent)) if "/" in storage.path else "."
    return near if near != "." else ". It is `storage_path` of the config that the runs were made with."


def _folders(storage: Location) -> list[str]:
    return [name for name, stat in _files(storage).items() if stat.is_folder]


def _files(folder: Location) -> Found:
    try:
        return folder.files()
    except OSError as error:
        raise ConfigError(f"storage path {folder.address} cannot be read: {error}") from None


def _summary(folder: Location, files: Found) -> Summary | None:
    kind = kind_of(files)
    if kind is None:
        return None
    written = max(stat.mtime_ns or 0 for stat in files.values()) / 1e9
    summary = Summary(folder.name, kind, "unfinished", folder.address, written=written, size_bytes=size_of(folder))
    try:
        if kind == "endpoint":
            return replace(summary, state=None, reached=_reach(folder, files))
        if FINISHED in files:
            return _finished(summary, json.loads(folder.inside(FINISHED).read_text()))
        return _unfinished(summary, folder.inside(HISTORY).read_text(TAIL)) if HISTORY in files else summary
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # half a file, another's file, one just gone
        return replace(summary, state="unreadable")


def size_of(folder: Location) -> int:
    """Bytes of all that it holds."""
    return sum(stat.size or 0 for stat in folder.walk().values())


def _finished(summary: Summary, metrics: Event) -> Summary:
    scores = {"validation": metrics["validation"], "test": metrics["test"]}
    if summary.kind == "sweep":
        reached = f"{sum(metrics['trials'].values())} trials"
    else:
        reached = f"best epoch {metrics['best_epoch']}"
    return replace(summary, state="finished", reached=reached, **scores)


def _unfinished(summary: Summary, history: str) -> Summary:
    records = parse_history(history)
    if summary.kind == "sweep":
        # of a very long history these are the last trials alone, told by the word
        reports = _reports(records)
        best = max(reports, key=lambda each: _merit(Scores.of(each, "best_")), default=None)
        more = "+" if len(history.encode()) > 0.9 * TAIL else ""
        validation = best and _scores(best, "best_")
        return replace(summary, validation=validation, reached=f"{len(reports)}{more} trials")
    evaluations = _evaluations(records)
    if not evaluations:
        return summary
    last = evaluations[-1]
    return replace(summary, validation=_scores(last, "eval_"), reached=f"epoch {last['epoch']:g}")


def _scores(record: Event, prefix: str) -> Event:
    return {name: record[f"{prefix}{name}"] for name in (*METRICS, "rows") if f"{prefix}{name}" in record}


def _merit(scores: Scores) -> tuple[float, float]:
    return scores.merit(shown_metrics(scores)[0])


def _evaluations(records: list[Event]) -> list[Event]:
    """Of a run, each epoch's last with the training loss that was logged last before it."""
    found: dict[float, Event] = {}
    loss: float | None = None
    for record in records:
        if record.get("kind") == "evaluation":
            found[record["epoch"]] = {**record, "loss": loss}
        loss = record.get("loss", loss)
    return list(found.values())


def _reports(records: list[Event]) -> list[Event]:
    """Of a sweep, the last of each trial that has one; older versions wrote no `kind`."""
    return list({each["trial"]: each for each in records if each.get("kind", "trial") == "trial"}.values())


def _reach(folder: Location, files: Found) -> str:
    if (files[ADAPTERS].size or 0) > TAIL:
        return "many adapters"
    count = len(TableLog(folder, apart=0).load().entries)
    return f"{count} adapter{'s' * (count != 1)}"


def _job(folder: Location, files: Found) -> Job | None:
    if CONFIG not in files:
        return None
    try:
        return read_saved(folder.inside(CONFIG).read_text() or "{}", folder.inside(CONFIG).address)
    except ConfigError:  # written by another version
        return None


def _sizes(files: Found) -> dict[str, int | None]:
    order = sorted(files.items(), key=lambda item: (item[1].is_folder, item[0]))
    return {name: stat.size for name, stat in order}
