"""What a scored table is made of, decided once and kept beside it: a job that goes on does what it says, or ends."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from raylora.cluster.data.rows import Part
from raylora.cluster.data.unpack import unpacked_name
from raylora.errors import ConfigError
from raylora.version import __version__

SHOWN = 10
LONGEST_STEM = 60  # of a file's name in those of its parts


@dataclass(frozen=True)
class Input:
    """A file that is scored. `digest` is the sha256 of its bytes."""

    name: str
    format: str
    digest: str


@dataclass(frozen=True)
class PartPlan:
    """A part of file number `source`: what is read, and the name under which it is written. `rows` are all that it
    holds, `bad` those that cannot be scored."""

    name: str
    source: int
    start: int
    end: int | None
    before: int
    rows: int
    bad: int

    @property
    def part(self) -> Part:
        return Part(self.start, self.end, self.before)


@dataclass(frozen=True)
class Identity:
    """What decides each byte of the output: files in order, digests of adapters by name, settings by dotted key."""

    inputs: tuple[Input, ...]
    adapters: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """Args:
    schema: of the data's columns that are kept.
    """

    identity: Identity
    schema: pa.Schema
    parts: tuple[PartPlan, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def bad(self) -> int:
        return sum(part.bad for part in self.parts)

    def dump(self) -> str:
        tree = {
            "raylora": __version__,
            "inputs": [asdict(each) for each in self.identity.inputs],
            "adapters": dict(self.identity.adapters),
            "settings": dict(self.identity.settings),
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "columns": {field.name: str(field.type) for field in self.schema},
            "parts": [asdict(part) for part in self.parts],
        }
        return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def load(text: str, place: str) -> Plan:
    """`Plan.dump` undone.

    Raises:
        ConfigError: it is broken.
    """
    try:
        tree = json.loads(text)
        identity = Identity(tuple(Input(**each) for each in tree["inputs"]), tree["adapters"], tree["settings"])
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(tree["schema"])))
        return Plan(identity, schema, tuple(PartPlan(**part) for part in tree["parts"]))
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ConfigError(f"{place} is broken: {error}. Name another `predict.output`.") from None


def check_same(before: Identity, now: Identity, address: str) -> None:
    """Raises:
    ConfigError: the output in a folder was begun with other files, adapters or settings; says which.
    """
    changed = changes(before, now)
    if changed:
        more = f"\n  and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise ConfigError(
            f"`predict.output` {address} was begun with something else:\n  "
            + "\n  ".join(changed[:SHOWN])
            + more
            + "\nIt goes on only with that: bring it back, or name another folder."
        )


def changes(before: Identity, now: Identity) -> list[str]:
    """What differs, a line each."""
    return [
        *_changed_files(before.inputs, now.inputs),
        *_changed("adapter", _shortened(before.adapters), _shortened(now.adapters)),
        *_changed("", before.settings, now.settings),
    ]


def _changed_files(before: Sequence[Input], now: Sequence[Input]) -> list[str]:
    old, new = ({each.name for each in files} for files in (before, now))
    lines = [f"file {name} is gone" for name in sorted(old - new)]
    lines += [f"file {name} is new" for name in sorted(new - old)]
    if lines or tuple(before) == tuple(now):
        return lines
    if len(before) == len(now) and [each.name for each in before] == [each.name for each in now]:
        return [f"file {b.name} has another content" for b, n in zip(before, now, strict=True) if b != n]
    return ["the files come in another order, or other ones have their names"]


def _shortened(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: f"{digest[:12]}…" for name, digest in digests.items()}


def _changed(word: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*before, *now])
    return [
        f"{word} {key}: {before.get(key)} -> {now.get(key)}".replace("  ", " ").strip()
        for key in keys
        if before.get(key) != now.get(key)
    ]


def names_of_parts(files: Sequence[str], ending: str) -> list[str]:
    """A name for each part, by the name of its file, in order: sorted by name, the parts are in the data's order."""
    width = max(5, len(str(len(files) - 1)))
    seen: dict[str, int] = {}
    names: list[str] = []
    for number, (file, name) in enumerate(zip(files, map(stem, files), strict=True)):
        seen[file] = seen.get(file, -1) + 1
        names.append(f"part-{number:0{width}}{'-' if name else ''}{name}-{seen[file]:04}.{ending}")
    return names


def stem(file: str) -> str:
    """A file's name without its endings, in letters that any storage and shell takes."""
    bare = unpacked_name(file).rpartition("/")[2]
    bare = bare.rpartition(".")[0] or bare
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", bare).strip("-.")[:LONGEST_STEM]
