"""What texts are like, by which rows are sliced without being asked: length, script, punctuation, case."""

import re
from collections.abc import Sequence

from raylora.scripts import SCRIPTS, script_of

Text = str | tuple[str, str]
PUNCTUATION = re.compile(r"[^\w\s]")


def joined(text: Text) -> str:
    """Of a pair both."""
    return text if isinstance(text, str) else " ".join(text)


def traits(texts: Sequence[Text]) -> dict[str, list[str | int]]:
    """By trait, the value of each text."""
    whole = [joined(text) for text in texts]
    return {
        "length in characters": [len(text) for text in whole],
        "script": [SCRIPTS[script_of(text)] for text in whole],
        "punctuation": ["with" if PUNCTUATION.search(text) else "without" for text in whole],
        "case": [case_of(text) for text in whole],
    }


def case_of(text: str) -> str:
    if text.isupper():
        return "upper"
    return "lower" if text.islower() else ("mixed" if text.lower() != text.upper() else "none")
