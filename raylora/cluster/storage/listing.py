"""What a storage path holds: its runs, sweeps and endpoints, told from their folders alone. No Ray, no torch."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow.fs

from raylora.cluster.serve import table as tables
from raylora.cluster.storage.address import inside
from raylora.cluster.storage.run_folder import FINISHED, Storage, open_storage
from raylora.config import Job, parse_saved
from raylora.config.explain import close_to
from raylora.config.file import parse_yaml
from raylora.errors import ConfigError

CONFIG, HISTORY = "config.yaml", "history.jsonl"
TAIL = 256 * 1024  # bytes; more of a file is not read for a list: a long sweep's history has tens of megabytes
AT_ONCE = 16  # runs; on object storage each costs two or three requests of 50 ms

Kind = Literal["run", "sweep", "endpoint", "unknown"]
State = Literal["finished", "unfinished", "unreadable"]
Found = dict[str, pyarrow.fs.FileInfo]
Event = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """One folder in a line.

    Args:
        kind: `unknown` where a job was interrupted before it left anything but its config.
        state: `unfinished` runs now or was interrupted: the folder does not tell. None = an endpoint's: neither.
        validation: scores of the best epoch; while unfinished, a run's last and a sweep's most accurate so far.
        reached: epochs, trials or adapters, in words.
        written: when a file of it was last written, in seconds since 1970.
    """

    name: str
    kind: Kind
    state: State | None
    uri: str
    validation: Event | None = None
    test: Event | None = None
    reached: str = ""
    written: float = 0.0


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
    names = _folders(storage)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda name: _summary(storage, name, _files(storage, name)), names)
        return sorted(filter(None, found), key=lambda summary: (-summary.written, summary.name))


def show_run(storage_path: str, name: str) -> Details:
    """Raises:
    ConfigError: the path is not there, or holds no such run; names a close one.
    """
    storage = _open(storage_path)
    names = _folders(storage)
    files = _files(storage, name) if name in names else {}
    summary = _summary(storage, name, files)
    if summary is None:
        raise ConfigError(f"{storage.path} holds no run '{name}'{close_to(name, names)}")
    details = Details(summary, _job(storage, name, files), files=_sizes(files))
    if summary.kind == "endpoint":
        table = _table(storage, name, files)
        configured = {each: entry.configured for each, entry in table.entries.items() if entry.configured}
        adapters = {each: entry.current.path for each, entry in table.entries.items()}
        return replace(details, adapters=adapters, configured=configured)
    records = _records(_text(storage, f"{name}/{HISTORY}")) if HISTORY in files else []
    return replace(details, history=_reports(records) if summary.kind == "sweep" else _evaluations(records))


def _open(storage_path: str) -> Storage:
    storage = open_storage(Job().replace({"storage_path": storage_path}))
    info = _info(storage)
    if info.type == pyarrow.fs.FileType.NotFound and not _folders(storage):
        raise ConfigError(f"storage path {storage.path} is not there{_near(storage)}")
    if info.is_file:
        raise ConfigError(f"storage path {storage.path} is a file, not a folder of runs.")
    above, _, name = storage.path.partition("?")[0].rstrip("/").rpartition("/")
    if _kind(_files(storage, "")) is not None:
        raise ConfigError(f"{storage.path} is a run, not a folder of runs. Try: raylora runs show {name} {above}")
    return storage


def _info(storage: Storage) -> pyarrow.fs.FileInfo:
    try:
        return storage.filesystem.get_file_info(storage.root)
    except OSError as error:  # no such host, no access
        raise ConfigError(f"storage path {storage.path} cannot be read: {error}") from None


def _near(storage: Storage) -> str:
    above, _, name = storage.root.rstrip("/").rpartition("/")
    near = close_to(name, _folders(storage._replace(root=above))) if above else "."
    return near if near != "." else ". It is `storage_path` of the config that the runs were made with."


def _folders(storage: Storage) -> list[str]:
    return [name for name, info in _files(storage, "").items() if info.type == pyarrow.fs.FileType.Directory]


def _files(storage: Storage, name: str) -> Found:
    """What lies in a folder of the storage path, by name; nothing where it is not there."""
    within = f"{storage.root.rstrip('/')}/{name}".rstrip("/")
    selector = pyarrow.fs.FileSelector(within or "/", allow_not_found=True)
    try:
        return {info.base_name: info for info in storage.filesystem.get_file_info(selector)}
    except OSError as error:
        raise ConfigError(f"storage path {storage.path} cannot be read: {error}") from None


def _text(storage: Storage, name: str, most: int | None = None) -> str:
    """A file's text; of one longer than `most` bytes, its last whole lines."""
    with storage.filesystem.open_input_file(f"{storage.root.rstrip('/')}/{name}") as file:
        cut = most is not None and file.size() > most
        if cut:
            file.seek(file.size() - (most or 0))
        text: str = file.read().decode("utf-8", errors="replace")
    return text.partition("\n")[2] if cut else text


def _kind(files: Found) -> Kind | None:
    """None where the folder is no job's. A job that has begun has written its config, and an endpoint its table."""
    if CONFIG in files:
        if "trials" in files or "trials.csv" in files:
            return "sweep"
        begun = {FINISHED, HISTORY, "adapter"} & files.keys() or any(n.startswith("checkpoint_") for n in files)
        return "run" if begun else "unknown"
    return "endpoint" if tables.FILE in files else None


def _summary(storage: Storage, name: str, files: Found) -> Summary | None:
    kind = _kind(files)
    if kind is None:
        return None
    written = max(info.mtime_ns or 0 for info in files.values()) / 1e9
    summary = Summary(name, kind, "unfinished", inside(storage.path, name), written=written)
    try:
        if kind == "endpoint":
            return replace(summary, state=None, reached=_reach(storage, name, files))
        if FINISHED in files:
            return _finished(summary, json.loads(_text(storage, f"{name}/{FINISHED}")))
        return _unfinished(summary, _text(storage, f"{name}/{HISTORY}", TAIL)) if HISTORY in files else summary
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # half a file, another's file, one just gone
        return replace(summary, state="unreadable")


def _finished(summary: Summary, metrics: Event) -> Summary:
    scores = {"validation": metrics["validation"], "test": metrics["test"]}
    if summary.kind == "sweep":
        reached = f"{sum(metrics['trials'].values())} trials"
    else:
        reached = f"best epoch {metrics['best_epoch']}"
    return replace(summary, state="finished", reached=reached, **scores)


def _unfinished(summary: Summary, history: str) -> Summary:
    records = _records(history)
    if summary.kind == "sweep":
        # of a very long history these are the last trials alone, told by the word
        reports = _reports(records)
        best = max(reports, key=lambda each: each["best_accuracy"], default=None)
        more = "+" if len(history.encode()) > 0.9 * TAIL else ""
        validation = best and {key: best[f"best_{key}"] for key in ("accuracy", "f1", "loss", "rows")}
        return replace(summary, validation=validation, reached=f"{len(reports)}{more} trials")
    evaluations = _evaluations(records)
    if not evaluations:
        return summary
    last = evaluations[-1]
    validation = {key: last[f"eval_{key}"] for key in ("accuracy", "f1", "loss", "rows")}
    return replace(summary, validation=validation, reached=f"epoch {last['epoch']:g}")


def _records(text: str) -> list[Event]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _evaluations(records: list[Event]) -> list[Event]:
    """Of a run, each with the training loss that was logged last before it."""
    found: list[Event] = []
    loss: float | None = None
    for record in records:
        if record.get("kind") == "evaluation":
            found.append({**record, "loss": loss})
        loss = record.get("loss", loss)
    return found


def _reports(records: list[Event]) -> list[Event]:
    """Of a sweep, the last of each trial that has one."""
    return list({record["trial"]: record for record in records if "trial" in record}.values())


def _reach(storage: Storage, name: str, files: Found) -> str:
    if (files[tables.FILE].size or 0) > TAIL:
        return "many adapters"
    count = len(_table(storage, name, files).entries)
    return f"{count} adapter{'s' * (count != 1)}"


def _table(storage: Storage, name: str, files: Found) -> tables.Table:
    table = tables.load(_text(storage, f"{name}/{tables.FILE}"))
    if tables.CHANGES not in files:
        return table
    return table.after(tables.load_changes(_text(storage, f"{name}/{tables.CHANGES}")))


def _job(storage: Storage, name: str, files: Found) -> Job | None:
    if CONFIG not in files:
        return None
    try:
        tree = parse_yaml(_text(storage, f"{name}/{CONFIG}"), f"{name}/{CONFIG}")
        return parse_saved(tree if isinstance(tree, dict) else {})
    except ConfigError:  # written by another version
        return None


def _sizes(files: Found) -> dict[str, int | None]:
    order = sorted(files.items(), key=lambda item: (item[1].type == pyarrow.fs.FileType.Directory, item[0]))
    return {name: info.size if info.is_file else None for name, info in order}
