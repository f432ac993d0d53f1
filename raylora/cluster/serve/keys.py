"""API keys: random words of which only hashes are kept, each for a role."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raylora.errors import ConfigError, KeyMissingError

Role = Literal["predict", "admin"]
ROLES: tuple[Role, ...] = ("predict", "admin")


@dataclass(frozen=True)
class HashedKey:
    role: Role
    sha256: str


@dataclass(frozen=True)
class NewKey:
    """`key` is shown once; `line` belongs in the file of `serve.api_keys`."""

    key: str
    line: str


def make(role: Role) -> NewKey:
    key = f"rl-{secrets.token_urlsafe(32)}"
    return NewKey(key, f"{role} {_hash(key)}")


def _hash(key: str) -> str:
    # one round is enough: 256 random bits cannot be guessed from their hash
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read(source: str | None, environ: Mapping[str, str]) -> list[HashedKey]:
    """Keys of `serve.api_keys`: lines `role sha256`, `#` begins a comment.

    Raises:
        ConfigError: the file or variable is not there, or a line is something else; the line itself is not shown.
    """
    if source is None:
        return []
    if source.startswith("env:"):
        if source[4:] not in environ:
            raise ConfigError(f"`serve.api_keys`: the environment has no variable {source[4:]}.")
        text = environ[source[4:]]
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise ConfigError(f"`serve.api_keys`: no file {path}. `raylora key admin` makes a key and its line.")
        text = path.read_text(encoding="utf-8")
    lines = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    keys = [_parsed(words, f"{source}, line {number}") for number, words in lines if words]
    if not keys:
        raise ConfigError(f"`serve.api_keys`: {source} holds no key. `raylora key admin` makes a key and its line.")
    return keys


def _parsed(words: list[str], place: str) -> HashedKey:
    if len(words) != 2 or words[0] not in ROLES or len(words[1]) != 64:
        raise ConfigError(
            f"`serve.api_keys`: {place} must be `predict` or `admin` and a sha256, as `raylora key` gives."
        )
    return HashedKey(words[0], words[1].lower())  # pyright: ignore[reportArgumentType]


def check(authorization: str | None, keys: Sequence[HashedKey], role: Role) -> None:
    """Raises:
    KeyMissingError: the header's key is not of this role; an admin's key is of every role.
    """
    scheme, _, key = (authorization or "").partition(" ")
    given = _hash(key.strip()) if scheme.lower() == "bearer" else ""
    # all are compared, in constant time: the answer's time says nothing of a key
    fits = [hmac.compare_digest(given, known.sha256) and known.role in (role, "admin") for known in keys]
    if not any(fits):
        raise KeyMissingError(f"this call needs `Authorization: Bearer KEY` with a key for {role}.")
