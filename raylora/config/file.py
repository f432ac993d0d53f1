"""A job from a YAML file and `section.key=value` words, and back to YAML."""

import difflib
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from secrets import token_hex
from typing import Any

from raylora import config
from raylora.config import Job, parse, parse_saved, set_keys, typed, yaml12
from raylora.config.renamed import new_key, rename_keys
from raylora.config.secrets import redact
from raylora.config.yaml12 import inline
from raylora.errors import ConfigError

NAMED = re.compile(r"\$(\$\{\w+\})|\$\{(\w+)\}")


class _Unexpanded(str):
    """A text of a config file, in which `${NAME}` is still to be looked up."""

    place: str


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Job:
    """The job that `[CONFIG.yaml] [section.key=value ...]` describes; later words win.

    Args:
        arguments: words after the command; a word with `=` is an override, the others are files.
        environ: what `${NAME}` in texts of the files expands to, where no later word sets the key; `$${NAME}` is
            `${NAME}` itself.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, a value is wrong.
    """
    return parse(_expand(_merged(arguments), environ))


def _merged(arguments: Sequence[str]) -> dict[str, Any]:
    """The tree of the default job with the files and then the overrides written over it, key by key."""
    tree = Job().model_dump()
    overrides: dict[str, Any] = {}
    for word in arguments:
        if "=" in word and not os.path.isfile(word):
            overrides |= override(word)
            continue
        for key, value in rename_keys(_read_file(Path(word))).items():
            known = tree.get(key)
            tree[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    set_keys(tree, overrides)
    return tree


def read_saved(text: str, place: str) -> Job:
    """The job that `dump` wrote into a folder of raylora's; no `${NAME}` is looked up.

    Raises:
        ConfigError: it is not YAML, or of another version of raylora.
    """
    tree = yaml12.load(text, place)
    return parse_saved(_each_text(tree, lambda text: NAMED.sub(lambda found: found[1] or found[0], text)))


def override(word: str) -> dict[str, Any]:
    """The key and the value of `section.key=value`: what was typed where the key takes text, else YAML.

    Raises:
        ConfigError: it has no `=`, or the value cannot be read.
    """
    key, equals, text = word.partition("=")
    if not equals:
        raise ConfigError(f"an override is written section.key=value, found '{word}'.")
    key = new_key(key.strip())
    return {key: typed.of_word(text, typed.place_of(Job, key).kind, f"`{word}`")}


def storage_path(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """The path that is given, or that of a config; of no word, the config's default."""
    if words and not words[0].endswith((".yaml", ".yml")) and not words[0].startswith("storage_path="):
        return words[0]
    return parse(_expand({"storage_path": _merged(words)["storage_path"]}, environ)).storage_path


def name_run(job: Job, command: str) -> Job:
    """The job with a run name: its own, or `<command>-<UTC time>-<six letters>`, which no other of that second has."""
    return job.replace({"run_name": job.run_name or f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(3)}"})


def dump(job: Job) -> str:
    """The job as YAML that reads back to the same job."""
    return yaml12.dump(_escaped(job.model_dump()))


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
    if not os.path.isfile(path):  # a name may be too long for `Path.is_file`
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else " An override is written section.key=value."
        what = "is a folder" if os.path.isdir(path) else "is not there"
        raise ConfigError(f"config file {path} {what}.{hint}")
    if path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"):  # JSON is YAML
        init = shlex.join(["raylora", "init", str(path)])
        raise ConfigError(
            f"{path} is a data file, not a config. Write one for it with `{init}`, "
            f"or set {shlex.quote(f'data.train={path}')}."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}.") from None
    written = yaml12.load_written(content, str(path))
    if not isinstance(written.value, dict | None):
        raise ConfigError(f"{path} must hold sections and keys, found {type(written.value).__name__}.")
    tree = typed.of_file(written.value or {}, written.texts or {}, Job)
    # a section whose keys are all commented out reads as null
    known = {key: value for key, value in tree.items() if value is not None or key == "run_name"}

    def unexpanded(text: str) -> str:
        marked = _Unexpanded(text)
        marked.place = str(path)
        return marked

    return _each_text(known, unexpanded)


def _expand(tree: Any, environ: Mapping[str, str]) -> Any:
    def expanded(text: str) -> str:
        if not isinstance(text, _Unexpanded):
            return text

        def look_up(found: re.Match[str]) -> str:
            if found[1]:
                return found[1]
            if found[2] not in environ:
                raise ConfigError(
                    f"{text.place}: the environment has no variable {found[2]}, named by '{redact(text)}'. Set it, "
                    "or the key itself with section.key=value."
                )
            return environ[found[2]]

        return NAMED.sub(look_up, text)

    return _each_text(tree, expanded)


def _escaped(value: Any) -> Any:
    return _each_text(value, lambda text: re.sub(r"\$\{\w+\}", r"$\g<0>", text))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _each_text(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_each_text(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


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
        text = f"{'  ' if above else ''}{'# ' if same else ''}{name}: {inline(_escaped(value))}"
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
