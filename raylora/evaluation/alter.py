"""Texts as careless or other people write them: typos, case, punctuation, whitespace. Always the same of a text."""

import random
import re
from collections.abc import Callable, Sequence

from raylora.evaluation.traits import PUNCTUATION, Text

LETTERS_A_TYPO = 20
LETTER = re.compile(r"[^\W\d_]")


def with_typos(text: str) -> str:
    """A letter in twenty, and at least one of a text of two or more, is dropped or changes places with the next."""
    places = [found.start() for found in LETTER.finditer(text)]
    if len(places) < 2:
        return text
    chance = random.Random(text)
    letters = list(text)
    for place in chance.sample(places[:-1], max(1, len(places) // LETTERS_A_TYPO)):
        if chance.random() < 0.5 and letters[place : place + 2] != letters[place : place + 2][::-1]:
            letters[place : place + 2] = letters[place : place + 2][::-1]
        else:
            letters[place] = ""
    return "".join(letters)


def without_punctuation(text: str) -> str:
    return PUNCTUATION.sub("", text)


def with_whitespace(text: str) -> str:
    """Spaces are doubled, and a line break and spaces stand around the text."""
    return f"  {re.sub(' ', '  ', text)} \n"


ALTERATIONS: dict[str, Callable[[str], str]] = {
    "typos": with_typos,
    "lower case": str.lower,
    "upper case": str.upper,
    "no punctuation": without_punctuation,
    "whitespace": with_whitespace,
}


def altered(texts: Sequence[Text], kind: str) -> list[Text]:
    """A text, or part of a pair, of which nothing would be left stays as it is."""

    def of(text: str) -> str:
        changed = ALTERATIONS[kind](text)
        return changed if changed.strip() else text

    return [of(text) if isinstance(text, str) else (of(text[0]), of(text[1])) for text in texts]
