"""The table of adapters that an endpoint serves: which version each name stands for. Plain values, no Ray."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raylora.cluster.storage.filesystem import inside
from raylora.cluster.storage.run_folder import ADAPTER
from raylora.config.explain import close_to
from raylora.errors import ConfigError, UnknownAdapterError


@dataclass(frozen=True)
class Version:
    """One state of an adapter: its folder, and the digest that its files must have."""

    number: int
    path: str
    digest: str


@dataclass(frozen=True)
class Entry:
    """A name. `traffic` of its requests (0..1) go to `canary`, if there is one.

    `configured` is the config's path, `newest` the highest number that a version has had.
    """

    current: Version
    previous: Version | None = None
    canary: Version | None = None
    traffic: float = 0.0
    configured: str | None = None
    newest: int = 1

    def pick(self, draw: float) -> Version:
        """The version for a request; `draw` in [0, 1) is its own."""
        return self.canary if self.canary and draw < self.traffic else self.current


@dataclass(frozen=True)
class Table:
    """All names. Each change makes a new table of the next `revision`."""

    revision: int = 0
    default: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        """Raises:
        UnknownAdapterError: no such name.
        """
        if name not in self.entries:
            raise UnknownAdapterError(f"no adapter '{name}'{close_to(name, self.entries)}")
        return self.entries[name]

    def put(self, name: str, path: str, digest: str, traffic: float = 1.0, configured: str | None = None) -> "Table":
        """A new version of `name`: for all of its requests, or, below 1, as a canary for that share of them.

        A canary of the very same files is promoted, or gets another share.
        """
        entry = self.entries.get(name)
        if entry is None:
            if traffic < 1:
                raise ConfigError(f"`traffic` below 1 needs an adapter '{name}' to share it with; put it whole first.")
            return self._with(name, Entry(Version(1, path, digest), configured=configured))
        same = entry.canary and (entry.canary.path, entry.canary.digest) == (path, digest)
        version = entry.canary if same and entry.canary else Version(entry.newest + 1, path, digest)
        newest = max(entry.newest, version.number)
        if traffic < 1:
            return self._with(name, replace(entry, canary=version, traffic=traffic, newest=newest))
        configured = configured or entry.configured
        return self._with(name, Entry(version, previous=entry.current, configured=configured, newest=newest))

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
        self.entry(name)
        entries = {other: entry for other, entry in self.entries.items() if other != name}
        return Table(self.revision + 1, None if self.default == name else self.default, entries)

    def promote(self, name: str) -> "Table":
        """Make `name` the adapter of requests that name none."""
        return replace(self, revision=self.revision + 1, default=name)

    def change_of(self, name: str) -> "Change":
        """What the change of `name` that led to this table was, for those who have the table before."""
        return Change(self.revision, self.default, name, self.entries.get(name))

    def after(self, changes: Iterable["Change"]) -> "Table":
        """The table with the changes of the revisions that follow it; others are passed over."""
        revision, default, entries = self.revision, self.default, dict(self.entries)
        for change in changes:
            if change.revision == revision + 1:
                revision, default = change.revision, change.default
                entries.pop(change.name, None)
                if change.entry:
                    entries[change.name] = change.entry
        return Table(revision, default, entries)

    def _with(self, name: str, entry: Entry) -> "Table":
        return replace(self, revision=self.revision + 1, entries={**self.entries, name: entry})

    def dump(self) -> str:
        """JSON with an entry a line; 100,000 of them take half a second (`asdict` and an indent took 3 s)."""
        lines = ",\n".join(f"{_json(name)}: {_json(_tree(entry))}" for name, entry in self.entries.items())
        return f'{{"revision": {self.revision}, "default": {_json(self.default)}, "entries": {{\n{lines}\n}}}}\n'


@dataclass(frozen=True)
class Change:
    """One revision's difference to the one before: what `name` now stands for, None where it was dropped."""

    revision: int
    default: str | None
    name: str
    entry: Entry | None


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
    return Table(tree["revision"], tree["default"], {name: _entry(each) for name, each in tree["entries"].items()})


def dump_changes(changes: Iterable[Change]) -> str:
    trees = ({**vars(change), "entry": change.entry and _tree(change.entry)} for change in changes)
    return "".join(_json(tree) + "\n" for tree in trees)


def load_changes(text: str) -> list[Change]:
    """`dump_changes` undone."""
    return [_change(json.loads(line)) for line in text.splitlines()]


def _change(tree: dict[str, Any]) -> Change:
    return Change(tree["revision"], tree["default"], tree["name"], _entry(tree["entry"]) if tree["entry"] else None)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tree(entry: Entry) -> dict[str, Any]:
    return {key: vars(value) if isinstance(value, Version) else value for key, value in vars(entry).items()}


def _entry(tree: dict[str, Any]) -> Entry:
    versions: dict[str, Any] = {
        key: Version(**tree[key]) if tree[key] else None for key in ("current", "previous", "canary")
    }
    return Entry(**{**tree, **versions})


def configure(table: Table, adapters: Mapping[str, str], digests: Mapping[str, str], default: str | None) -> Table:
    """The table after a start with these `serve.adapters`: what was changed over HTTP since stays, unless the config
    itself now says otherwise. Files that were replaced where the config's path points are a new version.

    Args:
        digests: of the folders as they are now; of those of the adapters that are new or whose path is, at least.
    """
    for name in [n for n, entry in table.entries.items() if entry.configured and n not in adapters]:
        table = table.drop(name)
    for name, path in adapters.items():
        if not is_configured(table, name, path):
            table = table.put(name, path, digests[name], configured=path)
            continue
        current = table.entries[name].current
        in_place = current.path in (path, inside(path, ADAPTER))
        if in_place and digests.get(name, current.digest) != current.digest:
            table = table.renew(name, digests[name])
    first = default or table.default or next(iter(adapters), None)
    return table if first == table.default or first is None else table.promote(first)


def difference(old: Table, new: Table) -> list[Change]:
    """Changes that lead from one table to the other, of the revisions that follow the old one's."""
    names = [name for name in {**old.entries, **new.entries} if old.entries.get(name) is not new.entries.get(name)]
    if not names and new.default != old.default and new.default:
        names = [new.default]
    return [Change(i, new.default, name, new.entries.get(name)) for i, name in enumerate(names, old.revision + 1)]


def is_configured(table: Table, name: str, path: str) -> bool:
    """Whether the table has taken this line of the config already."""
    return name in table.entries and table.entries[name].configured == path
