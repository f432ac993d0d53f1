"""The texts of a request's body, whatever the protocol: read up to the first wrong one, which is named."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from pydantic_core import PydanticCustomError

JSON_KINDS = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def check_texts(given: Any) -> str | list[str] | list[list[str]]:
    """Raises:
    PydanticCustomError: it is neither a text nor a list of texts or of pairs of them.
    """
    if isinstance(given, str):
        return given
    return _checked("a text, a list of texts, or a list of [text, text] pairs", given, _wrong_pair)


def check_data(given: Any) -> list[str] | list[list[str]]:
    """Raises:
    PydanticCustomError: it is not the `data` of a KServe tensor of texts, flat or in rows.
    """
    return _checked("a list of texts, or a list of lists of texts", given, _wrong_row)


def _checked(rule: str, given: Any, wrong_row: Callable[[Any], str | None]) -> Any:
    if not isinstance(given, list):
        raise _error(rule, f"it is {_kind(given)}")
    elements = cast("list[Any]", given)
    wrong = wrong_row if elements and isinstance(elements[0], list) else _wrong_text
    found = next(((i, fault) for i, fault in enumerate(map(wrong, elements)) if fault), None)
    if found:
        raise _error(rule, f"item {found[0]} {found[1]}")
    return elements


def _wrong_text(element: Any) -> str | None:
    return None if isinstance(element, str) else f"is {_kind(element)}"


def _wrong_pair(element: Any) -> str | None:
    if isinstance(element, list) and len(cast("list[Any]", element)) != 2:
        return f"is a list of {len(cast('list[Any]', element))}"
    return _wrong_row(element)


def _wrong_row(element: Any) -> str | None:
    if not isinstance(element, list):
        return f"is {_kind(element)} among lists"
    wrong = next((each for each in cast("Iterable[Any]", element) if not isinstance(each, str)), "")
    return None if wrong == "" else f"holds {_kind(wrong)}"


def _kind(value: Any) -> str:
    return JSON_KINDS[type(value)]


def _error(rule: str, found: str) -> PydanticCustomError:
    return PydanticCustomError("texts", "must be {rule}; {found}.", {"rule": rule, "found": found})
