"""A job from YAML files and words, and back: what is written is what is read."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raylora.config import Job, keys, yaml12
from raylora.config.file import (
    changed_keys,
    commented,
    dump,
    flatten,
    name_run,
    read,
    read_saved,
    storage_path,
    value_of,
)
from raylora.errors import ConfigError

JOBS = Path(__file__).resolve().parents[2] / "jobs"
SHIPPED = sorted(path for path in JOBS.glob("*.yaml") if path.name != "serve.yaml")  # Ray Serve's own format
# fmt: off
AWKWARD = [
    "off", "on", "yes", "no", "y", "n", "Off", "NO", "true", "null", "Null", "~", "NaN", ".nan", ".inf", "1", "010",
    "0o17", "0x1F", "1_000", "1e3", "1E-3", "-0", "+.5", "12:30", "1:20:30", "2024-01-01", "2024-01-01T00:00:00Z",
    "=", "<<", "&", "*", "!", "%", "@text", "#x", "a#b", "-", "-a", "?", ":", "[v2]", "{a}", "|", ">", "'a", "\"a",
    "\\n", "", " ", "reviews #2.csv", "Q1: text", "a: b", "[a, b]", "a, b", " a", "a ", "a\nb", "\t", "\u0085",
    "\u2028", "\ufeff"
]
# fmt: on
CHANGED: dict[str, Any] = {
    "run_name": "first",
    "seed": 7,
    "data.train": ["a.csv", "with space, and: colon.csv"],
    "data.labels": [*dict.fromkeys(AWKWARD), "ünï"],
    "data.text_column": "# text: 'it'",
    "lora.layers_to_transform": [4, 5],
    "train.learning_rate": 1e-5,
    "train.bf16": False,
    "ray.num_workers": [1, 4],
    "ray.resources_per_worker": {"CPU": 2.0, "special": 0.5},
}


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_no_words_are_the_default_job() -> None:
    assert read([], {}) == Job()


def test_a_file_and_overrides_are_one_job(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "seed: 7\nlora:\n  r: 4\n  bias: all\n")
    job = read([path, "lora.r=16", "train.num_train_epochs=1"], {})
    assert (job.seed, job.lora.r, job.lora.bias, job.train.num_train_epochs) == (7, 16, "all", 1)


def test_the_later_of_two_words_wins(tmp_path: Path) -> None:
    assert read(["lora.r=4", "lora.r=16"], {}).lora.r == 16
    first, second = write(tmp_path / "a.yaml", "seed: 1\n"), write(tmp_path / "b.yaml", "seed: 2\n")
    assert read([first, second], {}).seed == 2
    assert read([second, first], {}).seed == 1


@pytest.mark.parametrize(
    ("written", "rate"), [("5e-4", 0.0005), ("1E-3", 0.001), ("2.5e-5", 2.5e-5), ("0.01", 0.01), ("+1e0", 1.0)]
)
def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path, written: str, rate: float) -> None:
    assert read([f"train.learning_rate={written}"], {}).train.learning_rate == rate
    path = write(tmp_path / "job.yaml", f"train:\n  learning_rate: {written}\n")
    assert read([path], {}).train.learning_rate == rate


def test_an_override_is_parsed_as_yaml() -> None:
    job = read(["data.train=a=b.csv", "lora.target_modules=[q, v]", "train.bf16=false", "data.labels=['0', '1']"], {})
    assert job.data.train == "a=b.csv"
    assert job.lora.target_modules == ["q", "v"]
    assert job.train.bf16 is False
    assert job.data.labels == ["0", "1"]
    assert read(["data.train=a.csv", "data.train="], {}).data.train is None


def test_an_existing_file_with_an_equals_sign_is_a_file(tmp_path: Path) -> None:
    assert read([write(tmp_path / "lr=1.yaml", "seed: 9\n")], {}).seed == 9


def test_environment_variables_expand_in_yaml_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", 'data:\n  train: ["${HERE}/a-${PART}.csv", plain.csv]\nstorage_path: $HERE\n')
    job = read([path], {"HERE": "/data", "PART": "1"})
    assert job.data.train == ["/data/a-1.csv", "plain.csv"]
    assert job.storage_path == "$HERE"


def test_a_missing_environment_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "data:\n  train: ${NOWHERE}/a.csv\n")
    with pytest.raises(ConfigError, match=r"job\.yaml: the environment has no variable NOWHERE"):
        read([path], {"HERE": "/data"})


def test_a_variable_is_looked_up_only_where_no_later_word_sets_the_key(tmp_path: Path) -> None:
    text = "data:\n  train: ${NOWHERE}/a.csv\n  labels: [a, '${GONE}']\ntune:\n  space: {model.base_model: '${GONE}'}\n"
    path = write(tmp_path / "job.yaml", text)
    later = write(tmp_path / "later.yaml", "tune:\n  space: {lora.r: 4}\n")
    job = read([path, "data.train=${HERE}.csv", later, "data.labels=[a, b]"], {})
    assert (job.data.train, job.data.labels) == ("${HERE}.csv", ["a", "b"]), "what is typed, the shell has expanded"
    with pytest.raises(ConfigError, match=r"no variable GONE, named by '\$\{GONE\}'\. Set it, or the key itself"):
        read([path, "data.train=a.csv", later], {})


def test_where_runs_are_needs_no_other_variable(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "storage_path: ${HERE}/runs\ndata:\n  train: ${NOWHERE}/a.csv\n")
    assert storage_path([path], {"HERE": "/data"}) == "/data/runs"
    with pytest.raises(ConfigError, match="no variable HERE"):
        storage_path([path], {})


def test_what_a_later_word_mends_is_no_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "lora:\n  r: 0\ntune:\n  scheduler: hyperband\n")
    job = read([path, "lora.r=4", "tune.time_budget_s=60"], {})
    assert (job.lora.r, job.tune.time_budget_s) == (4, 60)
    with pytest.raises(ConfigError, match="2 faults"):
        read([path, "tune.time_budget_s=60", "seed=-1"], {})


def test_a_text_that_looks_like_a_variable_can_be_written_and_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "data:\n  labels: ['$${A}', '$$', '$${A}${B}', '$A', '${', '$$${B}']\n")
    job = read([path], {"B": "b"})
    assert job.data.labels == ["${A}", "$$", "${A}b", "$A", "${", "$${B}"]
    for text in (dump(job), commented(job)):
        assert read([write(tmp_path / "config.yaml", text)], {}) == job
    assert read_saved(dump(job), "here") == job


def test_a_missing_file_is_told_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "distilbert.yaml", "")
    with pytest.raises(ConfigError, match=r"distilbrt\.yaml is not there\. Did you mean .*/distilbert\.yaml\?"):
        read([str(tmp_path / "distilbrt.yaml")], {})
    with pytest.raises(ConfigError, match=r"train is not there\. An override is written section\.key=value"):
        read([str(tmp_path / "train")], {})
    with pytest.raises(ConfigError, match="is a folder"):
        read([str(tmp_path)], {})
    with pytest.raises(ConfigError, match="is not there"):
        read(["x" * 300], {})


def test_a_config_may_be_json(tmp_path: Path) -> None:
    write(tmp_path / "job.json", '{"lora": {"r": 4}}')
    assert read([str(tmp_path / "job.json")], {}).lora.r == 4


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_a_config_may_be_what_json_dumps_writes(tmp_path: Path, indent: Any) -> None:
    labels = ["😀", "ünï", "a\tb", "\x7f", "\x85", "\u2028"]
    text = json.dumps({"data": {"labels": labels}, "seed": 7}, indent=indent).replace("\x7f", "\\u007f")
    job = read([write(tmp_path / "job.yaml", text)], {})
    assert (job.data.labels, job.seed) == (labels, 7)


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.labels.*UTF-8"):
        read([write(tmp_path / "job.yaml", '{"data": {"labels": ["\\ud83d", "b"]}}')], {})


def test_tabs_part_words_and_indent_nothing(tmp_path: Path) -> None:
    text = "seed:\t3\t# three\nlora: {\n\tr:\t4,\n\tbias: all\t}\ndata:\n  labels:\t[a,\tb]\n"
    job = read([write(tmp_path / "job.yaml", text)], {})
    assert (job.seed, job.lora.r, job.lora.bias, job.data.labels) == (3, 4, "all", ["a", "b"])
    for wrong in ("lora:\n\tr: 4\n", "data: {labels: [a\tb, c]}", "-\t- a"):
        with pytest.raises(ConfigError, match="not valid YAML"):
            read([write(tmp_path / "job.yaml", wrong)], {})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\u2029"])
def test_what_breaks_a_line_in_yaml_1_1_alone_is_a_character(tmp_path: Path, odd: str, encoding: str) -> None:
    text = f"data:\n  train: a {odd} b\n  text_column: 'a {odd} b'\n  label_column: \"a {odd} b\"\n"
    (tmp_path / "job.yaml").write_bytes(text.encode(encoding))
    data = read([str(tmp_path / "job.yaml")], {}).data
    assert data.train == data.text_column == data.label_column == f"a {odd} b"
    assert yaml12.load(f"[a{odd}b, 'a{odd}b', \"a{odd}b\", {odd}]", "here") == [f"a{odd}b"] * 3 + [odd]
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        yaml12.load(f"a: *b{odd}c", "here")
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("text", ["text\xa0", "\xa0text", "\u3000", "a\nb"])
def test_a_text_on_one_line_keeps_all_its_white_space(text: str) -> None:
    assert "\n" not in yaml12.inline(text)
    assert yaml12.load(yaml12.inline(text), "here") == text


def test_a_data_file_in_the_place_of_a_config_is_told_what_to_do_with_it(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "text,label\na,b\n")
    with pytest.raises(
        ConfigError, match=r"is a data file, not a config\. .*`raylora init .*reviews\.csv`, or set data"
    ):
        read([str(tmp_path / "reviews.csv")], {})


@pytest.mark.parametrize("text", ["lora: [r: 4", "lora:\n\tr: 4\n", "a: b: c"])
def test_a_file_that_is_not_yaml_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml is not valid YAML: "):
        read([write(tmp_path / "job.yaml", text)], {})


def test_an_override_that_is_not_yaml_is_an_error_that_quotes_it() -> None:
    with pytest.raises(ConfigError, match=r"`ray\.num_workers=\[q` is not valid YAML"):
        read(["ray.num_workers=[q"], {})


@pytest.mark.parametrize(("text", "found"), [("- a\n- b\n", "list"), ("text,label", "str"), ("3", "int")])
def test_a_file_without_keys_is_an_error(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f"must hold sections and keys, found {found}"):
        read([write(tmp_path / "job.yaml", text)], {})


def test_an_empty_file_and_a_section_of_comments_are_defaults(tmp_path: Path) -> None:
    assert read([write(tmp_path / "empty.yaml", "")], {}) == Job()
    assert read([write(tmp_path / "job.yaml", "run_name: null\nlora:\n  # r: 4\ntrain:\n")], {}) == Job()


def test_a_dumped_job_reads_back_to_the_same_job(tmp_path: Path) -> None:
    for job in (Job(), Job().replace(CHANGED)):
        assert read([write(tmp_path / "config.yaml", dump(job))], {}) == job


def test_a_commented_job_reads_back_to_the_same_job(tmp_path: Path) -> None:
    for job in (Job(), Job().replace(CHANGED)):
        assert read([write(tmp_path / "config.yaml", commented(job))], {}) == job


def test_a_commented_default_job_shows_every_key_commented_out() -> None:
    lines = commented(Job()).splitlines()
    for key in keys():
        name = key.rpartition(".")[2]
        assert any(line.lstrip().startswith(f"# {name}: ") for line in lines)


@pytest.mark.parametrize("text", AWKWARD)
def test_a_text_in_a_config_is_read_by_us_and_by_yaml_1_1_as_it_was(tmp_path: Path, text: str) -> None:
    """What `serve deploy` reads and Kubernetes holds goes through YAML 1.1."""
    job = Job().replace({"data.text_column": text, "serve.adapters": {"a": text}})
    assert read([write(tmp_path / "config.yaml", dump(job))], {}) == job
    assert yaml.safe_load(yaml12.dump({"key": text, "list": [text]})) == {"key": text, "list": [text]}


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x85\u2028\ufeff\n '\"#:-[]{},~0")))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    assert yaml12.load(yaml12.dump({"key": [text]}), "here") == {"key": [text]}
    assert yaml12.load(yaml12.inline([text]), "here") == [text]


@pytest.mark.parametrize(
    ("written", "value"),
    [(word, word) for word in [*AWKWARD[:8], "12:30", "1:20:30", "2024-01-01", "1_000", "0b11", "=", "<<"]]
    + [("true", True), ("False", False), ("TRUE", True), ("null", None), ("~", None), ("", None)]
    + [("010", 10), ("0o17", 15), ("0x1F", 31), ("-7", -7), ("+3", 3), ("0", 0)]
    + [("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-.inf", -math.inf), ("+1E-2", 0.01), ("'1'", "1"), ('"no"', "no")],
)
def test_yaml_is_that_of_its_version_1_2(written: str, value: Any) -> None:
    found = yaml12.load(f"key: {written}\n", "here")["key"]
    assert (type(found), found) == (type(value), value)
    assert math.isnan(yaml12.load(".NaN", "here"))


@pytest.mark.parametrize("key", ["tune.pack", "serve.merge"])
def test_off_is_a_word(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    path = write(tmp_path / "job.yaml", f"{section}:\n  {name}: off\n")
    assert value_of(read([path], {}), key) == value_of(read([f"{key}=off"], {}), key) == "off"


def test_only_true_and_false_are_booleans(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "serve:\n  int8: on\n")
    with pytest.raises(ConfigError, match=r"serve\.int8: must be true or false, found 'on'"):
        read([path], {})
    assert read(["serve.int8=true", "train.floor=False"], {}).serve.int8 is True


def test_a_text_in_a_file_is_what_stands_there(tmp_path: Path) -> None:
    text = "run_name: 20261126\ndata:\n  text_column: 0\n  labels: [1, 010, 1.0, null, NaN, no, 2024-01-01, true, ~]\n"
    text += "model:\n  revision: 12345678\nserve:\n  adapters: {7: 0x1}\nlora:\n  modules_to_save: null\n"
    job = read([write(tmp_path / "job.yaml", text)], {})
    assert (job.run_name, job.data.text_column, job.model.revision) == ("20261126", "0", "12345678")
    assert job.data.labels == ["1", "010", "1.0", "null", "NaN", "no", "2024-01-01", "true", "~"]
    assert (job.serve.adapters, job.lora.modules_to_save) == ({"7": "0x1"}, None)
    with pytest.raises(ConfigError, match=r"seed: must be a valid integer, found '42'"):
        read([write(tmp_path / "job.yaml", "seed: '42'\n")], {})
    with pytest.raises(ConfigError, match=r"data\.text_column: must be a text or a whole number, found None"):
        read([write(tmp_path / "job.yaml", "data:\n  text_column:\n")], {})


@pytest.mark.parametrize(
    "pair", ["1: /a, 1.0: /b", "1: /a, 0x1: /b", "null: /a, ~: /b", "true: /a, True: /b", "1: /a, '1': /b"]
)
def test_keys_that_are_one_are_refused(tmp_path: Path, pair: str) -> None:
    with pytest.raises(ConfigError, match=r"not valid YAML: the key '.+' stands twice"):
        read([write(tmp_path / "job.yaml", f"serve: {{adapters: {{{pair}}}}}")], {})


@pytest.mark.parametrize("text", ["lora: {r: 4}\nlora: {bias: all}\n", "lora:\n  r: 4\n  r: 8\n"])
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml is not valid YAML: the key '(lora|r)' stands twice .*line"):
        read([write(tmp_path / "job.yaml", text)], {})


def test_of_two_files_the_later_wins_key_by_key(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "lora: {r: 4, bias: all}\ntune: {space: {lora.r: {choice: [1, 2]}}}\n")
    second = write(tmp_path / "b.yaml", "lora: {r: 16}\ntune: {space: {lora.bias: none}}\n")
    job = read([first, second], {})
    assert (job.lora.r, job.lora.bias, job.tune.space) == (16, "all", {"lora.bias": "none"})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"data:\n  train: caf\xe9.csv\n", "is not valid YAML: unacceptable character #x00e9"),
        (b"a: !!int x\n", "is not valid YAML: "),
        (b"a: &a [*a]\n", "is not valid YAML: "),
        (b"a: " + b"[" * 500, "is not valid YAML: "),
        (b"a: " + b"9" * 5000, "is not valid YAML: "),
        (b"a: !!timestamp soon", "is not valid YAML: .*tag:yaml.org,2002:timestamp"),
        (b"a: !!map [a]", "is not valid YAML: expected a mapping"),
        (b"a: !!map a", "is not valid YAML: expected a mapping"),
        (b"a: !!seq {a: b}", "is not valid YAML: expected a sequence"),
        (b"a: !!set {a, b}", "is not valid YAML: .*tag:yaml.org,2002:set"),
        (b"a: !!omap [a]", "is not valid YAML: .*tag:yaml.org,2002:omap"),
        (b"a: &a {b: 1}\nc: {!!merge <<: *a}", "is not valid YAML: .*tag:yaml.org,2002:merge"),
        (b"a: {[b]: c}", "is not valid YAML: .*unhashable"),
        (b"a: \x00", "is not valid YAML: "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"job\.yaml {reason}"):
        read([str(tmp_path / "job.yaml")], {})


def test_a_config_as_windows_writes_it_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "job.yaml").write_bytes("data:\r\n  text_column: ünï\r\n".encode(encoding))
        assert read([str(tmp_path / "job.yaml")], {}).data.text_column == "ünï"


def test_every_line_of_a_commented_job_works_uncommented(tmp_path: Path) -> None:
    lines = commented(Job()).splitlines()
    for i, line in enumerate(lines):
        if line.lstrip().startswith("# "):
            changed = [*lines[:i], line.replace("# ", "", 1), *lines[i + 1 :]]
            assert read([write(tmp_path / "job.yaml", "\n".join(changed))], {}) == Job()
    text = commented(Job()).replace("  # r: 8", "  r: 16")
    assert read([write(tmp_path / "job.yaml", text)], {}).lora.r == 16


def test_a_run_keeps_its_name_or_gets_one_from_command_and_time() -> None:
    assert name_run(Job().replace({"run_name": "mine"}), "train").run_name == "mine"
    name = name_run(Job(), "train").run_name or ""
    command, day, time, _ = name.split("-")
    assert (command, len(day), len(time), (day + time).isdecimal()) == ("train", 8, 6, True)


def test_changed_keys_names_each_difference_with_both_values() -> None:
    new = Job().replace({"lora.r": 16, "seed": 7, "ray.resources_per_worker.GPU": 1})
    assert changed_keys(Job(), Job()) == []
    assert sorted(changed_keys(Job(), new)) == [
        "lora.r: 8 -> 16",
        "ray.resources_per_worker.GPU: None -> 1.0",
        "seed: 42 -> 7",
    ]


def test_flatten_joins_nested_keys_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    assert read([str(path)], {}) != Job(), "it needs no variable of ours"


def test_there_are_shipped_configs() -> None:
    assert {"distilbert.yaml", "sst2.yaml"} <= {path.name for path in SHIPPED}
