"""YAML 1.2's core schema on PyYAML, which reads YAML 1.1: there `off` is false, `12:30` is 750 and `010` is 8."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from raylora.config.secrets import redact
from raylora.errors import ConfigError

# yaml.org/spec/1.2.2, 10.3.2: what a plain scalar is, and the characters it may begin with
CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "null", "bool", "int", "float")}
# line breaks to YAML 1.1 alone, which PyYAML is to take for characters: what no text in UTF-8 holds stands for them
STAND_INS = {0x85: 0xDF85, 0x2028: 0xDF28, 0x2029: 0xDF29}
BREAKS = {stand_in: character for character, stand_in in STAND_INS.items()}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}
    # the core schema's alone, and None: any other tag is refused
    yaml_constructors = {tag: of for tag, of in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in TAGS}

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self.buffer: str = self.buffer.translate(STAND_INS)

    def scan_to_next_token(self) -> None:
        """A tab parts words as a space does where it indents nothing, as libyaml has it; PyYAML refuses it."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        node.value = _as_text(node.value)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """YAML 1.2 merges no keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A key that stands twice, or another way (`1` and `0x1`), is a mistake; PyYAML would take the last."""
        found = super().construct_mapping(node, deep)
        seen = set[Any]()
        for key, _ in node.value:
            same = {("text", key.value), ("value", self.construct_object(key))}
            if same & seen:
                raise yaml.MarkedYAMLError(None, None, f"the key '{key.value}' stands twice", key.start_mark)
            seen |= same
        return found


def _as_text(scanned: str) -> str:
    """What a scalar says: JSON writes a character beyond U+FFFF as two, a surrogate pair."""
    joined = scanned.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return joined.translate(BREAKS)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as text: Ray and Kubernetes read 1.1."""

    yaml_implicit_resolvers = {first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _name, _pattern, _first in CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)


def _bool(loader: Any, node: Any) -> bool:
    return {"true": True, "false": False}[loader.construct_scalar(node).lower()]


def _int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _float(loader: Any, node: Any) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", loader.construct_scalar(node).lower()))


for _name, _construct in (("bool", _bool), ("int", _int), ("float", _float)):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)


def _text(dumper: Any, text: str) -> Any:
    """PyYAML folds these, which are line breaks to YAML 1.1, within single quotes."""
    style = '"' if re.search("[\n\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


@dataclass(frozen=True)
class Written:
    """What a YAML text says, and the same tree with every scalar as it stands there: `010` is "010"."""

    value: Any
    texts: Any


def load(text: str | bytes, place: str) -> Any:
    """What a YAML text says; `place` names it in errors.

    Raises:
        ConfigError: it is not YAML.
    """
    return load_written(text, place).value


def load_written(text: str | bytes, place: str) -> Written:
    """Raises:
    ConfigError: as `load`.
    """
    try:
        loader = _Loader(text)
        node: Any = loader.get_single_node()
        return Written(loader.construct_document(node), _texts(node)) if node else Written(None, None)
    except yaml.YAMLError as error:
        reason = " ".join(_as_text(str(error)).split())
    except RecursionError:
        reason = "it is nested too deeply"
    except (ValueError, KeyError) as error:  # `!!int x`, an integer of thousands of digits
        reason = f"a value cannot be: {error}"
    raise ConfigError(f"{redact(place)} is not valid YAML: {redact(reason)}")


def _texts(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _texts(value) for key, value in node.value}
    return list(map(_texts, node.value)) if isinstance(node, yaml.SequenceNode) else node.value


def dump(value: Any) -> str:
    """As YAML, in blocks; what reads back to the same value here, and to the same texts by YAML 1.1."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def inline(value: Any) -> str:
    """The same on one line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n...\n").rstrip("\n")
