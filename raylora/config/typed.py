"""What is written or typed, by the type of its key: a text is what stands there, all else is YAML."""

import re
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from raylora.config import yaml12
from raylora.config.secrets import redact
from raylora.errors import ConfigError

DOTTED = ["tune", "space"]  # its keys are dotted themselves
_QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\""
_LIST = re.compile(r"\s*\[(.*)\]\s*", re.DOTALL)
_ITEM = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(?:,|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where a dotted key leads: the names from the root, and the type of what is there; None where nothing is."""

    path: list[str]
    kind: Any


def place_of(root: type[BaseModel], key: str) -> Place:
    """Names of adapters and of resources may hold dots themselves."""
    path: list[str] = []
    kind: Any = root
    names = key.split(".")
    for i, name in enumerate(names):
        if get_origin(kind) is dict and (path == DOTTED or get_args(kind)[1] is not Any):
            return Place([*path, ".".join(names[i:])], get_args(kind)[1])
        fields = _fields(kind)
        kind = Any if get_origin(kind) is dict or kind is Any else fields[name].annotation if name in fields else None
        path.append(name)
    return Place(path, kind)


def of_word(text: str, kind: Any, word: str) -> Any:
    """The value of `section.key=text`: for a text the very text, for texts `[a, b]`; nothing and `null` are null.

    A text that would be null or a list is typed in single quotes.

    Raises:
        ConfigError: it is not YAML where the key takes other things than text.
    """
    if kind is None:
        return text
    takes = _alternatives(kind)
    if not _is_text(takes):
        written = yaml12.load_written(text, word)
        return of_file(written.value, written.texts, kind)
    if _is_very_text(text, takes):
        return text
    if text.startswith("'"):
        return text[1:-1]
    listed = _LIST.fullmatch(text)
    return _items(listed[1], word) if listed else None


def as_word(value: Any, kind: Any) -> str:
    """What is to be typed for a value: `of_word` undone."""
    takes = _alternatives(kind)
    if not _is_text(takes):
        return yaml12.inline(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_item, value))}]"
    if value is None:
        return "null"
    return value if _is_very_text(value, takes) else f"'{value}'"


def of_file(value: Any, text: Any, kind: Any) -> Any:
    """The value of a key of a file: `0` is the text "0" for a key that takes text.

    Args:
        value, text: of `yaml12.Written`.
    """
    if isinstance(value, dict):
        fields = _fields(kind)
        inner = get_args(kind)[1] if get_origin(kind) is dict else Any
        kinds = {name: fields[name].annotation if name in fields else inner for name in text}
        return {name: of_file(each, text[name], kinds[name]) for each, name in zip(value.values(), text, strict=True)}
    takes = _alternatives(kind)
    if isinstance(value, list):
        item = next((get_args(each)[0] for each in takes if get_origin(each) is list), Any)
        return [_of_item(each, written, item) for each, written in zip(value, text, strict=True)]
    return text if isinstance(value, bool | int | float) and _is_text(takes) else value


def _of_item(value: Any, text: Any, kind: Any) -> Any:
    """`null` and `~` are labels like others, where labels are named; an empty item is a mistake."""
    return text if value is None and text and _is_text(_alternatives(kind)) else of_file(value, text, kind)


def _fields(kind: Any) -> dict[str, Any]:
    return dict(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _alternatives(kind: Any) -> list[Any]:
    """The types that a type allows, a literal as its values' types."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _alternatives(inner[0])
    if origin is Literal:
        return [type(value) for value in inner]
    return [each for one in inner for each in _alternatives(one)] if origin in (Union, UnionType) else [kind]


def _is_text(takes: list[Any]) -> bool:
    """Whether it is text, or a list of texts, and nothing else but null."""
    texts = [each for each in takes if get_origin(each) is list and _alternatives(get_args(each)[0]).count(str)]
    return bool(set(takes) - {NoneType}) and all(each in (str, NoneType) or each in texts for each in takes)


def _is_very_text(text: str, takes: list[Any]) -> bool:
    """Whether it is neither null nor a list, for a key that takes these, nor one of them in quotes."""
    while len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1]
    if NoneType in takes and text in ("", "null"):
        return False
    return not (any(get_origin(each) is list for each in takes) and _LIST.fullmatch(text))


def _items(text: str, word: str) -> list[str]:
    items: list[str] = []
    at = 0
    while at < len(text) and text[at:].strip():
        found = _ITEM.match(text, at)
        assert found, "[^,]* matches anything up to a comma"
        if not found[1]:
            raise ConfigError(f"{redact(word)}: an item of the list is empty. Write '' for an empty text.")
        items.append(_unquoted(found[1], word))
        at = found.end()
    return items


def _unquoted(item: str, word: str) -> str:
    if not re.fullmatch(_QUOTED, item, re.DOTALL):
        return item
    return item[1:-1].replace("''", "'") if item[0] == "'" else yaml12.load(item, word)


def _item(text: str) -> str:
    plain = text and text == text.strip() and "," not in text and text[0] not in "'\""
    return text if plain else "'" + text.replace("'", "''") + "'"
