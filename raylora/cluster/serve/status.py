"""One table from what went wrong to the HTTP status that says so."""

from raylora.errors import (
    ConfigError,
    DataError,
    KeyMissingError,
    ModelError,
    NotReadyError,
    OverloadError,
    RayLoraError,
    TooLargeError,
    UnknownAdapterError,
)

STATUS: dict[type[RayLoraError], int] = {
    KeyMissingError: 401,
    UnknownAdapterError: 404,
    TooLargeError: 413,
    DataError: 422,
    ConfigError: 422,
    ModelError: 422,
    OverloadError: 429,
    NotReadyError: 503,
}
WORDS = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    422: "wrong_shape",
    500: "internal",
}
NAMES: dict[type[RayLoraError], str] = {
    KeyMissingError: "unauthorized",
    UnknownAdapterError: "unknown_adapter",
    TooLargeError: "too_large",
    DataError: "wrong_shape",
    ConfigError: "wrong_shape",
    ModelError: "bad_adapter",
    OverloadError: "overload",
    NotReadyError: "not_ready",
}


def body(kind: str, message: str) -> dict[str, dict[str, str]]:
    """Every error's answer; what cannot be written as UTF-8 is escaped."""
    return {"error": {"type": kind, "message": message.encode("utf-8", "backslashreplace").decode("utf-8")}}
