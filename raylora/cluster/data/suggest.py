"""Which encoding a text is in whose bytes are not UTF-8: said to the user, never assumed."""

import re
import unicodedata

LONE = re.compile("[\udc80-\udcff]")
LATIN = ("cp1252", "latin-1")
OTHERS = ("cp1251", "shift_jis", "gb18030", "euc_kr", "cp1253", "cp1255", "cp1256")
SHOWN = 24  # characters of what a text would be in another encoding
AROUND = 200  # bytes of it that are looked at


def suggestion(value: str) -> str:
    """What to set for a text with bytes that are not UTF-8, and what it would be then: the reader's eye decides."""
    told = [f"data.encoding={name} if it should be {text!r}" for name, text in _readings(value).items()]
    return f". Set {', or '.join(told[:3])}" if told else ""


def likely(value: str) -> str | None:
    """The encoding that such a text is probably in; None of one that is UTF-8, or nothing known."""
    return next(iter(_readings(value)), None)


def _readings(value: str) -> dict[str, str]:
    """What is around the first such byte, by encodings in which it is text."""
    found = LONE.search(value)
    if not found:
        return {}
    start = max(value.rfind(" ", 0, found.start()) + 1, found.start() - SHOWN // 2)
    try:
        raw = value[start : start + AROUND].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that JSON spelled out
        return {}
    read = {name: text for name in LATIN + OTHERS if (text := _read_as(raw, name)) is not None}
    latin = next((name for name in LATIN if name in read), None)
    if latin and _is_latin(read[latin]):
        return {latin: _shown(read[latin])}
    return {name: _shown(read[name]) for name in OTHERS if name in read and _is_words(read[name])}


def _shown(text: str) -> str:
    return text[:SHOWN].strip()


def _read_as(raw: bytes, encoding: str) -> str | None:
    """None where it is not of the encoding; that a character is cut at the end says nothing."""
    for end in (len(raw), len(raw) - 1):
        try:
            return raw[:end].decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _is_latin(text: str) -> bool:
    """Of Latin words a few letters have accents; what is all accents is another alphabet."""
    odd = sum(ord(char) > 127 and char.isalpha() for char in text)
    return odd <= sum(char.isalpha() for char in text) / 2


def _is_words(text: str) -> bool:
    return all(unicodedata.category(char)[0] in "LNPZM" for char in text if ord(char) > 127)
