"""What stands in a model card as it is, whatever letters it is made of."""

import string
from collections.abc import Sequence

LONGEST = 200
SPECIAL = frozenset("`|<>\\")  # end a span or a cell, begin a tag
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def code(text: str) -> str:
    """Inline code, on one line, also inside a table: of GitHub's Markdown and of the hub's.

    What Markdown would take for its own is written as HTML's entities; a letter that is not seen, as Python writes it.
    """
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    if text and text.isprintable() and text == text.strip() and not SPECIAL & set(text):
        return f"`{text}`"
    return f"<code>{''.join(map(_entity, text))}</code>"


def _entity(letter: str) -> str:
    if letter in string.punctuation:
        return f"&#{ord(letter)};"
    if letter.isprintable():
        return letter
    return "".join(map(_entity, _ESCAPES.get(letter, f"\\u{ord(letter):04x}")))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are Markdown without `|` and without ends of lines."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
