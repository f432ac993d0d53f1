"""A word on the command line is what was typed where its key takes text; all else is YAML."""

from typing import Any

import pytest
from test_config_file import AWKWARD

from raylora.config import Job
from raylora.config.file import read, value_of
from raylora.config.typed import as_word, place_of
from raylora.errors import ConfigError


@pytest.mark.parametrize(
    "key", ["data.train", "storage_path", "data.text_column", "model.revision", "serve.adapters.a"]
)
@pytest.mark.parametrize("text", [t for t in AWKWARD if t not in ("", "null")])
def test_a_text_is_what_was_typed(key: str, text: str) -> None:
    if key == "data.train" and text in ("[a, b]", "[v2]"):
        pytest.skip("a list, where the key takes one")
    value = read([f"{key}={text}"], {}).serve.adapters["a"] if key == "serve.adapters.a" else read_key(key, text)
    assert value == text


def read_key(key: str, text: str) -> Any:
    return value_of(read([f"{key}={text}"], {}), key)


@pytest.mark.parametrize("text", ["[0, 1]", "[ 0 ,1 ]", "['0', \"1\"]", "[0, 1, ]"])
def test_a_list_of_texts_is_split_at_its_commas(text: str) -> None:
    assert read_key("data.labels", text) == ["0", "1"]


@pytest.mark.parametrize(
    ("typed", "items"),
    [
        (
            "[no, yes, null, NaN, 010, 12:30, 2024-01-01, 1e3]",
            ["no", "yes", "null", "NaN", "010", "12:30", "2024-01-01", "1e3"],
        ),
        ("[reviews #2.csv, @text, Q1: text, [v2] a, *]", ["reviews #2.csv", "@text", "Q1: text", "[v2] a", "*"]),
        ("['a, b', \"it's\", 'it''s', it's, \"\\u00e9\"]", ["a, b", "it's", "it's", "it's", "é"]),
        ("['tis the season, b]", ["'tis the season", "b"]),
        ("['', a]", ["", "a"]),
    ],
)
def test_an_item_of_a_list_is_what_was_typed(typed: str, items: list[str]) -> None:
    assert read_key("data.train", typed) == items


def test_a_text_or_a_list_of_texts_is_a_list_in_brackets() -> None:
    assert read_key("data.train", "[a.csv, b.csv]") == ["a.csv", "b.csv"]
    assert read_key("data.train", "[v2] reviews.csv") == "[v2] reviews.csv"
    assert read_key("serve.cors_origins", "[*]") == ["*"]
    assert read_key("lora.target_modules", "auto") == "auto"
    assert read_key("tune.metric", "loss") == "loss"


def test_nothing_and_null_are_null_where_a_key_may_be() -> None:
    assert read_key("data.train", "") is read_key("data.labels", "null") is read_key("model.revision", "null") is None
    assert read_key("data.text_column", "null") == "null"
    with pytest.raises(ConfigError, match=r"storage_path: .* found ''"):
        read(["storage_path="], {})


def test_an_empty_item_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`data.labels=\[a,,b\]`: an item of the list is empty"):
        read(["data.labels=[a,,b]"], {})


def test_where_a_key_takes_more_than_text_a_word_is_yaml() -> None:
    job = read(["tune.pack=off", "ray.num_workers=[1, 4]", "seed=010", "train.bf16=auto", "tune.mode=null"], {})
    assert (job.tune.pack, job.ray.num_workers, job.seed, job.train.bf16, job.tune.mode) == (
        "off",
        [1, 4],
        10,
        "auto",
        None,
    )
    assert read(["ray.resources_per_worker={CPU: 2}"], {}).ray.resources_per_worker == {"CPU": 2}
    assert read(["serve.adapters={a: 010, b: runs/x}"], {}).serve.adapters == {"a": "010", "b": "runs/x"}
    assert read(["tune.space={lora.r: {choice: [4, 8]}}"], {}).tune.space == {"lora.r": {"choice": [4, 8]}}
    with pytest.raises(ConfigError, match=r"`ray\.num_workers=\[q` is not valid YAML"):
        read(["ray.num_workers=[q"], {})


def test_an_unknown_key_is_told_so_whatever_its_value() -> None:
    with pytest.raises(ConfigError, match=r"data\.trian: unknown key; did you mean `data\.train`"):
        read(["data.trian=@text: [x"], {})


def test_names_of_adapters_and_resources_may_hold_dots() -> None:
    job = read(["serve.adapters.v1.2=runs/x", "ray.resources_per_worker.node:10.0.0.1=0.5"], {})
    assert job.serve.adapters == {"v1.2": "runs/x"}
    assert job.ray.resources_per_worker == {"CPU": 1, "node:10.0.0.1": 0.5}
    nested = read(["serve.ray_actor_options.runtime_env.env_vars.A=b"], {}).serve.ray_actor_options
    assert nested == {"num_cpus": 1, "runtime_env": {"env_vars": {"A": "b"}}}


def test_python_gets_python_values_and_none_is_parsed_again() -> None:
    labels = ["[a, b]", "null", " c"]
    assert Job().replace({"data.labels": labels, "data.train": "[a, b]"}).data.train == "[a, b]"
    assert Job().replace({"data.labels": labels}).data.labels == labels
    assert Job().replace({"data.labels": ["0", 1]}).data.labels == ["0", "1"]
    with pytest.raises(ConfigError, match="must be a text or a whole number"):
        Job().replace({"data.labels": ["0", 1.5]})


@pytest.mark.parametrize("text", [t for t in AWKWARD if t not in ("", "null")])
def test_what_is_to_be_typed_for_a_value_is_that_value(text: str) -> None:
    for key, value in {
        "data.text_column": text,
        "data.labels": [text, "x y"],
        "seed": 7,
        "ray.num_workers": [1, 2],
    }.items():
        kind = place_of(Job, key).kind
        assert read_key(key, as_word(value, kind)) == value


@pytest.mark.parametrize(
    "text", ["null", "[x]", " [a, b] ", "[]", "'null'", "''", "'", "'''", "'[x]'", "''[x]''", "'a'"]
)
@pytest.mark.parametrize("key", ["model.revision", "data.train"])
def test_a_text_that_looks_like_null_or_a_list_is_typed_in_quotes(key: str, text: str) -> None:
    word = as_word(text, place_of(Job, key).kind)
    assert read_key(key, word) == text
    assert as_word(None, place_of(Job, key).kind) == "null"


def test_quotes_are_taken_away_only_where_they_say_something() -> None:
    assert read_key("model.revision", "'null'") == read_key("data.train", "'null'") == "null"
    assert read_key("data.train", "'[x]'") == "[x]"
    assert read_key("model.revision", "'[x]'") == "'[x]'"
    assert read_key("data.text_column", "'null'") == "'null'"
    assert read_key("data.train", "'a'") == "'a'"
    assert read_key("model.revision", "'" * 10_001) == "'" * 10_001


def test_a_long_word_is_no_file(tmp_path: Any) -> None:
    labels = [f"label {i}" for i in range(200)]
    assert read_key("data.labels", f"[{', '.join(labels)}]") == labels
