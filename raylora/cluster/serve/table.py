"""The table of adapters that an endpoint serves: which version each name stands for. Plain values, no Ray."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from raylora.cluster.storage.filesystem import inside
from raylora.cluster.storage.run_folder import ADAPTER
from raylora.config.explain import close_to
from raylora.errors import ConfigError, UnknownAdapterError

ROLES = ("current", "previous", "canary")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Version:
    """One state of an adapter: its folder, and the digest that its files must have."""

    number: int
    path: str
    digest: str


@dataclass(frozen=True)
class Entry:
    """A name. `traffic` of its requests (0..1) go to `canary`, if there is one.

    `newest` is the highest number that a version has had.
    """

    current: Version
    previous: Version | None = None
    canary: Version | None = None
    traffic: float = 0.0
    newest: int = 1

    def pick(self, draw: float) -> Version:
        """The version for a request; `draw` in [0, 1) is its own."""
        return self.canary if self.canary and draw < self.traffic else self.current


@dataclass(frozen=True)
class Configured:
    """A line of `serve.adapters` at the last start, which also outlives a DELETE of the name.

    `digest` is of the files that were last taken from its path, by a start or a PUT; None where they never were.
    """

    path: str
    digest: str | None

    def is_place_of(self, path: str) -> bool:
        """Whether an adapter there is this line's: a run's folder stands for the adapter in it."""
        return path in (self.path, inside(self.path, ADAPTER))


@dataclass(frozen=True)
class Table:
    """All names. Each change makes a new table of the next `revision`.

    `configured` and `configured_default` are what the config said at the last start.
    """

    revision: int = 0
    default: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    configured: Mapping[str, Configured] = field(default_factory=dict)
    configured_default: str | None = None

    def entry(self, name: str) -> Entry:
        """Raises:
        UnknownAdapterError: no such name.
        """
        if name not in self.entries:
            raise UnknownAdapterError(f"no adapter '{name}'{close_to(name, self.entries)}")
        return self.entries[name]

    def put(self, name: str, path: str, digest: str, traffic: float = 1.0) -> "Table":
        """A new version of `name`: for all of its requests, or, below 1, as a canary for that share of them.

        A canary of the very same files is promoted, or gets another share.
        """
        entry = self.entries.get(name)
        if entry is None:
            if traffic < 1:
                raise ConfigError(f"`traffic` below 1 needs an adapter '{name}' to share it with; put it whole first.")
            return self.taken(name, path, digest)._with(name, Entry(Version(1, path, digest)))
        same = entry.canary and (entry.canary.path, entry.canary.digest) == (path, digest)
        version = entry.canary if same and entry.canary else Version(entry.newest + 1, path, digest)
        newest = max(entry.newest, version.number)
        changed = Entry(version, previous=entry.current, newest=newest)
        if traffic < 1:
            changed = replace(entry, canary=version, traffic=traffic, newest=newest)
        return self.taken(name, path, digest)._with(name, changed)

    def renew(self, name: str, digest: str) -> "Table":
        """A new version of the files where the current one's were; a canary keeps its share."""
        entry = self.entry(name)
        version = Version(entry.newest + 1, entry.current.path, digest)
        return self._with(name, replace(entry, current=version, previous=entry.current, newest=version.number))

    def rollback(self, name: str) -> "Table":
        """Drop the canary; where there is none, go back to the previous version.

        Raises:
            UnknownAdapterError: no such name.
            ConfigError: there is nothing to go back to.
        """
        entry = self.entry(name)
        if entry.canary:
            return self._with(name, replace(entry, canary=None, traffic=0.0))
        if entry.previous is None:
            raise ConfigError(f"adapter '{name}' has no previous version to go back to.")
        return self._with(name, replace(entry, current=entry.previous, previous=entry.current))

    def drop(self, name: str) -> "Table":
        """Raises:
        UnknownAdapterError: no such name.
        """
        self.entry(name)
        default = None if self.default == name else self.default
        return replace(self, revision=self.revision + 1, default=default, entries=without(self.entries, name))

    def promote(self, name: str) -> "Table":
        """Make `name` the adapter of requests that name none."""
        return replace(self, revision=self.revision + 1, default=name)

    def change_of(self, name: str) -> "Change":
        """What the change of `name` that led to this table was, for those who have the table before."""
        line = self.configured.get(name)
        return Change(self.revision, self.default, name, self.entries.get(name), line, self.configured_default)

    def after(self, changes: Iterable["Change"]) -> "Table":
        """The table with the changes of the revisions that follow it; others are passed over."""
        revision, last, entries, configured = self.revision, None, dict(self.entries), dict(self.configured)
        for change in changes:
            if change.revision == revision + 1:
                revision, last = change.revision, change
                _set(entries, change.name, change.entry)
                _set(configured, change.name, change.configured)
        if last is None:
            return self
        return Table(revision, last.default, entries, configured, last.configured_default)

    def taken(self, name: str, path: str, digest: str) -> "Table":
        """With these files as the last that were taken from the config's path, if that is where they lie."""
        line = self.configured.get(name)
        if line is None or not line.is_place_of(path):
            return self
        return replace(self, configured={**self.configured, name: replace(line, digest=digest)})

    def _with(self, name: str, entry: Entry) -> "Table":
        return replace(self, revision=self.revision + 1, entries={**self.entries, name: entry})

    def dump(self) -> str:
        """JSON with an entry a line; 100,000 of them take half a second (`asdict` and an indent took 3 s)."""
        lines = ",\n".join(f"{_json(name)}: {_json(_tree(entry))}" for name, entry in self.entries.items())
        config = {name: vars(line) for name, line in self.configured.items()}
        head = f'"revision": {self.revision}, "default": {_json(self.default)}, "configured": {_json(config)}, '
        head += f'"configured_default": {_json(self.configured_default)}'
        return f'{{{head}, "entries": {{\n{lines}\n}}}}\n'


@dataclass(frozen=True)
class Change:
    """One revision's difference to the one before: what `name` now stands for, None where it was dropped, and the
    config's line of it.
    """

    revision: int
    default: str | None
    name: str
    entry: Entry | None
    configured: Configured | None = None
    configured_default: str | None = None


@dataclass(frozen=True)
class Missing:
    """A replica that does not serve a change, and why."""

    replica: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What came of a change: what its name now stands for, and who does not serve it yet."""

    entry: Entry | None
    missing: tuple[Missing, ...] = ()


def load(text: str) -> Table:
    """`Table.dump` undone."""
    tree: dict[str, Any] = json.loads(text)
    entries: dict[str, Any] = tree["entries"]
    if "configured" in tree:
        configured = {name: Configured(**line) for name, line in tree["configured"].items()}
    else:
        configured = {name: line for name, each in entries.items() if (line := _line_of_earlier_code(each))}
    read = {name: _entry(each) for name, each in entries.items()}
    return Table(tree["revision"], tree["default"], read, configured, tree.get("configured_default"))


def dump_changes(changes: Iterable[Change]) -> str:
    trees = (
        {
            **vars(change),
            "entry": change.entry and _tree(change.entry),
            "configured": change.configured and vars(change.configured),
        }
        for change in changes
    )
    return "".join(_json(tree) + "\n" for tree in trees)


def load_changes(text: str) -> list[Change]:
    """`dump_changes` undone."""
    return [_change(json.loads(line)) for line in text.splitlines()]


def _change(tree: dict[str, Any]) -> Change:
    entry = _entry(tree["entry"]) if tree["entry"] else None
    if "configured" in tree:
        line = Configured(**tree["configured"]) if tree["configured"] else None
    else:
        line = _line_of_earlier_code(tree["entry"] or {})
    return Change(tree["revision"], tree["default"], tree["name"], entry, line, tree.get("configured_default"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tree(entry: Entry) -> dict[str, Any]:
    return {key: vars(value) if isinstance(value, Version) else value for key, value in vars(entry).items()}


def _entry(tree: dict[str, Any]) -> Entry:
    versions: dict[str, Any] = {key: Version(**tree[key]) if tree[key] else None for key in ROLES}
    return Entry(**without({**tree, **versions}, "configured"))


def _line_of_earlier_code(entry: dict[str, Any]) -> Configured | None:
    """Earlier tables kept the config's path alone, in the entry; of the versions there, the highest came last."""
    if not entry.get("configured"):
        return None
    line = Configured(entry["configured"], None)
    there = [Version(**entry[key]) for key in ROLES if entry[key] and line.is_place_of(entry[key]["path"])]
    newest = max(there, key=lambda version: version.number, default=None)
    return replace(line, digest=newest and newest.digest)


def _set(values: dict[str, Value], name: str, value: Value | None) -> None:
    values.pop(name, None)
    if value is not None:
        values[name] = value


def without(values: Mapping[str, Value], name: str) -> dict[str, Value]:
    return {other: value for other, value in values.items() if other != name}
