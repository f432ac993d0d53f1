"""In which script a text is written. Not its language: Latin letters may be English or Vietnamese."""

import re
import unicodedata
from collections.abc import Iterable

LETTERS_LOOKED_AT = 1000  # characters of a text
NONE, LATIN = 0, 1
OTHER = "other"
# the first word of a letter's Unicode name, and what its script is called here
NAMED = {
    "LATIN": "Latin",
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "CJK": "Han",
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana",
    "HANGUL": "Hangul",
    "DEVANAGARI": "Devanagari",
    "BENGALI": "Bengali",
    "GURMUKHI": "Gurmukhi",
    "GUJARATI": "Gujarati",
    "TAMIL": "Tamil",
    "TELUGU": "Telugu",
    "KANNADA": "Kannada",
    "MALAYALAM": "Malayalam",
    "SINHALA": "Sinhala",
    "THAI": "Thai",
    "LAO": "Lao",
    "KHMER": "Khmer",
    "MYANMAR": "Myanmar",
    "TIBETAN": "Tibetan",
    "GEORGIAN": "Georgian",
    "ARMENIAN": "Armenian",
    "ETHIOPIC": "Ethiopic",
}
SCRIPTS = ("no letters", *dict.fromkeys(NAMED.values()), OTHER)
OF_ONE_LETTER = ("Han", "Hangul")  # a letter is a word, or a syllable


def script_of(text: str) -> int:
    """Which of `SCRIPTS` most letters of a text are of, by its first thousand characters; the earlier among equals."""
    head = text[:LETTERS_LOOKED_AT]
    if head.isascii():
        return LATIN if re.search("[A-Za-z]", head) else NONE
    marks = head.translate(_MARKS)  # one call: 5 us a text, counting letter by letter 15
    found = {mark: marks.count(mark) for mark in set(marks)}
    found.pop(chr(NONE), None)
    return ord(min(found, key=lambda mark: (-found[mark], mark), default=chr(NONE)))


class _Marks(dict[int, str]):
    """Of each letter's code the script as a character, looked up once."""

    def __missing__(self, code: int) -> str:
        self[code] = chr(_of_letter(chr(code)))
        return self[code]


_MARKS = _Marks()


def _of_letter(letter: str) -> int:
    if not letter.isalpha():
        return NONE
    plain = unicodedata.normalize("NFKC", letter)[0]  # half and full width, mathematical, in a circle
    return SCRIPTS.index(NAMED.get(unicodedata.name(plain, "?").split()[0], OTHER))


def pieces_of(script: str, vocabulary: Iterable[str]) -> int:
    """How many pieces of a tokenizer's vocabulary are of this script, single letters of alphabets left out."""
    least = 1 if script in OF_ONE_LETTER else 2
    wanted = SCRIPTS.index(script)
    return sum(script_of(piece) == wanted and sum(map(str.isalpha, piece)) >= least for piece in vocabulary)
