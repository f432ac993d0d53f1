"""What a start makes of the table: what the config says otherwise than at the start before, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace

from raylora.cluster.serve.table import Change, Configured, Entry, Table, without


def configure(table: Table, adapters: Mapping[str, str], digests: Mapping[str, str], default: str | None) -> Table:
    """The table after a start with these `serve.adapters` and this `serve.default`. What was changed over HTTP stays,
    but where a line is another than at the start before, or has gone, or the files at its path were replaced: they are
    a new version. Where there is no default and the lines are others, the first of them is it.

    Args:
        digests: of the folders as they are now; of those of the adapters that are new or whose path is, at least.
    """
    before = {name: line.path for name, line in table.configured.items()}
    for name in [name for name in before if name not in adapters]:
        table = _forget(table, name)
    for name, path in adapters.items():
        table = _take(table, name, path, digests.get(name))
    if default and default != table.configured_default:
        table = table.promote(default)
    elif table.default is None and before != adapters:
        first = next((name for name in (default, *adapters) if name in table.entries), None)
        table = table.promote(first) if first else table
    return replace(table, configured_default=default)


def difference(old: Table, new: Table) -> list[Change]:
    """Changes that lead from one table to the other, of the revisions that follow the old one's."""
    every = {**old.entries, **new.entries, **old.configured, **new.configured}
    names = [name for name in every if _of(old, name) != _of(new, name)]
    if not names and (new.default, new.configured_default) != (old.default, old.configured_default):
        names = [new.default or ""]  # a change needs a name; of this one it says what was known
    return [replace(new.change_of(name), revision=i) for i, name in enumerate(names, old.revision + 1)]


def is_configured(table: Table, name: str, path: str) -> bool:
    """Whether the table has taken this line of the config already."""
    line = table.configured.get(name)
    return line is not None and line.path == path


def _take(table: Table, name: str, path: str, digest: str | None) -> Table:
    """A line of the config; the digest of its files is None where they cannot be read."""
    if not is_configured(table, name, path):
        assert digest is not None, "a new line's files have been read"
        line = Configured(path, digest)
        return replace(table, configured={**table.configured, name: line}).put(name, path, digest)
    line, entry = table.configured[name], table.entries.get(name)
    if digest is None or digest == line.digest:
        return table
    if entry and line.is_place_of(entry.current.path) and entry.current.digest != digest:
        table = table.renew(name, digest)
    return table.taken(name, path, digest)


def _forget(table: Table, name: str) -> Table:
    """A line that has left the config, and its adapter."""
    if name in table.entries:
        table = table.drop(name)
    return replace(table, configured=without(table.configured, name))


def _of(table: Table, name: str) -> tuple[Entry | None, Configured | None]:
    return table.entries.get(name), table.configured.get(name)
