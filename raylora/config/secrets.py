"""Secrets stay out of a config, which is printed, kept with every run and saved with every adapter."""

import re
from collections.abc import Mapping
from typing import Any

_PASSWORD = re.compile(r"(?<=://)[^/?#\s@:]*:(?!\d+/)[^?#\s@]+(?=@)")
_PARAMETER = re.compile(
    r"(?<=[?&])((?:[\w-]*(?:secret|passw|token|signature|access_?key|account_?key|api_?key|credential(?!_kind))[\w-]*"
    r"|sig))=[^&#\s'\"]+",
    re.IGNORECASE,
)
_SHAPES = {
    "an API key": re.compile(r"\brl-[\w-]{43}"),  # as `raylora key` makes them
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}
_VARIABLE = re.compile(r"(^|_)(SECRET|PASSWORD|PASSWD|PWD|TOKEN|KEY)(_|$)", re.IGNORECASE)

ADVICE = (
    "A config is printed and kept with every run and adapter. Leave it out: credentials come from each node's "
    "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, ...), from "
    "the cloud's own files, or from the machine's role."
)


def secret_in(text: str) -> str | None:
    """What kind of secret a string shows, in words; None where it shows none."""
    if _PASSWORD.search(text):
        return "a password before the `@` of an address"
    if found := _PARAMETER.search(text):
        return f"the parameter `{found[1]}` of an address"
    return next((kind for kind, shape in _SHAPES.items() if shape.search(text)), None)


def redact(text: str) -> str:
    """The text with `***` where `secret_in` sees a secret."""
    text = _PARAMETER.sub(r"\1=***", _PASSWORD.sub("***", text))
    for shape in _SHAPES.values():
        text = shape.sub("***", text)
    return text


def find_secret(tree: Any, key: str = "") -> tuple[str, str] | None:
    """The first secret in nested keys and lists: its dotted key, and what kind it is."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            inner = f"{key}.{name}".lstrip(".")
            if key.endswith("env_vars") and value and _VARIABLE.search(str(name)):
                return inner, "a secret, by its name"
            if found := find_secret(value, inner):
                return found
    elif isinstance(tree, list | tuple):
        return next(filter(None, (find_secret(value, key) for value in tree)), None)
    elif isinstance(tree, str) and (kind := secret_in(tree)):
        return key, kind
    return None
