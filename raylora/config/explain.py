"""A wrong config in words: pydantic's errors by dotted path, with what was found and what was meant."""

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raylora.config.secrets import redact


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key with its description, sections left out."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= leaves(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description or ""
    return found


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Every fault on a line: dotted path, what must hold, what was found, a close known key."""
    faults: dict[str, str] = {}
    found: dict[str, str] = {}
    for detail in error.errors():
        path = _config_path(detail, root)
        reason = _reason(detail, root)
        if reason.what in faults.get(path, "").split(", or "):  # of another item of a list
            continue
        faults[path] = f"{faults[path]}, or {reason.what}" if path in faults else reason.what
        found[path] = reason.found
    lines = [f"  {path}: {what}{found[path]}" if path else f"  {what}" for path, what in faults.items()]
    return f"{len(lines)} {'fault' if len(lines) == 1 else 'faults'} in the config:\n" + "\n".join(lines)


def _config_path(detail: ErrorDetails, root: type[BaseModel]) -> str:
    """The error's dotted place without the branches of a union, which pydantic appends."""
    path: list[str] = []
    model: type[BaseModel] | None = root
    for part in detail["loc"]:
        if model is None:
            break
        path.append(str(part))
        if part not in model.model_fields:
            break
        inner = model.model_fields[str(part)].annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return ".".join(path)


class _Reason(NamedTuple):
    what: str
    found: str


def _reason(detail: ErrorDetails, root: type[BaseModel]) -> _Reason:
    if detail["type"] == "extra_forbidden":
        return _Reason(did_you_mean(".".join(str(part) for part in detail["loc"]), root), "")
    if detail["type"] == "value_error":
        return _Reason(detail["msg"].removeprefix("Value error, "), "")
    known = {"bool_type": "must be true or false", "string_unicode": "must be UTF-8"}
    what = known.get(detail["type"], detail["msg"].replace("Input should", "must"))
    return _Reason(what, f", found {redact(repr(detail['input']))}")


def not_unicode(tree: Any, key: str = "") -> tuple[str, str] | None:
    """The first text in nested keys and lists that holds half a surrogate pair, as bytes that are not UTF-8 become: its
    dotted key, and itself."""
    if isinstance(tree, dict | list):
        inner = tree.items() if isinstance(tree, dict) else ((None, value) for value in tree)
        found = (not_unicode(value, key if name is None else f"{key}.{name}".lstrip(".")) for name, value in inner)
        return next(filter(None, found), None)
    broken = isinstance(tree, str) and any("\ud800" <= letter <= "\udfff" for letter in tree)
    return (key, tree) if broken else None


def did_you_mean(path: str, root: type[BaseModel]) -> str:
    """What to say of an unknown key."""
    found = leaves(root)
    known = [*found, *(name for name in root.model_fields if f"{name}." in " ".join(found))]
    parent, _, leaf = path.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    same_leaf = [key for key in known if key.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(leaf, [key.rpartition(".")[2] for key in siblings], n=1)
    if same_leaf or close:
        return f"unknown key; did you mean `{same_leaf[0] if same_leaf else f'{parent}.{close[0]}'.lstrip('.')}`?"
    return f"unknown key; known here: {', '.join(key.rpartition('.')[2] for key in siblings or known)}"


def close_to(name: str, known: Iterable[str]) -> str:
    """How a sentence about an unknown name ends: `; did you mean 'x'?` where some known one is close, else `.`.

    Only so many are compared: 10,000 names take 230 ms, in which an endpoint answers nobody.
    """
    near = difflib.get_close_matches(name, list(islice(known, 300)), n=1)
    return f"; did you mean '{near[0]}'?" if near else "."
