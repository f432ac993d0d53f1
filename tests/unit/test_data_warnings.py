"""When each warning about data is said, in what words, and that it can be muted."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from raylora.cluster.data.facts import SplitFacts, Tokens
from raylora.cluster.data.rows import Split
from raylora.cluster.data.warn import CHECKS, warn
from raylora.config import DataSection, parse
from raylora.config.codes import CODES
from raylora.errors import ConfigError
from raylora.model.tokens import TokenizerSpec
from raylora.tasks.task import LabelCounts, NumberRange

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
LATIN = ["abc", "def"]


def spec(pieces: list[str]) -> TokenizerSpec:
    state = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="abc")).to_str()
    return TokenizerSpec(state=state, pad_id=0, pad_left=False, type_ids=False)


def split(counts: dict[str, int], **changes: Any) -> SplitFacts:
    """Of rows without a fault."""
    rows = sum(counts.values())
    facts = SplitFacts(
        files=1,
        rows=rows,
        bad_rows=0,
        empty=0,
        reasons={},
        first_bad=[],
        labels=LabelCounts(counts),
        tokens=Tokens(p50=10, p95=20, max=30, cut=0, none=0),
        scripts={"Latin": rows},
        duplicates=0,
        conflicts=0,
        in_train=0,
    )
    return replace(facts, **changes)


FINE = {"a": 50, "b": 50}


def said(
    facts: SplitFacts, heldout: SplitFacts | None = None, pieces: list[str] = LATIN, **data: Any
) -> dict[str, list[str]]:
    """Texts by code; `facts` are those of train, `heldout` of validation."""
    splits: dict[Split, SplitFacts] = {"train": facts} | ({"validation": heldout} if heldout else {})
    found: dict[str, list[str]] = {}
    for warning in warn(DataSection(**data), splits, spec(pieces)):
        found.setdefault(warning.code, []).append(warning.text)
    return found


def test_nothing_is_said_of_data_without_fault() -> None:
    assert said(split(FINE), split(FINE)) == {}


def test_unusable_rows_are_said_with_their_reasons_and_what_becomes_of_them() -> None:
    bad = split(FINE, rows=103, bad_rows=3, reasons={"'text' is null": 2, "'label' is blank": 1})
    begin = "3 of 103 train rows cannot be used: 'text' is null (2), 'label' is blank (1); "
    assert said(bad)["D001"][0].startswith(f"{begin}a run ends on them")
    assert said(bad, on_bad_row="skip") == {
        "D001": [f"{begin}they are left out, and a run lists them in bad_rows.jsonl."]
    }


def test_duplicates_are_said_from_one_percent_on() -> None:
    assert said(split({"a": 101, "b": 100}, duplicates=2)) == {}
    assert said(split({"a": 100, "b": 100}, duplicates=2), split(FINE, duplicates=5)) == {
        "D002": [
            "2 of 200 train, 5 of 100 validation rows repeat the text and label of another row: each is counted again."
        ]
    }


def test_texts_with_several_labels_are_said() -> None:
    assert said(split(FINE, conflicts=1), split(FINE, conflicts=2)) == {
        "D003": [
            "1 train text stands in rows of different labels.",
            "2 validation texts stand in rows of different labels.",
        ]
    }


def test_leaks_are_said() -> None:
    assert said(split(FINE), split(FINE, in_train=1)) == {
        "D004": ["1 of 100 validation texts are in train too: the validation scores will flatter."]
    }


def test_cut_texts_are_said_above_five_percent() -> None:
    assert said(split(FINE, tokens=Tokens(60, 128, 300, cut=5, none=0))) == {}
    assert said(split(FINE, tokens=Tokens(60, 140, 300, cut=6, none=0))) == {
        "D005": ["6 % of train texts are cut at data.max_length=128; 95 % have at most 140 tokens."]
    }


def test_rare_labels_are_said_below_ten_rows_and_lopsided_ones_from_ten_times_on() -> None:
    assert said(split({"a": 99, "b": 10})) == {}
    found = said(split({"a": 100, "b": 50, "c": 10}))
    assert list(found) == ["D008"]
    assert found["D008"][0].startswith("'a' has 100 train rows, 'c' 10: ")
    assert found["D008"][0].endswith("Set train.metric_for_best_model=f1_macro, or train.class_weights=balanced.")
    found = said(split({"a": 50, "b": 9, "c": 8}))
    assert list(found) == ["D006"]
    assert found["D006"][0].startswith("2 of 3 labels have fewer than 10 train rows") and "'c' 8, 'b' 9." in str(found)


def test_labels_that_are_missing_in_train_or_in_validation_are_said() -> None:
    more = {**FINE, "c": 20}
    assert said(split(more), split(FINE)) == {"D007": ["validation has no row of 'c': never scored."]}
    assert said(split(FINE), split(more)) == {"D007": ["train has no row of 'c': never learned."]}
    assert said(split(FINE), labels=["a", "b", "c", "d"]) == {"D007": ["train has no row of 'c', 'd': never learned."]}


def test_texts_of_which_no_token_is_left_are_said() -> None:
    assert list(said(split(FINE, tokens=Tokens(10, 20, 30, cut=0, none=1)))) == ["D009"]


def test_a_script_is_said_where_the_vocabulary_hardly_knows_it() -> None:
    mixed = split(FINE, scripts={"Latin": 98, "Cyrillic": 1, "no letters": 1})
    known = [chr(0x430 + i // 32) + chr(0x430 + i % 32) for i in range(1000)]
    assert said(mixed, pieces=["abc", *known]) == {}
    (text,) = said(mixed, pieces=["abc", *known[1:]])["D010"]
    assert text.startswith("1 % of train texts are mostly in Cyrillic letters, of which the base's vocabulary has 999 ")
    assert said(split({"a": 100, "b": 101}, scripts={"Latin": 199, "Cyrillic": 2}), pieces=LATIN) == {}


def test_files_of_a_split_that_no_key_takes_are_said(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label\na,x\n")
    assert said(split(FINE), split(FINE), train=str(tmp_path), validation=str(tmp_path)) == {
        "D011": [f"{tmp_path}/test.csv is not used: set data.test={tmp_path} to use it."]
    }
    assert said(split(FINE), train=str(tmp_path), validation=str(tmp_path), test=str(tmp_path)) == {}


def test_files_of_no_split_beside_those_of_splits_are_said(tmp_path: Path) -> None:
    for name in ("train", "test", "more", "old"):
        (tmp_path / f"{name}.csv").write_text("text,label\na,x\n")
    both = {"train": str(tmp_path), "test": str(tmp_path)}
    assert said(split(FINE), **both) == {
        "D011": [
            f"{tmp_path}/more.csv, {tmp_path}/old.csv are in no split: what else is there is named for one (test, "
            "train). To use it, name it so, or name all files in data.train."
        ]
    }
    assert said(split(FINE), **both, mute=["D011"]) == {}
    assert said(split(FINE), train=[f"{tmp_path}/train.csv", f"{tmp_path}/more.csv"]) == {}


def test_labels_that_look_alike_are_said() -> None:
    labels = ["Good", "good", "bad", "cafe\u0301", "café", "a b", "a\u00a0b", "no"]
    found = said(split(dict.fromkeys(labels, 20)))
    assert list(found) == ["D012"]
    assert set(found["D012"]) == {
        "labels 'Good' and 'good' differ by case only.",
        "labels 'cafe\\u0301' and 'caf\\xe9' look alike: they differ by their Unicode form or white space only.",
        "labels 'a b' and 'a\\xa0b' look alike: they differ by their Unicode form or white space only.",
    }


def test_nothing_of_labels_is_said_where_they_are_numbers() -> None:
    assert said(split({}, rows=100, labels=NumberRange(0.0, 2.5, 5.0), scripts={"Latin": 100})) == {}


def test_a_muted_code_is_not_said_and_the_others_are() -> None:
    odd = split({"a": 100, "b": 9}, conflicts=1)
    assert list(said(odd)) == ["D003", "D006", "D008"]
    assert list(said(odd, mute=["D003", "D008"])) == ["D006"]


def test_an_unknown_code_is_refused_with_the_one_that_was_meant() -> None:
    for typed in ("d004", "D04", "D0004"):
        with pytest.raises(ConfigError, match=rf"'{typed}', which is no code .*did you mean 'D004'\? Known: D001, "):
            parse({"data": {"mute": [typed]}})


def test_every_code_has_a_check_and_a_section_of_its_name() -> None:
    headings = re.findall(r"^## (D\d{3}) (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(headings) == {code: known.name for code, known in CODES.items()}
    assert list(CHECKS) == list(CODES)
