"""One table from what went wrong to the HTTP status that says so."""

from typing import NamedTuple

from raylora.errors import (
    ConfigError,
    DataError,
    KeyMissingError,
    MediaTypeError,
    ModelError,
    NotReadyError,
    OverloadError,
    RayLoraError,
    TooLargeError,
    UnknownAdapterError,
)


class Refusal(NamedTuple):
    """An error's HTTP status, and its `type` in the answer."""

    status: int
    name: str


REFUSALS: dict[type[RayLoraError], Refusal] = {
    KeyMissingError: Refusal(401, "unauthorized"),
    UnknownAdapterError: Refusal(404, "unknown_adapter"),
    TooLargeError: Refusal(413, "too_large"),
    MediaTypeError: Refusal(415, "unsupported_media_type"),
    DataError: Refusal(422, "wrong_shape"),
    ConfigError: Refusal(422, "wrong_shape"),
    ModelError: Refusal(422, "bad_adapter"),
    OverloadError: Refusal(429, "overload"),
    NotReadyError: Refusal(503, "not_ready"),
}
HEADERS = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}, 503: {"retry-after": "2"}}
WORDS = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "wrong_shape",
    500: "internal",
}


def body(kind: str, message: str) -> dict[str, dict[str, str]]:
    """Every error's answer; what cannot be written as UTF-8 is escaped."""
    return {"error": {"type": kind, "message": message.encode("utf-8", "backslashreplace").decode("utf-8")}}
