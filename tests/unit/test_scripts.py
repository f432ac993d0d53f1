"""In which script a text is written."""

import pytest

from raylora.scripts import SCRIPTS, pieces_of, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("good", "Latin"),
        ("trés naïve ŵ", "Latin"),
        ("ＦＵＬＬ ｗｉｄｔｈ é", "Latin"),
        ("𝗯𝗼𝗹𝗱", "Latin"),
        ("очень хорошо, OK", "Cyrillic"),
        ("πολύ καλό", "Greek"),
        ("很好", "Han"),
        ("とてもよいテスト", "Kana"),
        ("ﾃｽﾄ", "Kana"),
        ("아주 좋아요", "Hangul"),
        ("बहुत अच्छा", "Devanagari"),
        ("ดีมาก", "Thai"),
        ("ᚠᚢᚦ", "other"),
        ("123 !? 😀", "no letters"),
        ("", "no letters"),
    ],
)
def test_a_text_is_in_the_script_of_most_of_its_letters(text: str, script: str) -> None:
    assert SCRIPTS[script_of(text)] == script


def test_between_equally_many_letters_the_earlier_script_is_named() -> None:
    assert script_of("ab бв") == script_of("бв ab") == SCRIPTS.index("Latin")


def test_the_first_thousand_characters_decide() -> None:
    assert SCRIPTS[script_of("я" * 1000 + "a" * 5000)] == "Cyrillic"


def test_single_letters_of_an_alphabet_are_no_words_of_a_vocabulary() -> None:
    pieces = ["я", "##да", "нет", "yes", "好", "", "12"]
    assert pieces_of("Cyrillic", pieces) == 2
    assert pieces_of("Han", pieces) == 1
    assert pieces_of("Greek", pieces) == 0
