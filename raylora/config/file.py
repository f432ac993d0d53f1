"""A job from a YAML file and `section.key=value` words, and back to YAML."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from secrets import token_hex
from typing import Any

import yaml

from raylora import config
from raylora.config import Job
from raylora.config.secrets import redact
from raylora.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `5e-4` as a string; YAML 1.2, and every user, as a number."""


_Loader.yaml_implicit_resolvers = {**yaml.SafeLoader.yaml_implicit_resolvers}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Job:
    """The job that `[CONFIG.yaml] [section.key=value ...]` describes; later words win.

    Args:
        arguments: words after the command; a word with `=` is an override, the others are files.
        environ: what `${NAME}` in YAML strings expands to.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, a value is wrong.
    """
    tree: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for word in arguments:
        if "=" in word and not Path(word).is_file():
            overrides |= override(word)
        else:
            tree = {**tree, **_expand(_read_file(Path(word)), environ, word)}
    return config.parse(tree).replace(overrides)


def override(word: str) -> dict[str, Any]:
    """The key and the value of `section.key=value`.

    Raises:
        ConfigError: it has no `=`, or the value is not YAML.
    """
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"an override is written section.key=value, found '{word}'.")
    return {key.strip(): parse_yaml(value, f"`{word}`")}


def storage_path(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """The path that is given, or that of a config; of no word, the config's default."""
    if words and not words[0].endswith((".yaml", ".yml")) and not words[0].startswith("storage_path="):
        return words[0]
    return read(words, environ).storage_path


def name_run(job: Job, command: str) -> Job:
    """The job with a run name: its own, or `<command>-<UTC time>-<six letters>`, which no other of that second has."""
    return job.replace({"run_name": job.run_name or f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(3)}"})


def dump(job: Job) -> str:
    """The job as YAML that reads back to the same job."""
    return yaml.safe_dump(job.model_dump(), sort_keys=False, allow_unicode=True)


def changed_keys(old: Job, new: Job) -> list[str]:
    """Dotted keys that differ, with both values, e.g. `lora.r: 8 -> 16`."""
    before, after = flatten(old.model_dump()), flatten(new.model_dump())
    keys = dict.fromkeys([*before, *after])
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else " An override is written section.key=value."
        raise ConfigError(f"config file {path} is not there.{hint}")
    if path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"):  # JSON is YAML
        raise ConfigError(
            f"{path} is a data file, not a config. Write one for it with `raylora init {path}`, or set "
            f"data.train={path}."
        )
    tree = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{path} must hold sections and keys, found {type(tree).__name__}.")
    # a section whose keys are all commented out reads as null
    return {key: value for key, value in (tree or {}).items() if value is not None or key == "run_name"}


def parse_yaml(text: str, place: str) -> Any:
    """YAML 1.1 with YAML 1.2's floats; `place` names it in errors."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{redact(place)} is not valid YAML: {redact(' '.join(str(error).split()))}") from None


def _expand(value: Any, environ: Mapping[str, str], place: str | os.PathLike[str]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(inner, environ, place) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, environ, place) for inner in value]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ConfigError(f"{place}: the environment has no variable {match[1]}, named by {value!r}.")
        return environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, value)


def commented(job: Job) -> str:
    """The job as YAML with each key's meaning beside it; keys at their default are commented out."""
    default = Job()
    lines: list[str] = []
    section = ""
    for key, meaning in config.keys().items():
        above, _, name = key.rpartition(".")
        if above != section:
            lines += ["", f"{above}:"]
            section = above
        value = value_of(job, key)
        same = value == value_of(default, key)
        text = f"{'  ' if above else ''}{'# ' if same else ''}{name}: {inline(value)}"
        lines.append(f"{text:<44}  # {meaning}" if meaning else text)
    return "\n".join(lines) + "\n"


def table() -> str:
    """Every key with its default and meaning, as a Markdown table."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, meaning in config.keys().items():
        lines.append(f"| `{key}` | `{inline(value_of(Job(), key))}` | {meaning.replace('|', '/')} |")
    return "\n".join(lines)


def value_of(job: Job, key: str) -> Any:
    """Of a dotted key."""
    return reduce(getattr, key.split("."), job)


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("\n...\n").strip()
    )
