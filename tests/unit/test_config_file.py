"""A job from YAML files and words, and back: what is written is what is read."""

from pathlib import Path
from typing import Any

import pytest

from raylora.config import Job, keys
from raylora.config.file import changed_keys, commented, dump, flatten, name_run, read
from raylora.errors import ConfigError

JOBS = Path(__file__).resolve().parents[2] / "jobs"
SHIPPED = sorted(path for path in JOBS.glob("*.yaml") if path.name != "serve.yaml")  # Ray Serve's own format
CHANGED: dict[str, Any] = {
    "run_name": "first",
    "seed": 7,
    "data.train": ["a.csv", "with space, and: colon.csv"],
    "data.labels": ["no", "yes", "1", "1e3", "null", "ünï"],
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


def test_a_missing_file_is_told_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "distilbert.yaml", "")
    with pytest.raises(ConfigError, match=r"distilbrt\.yaml is not there\. Did you mean .*/distilbert\.yaml\?"):
        read([str(tmp_path / "distilbrt.yaml")], {})
    with pytest.raises(ConfigError, match=r"train is not there\. An override is written section\.key=value"):
        read([str(tmp_path / "train")], {})


def test_a_config_may_be_json(tmp_path: Path) -> None:
    write(tmp_path / "job.json", '{"lora": {"r": 4}}')
    assert read([str(tmp_path / "job.json")], {}).lora.r == 4


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
    with pytest.raises(ConfigError, match=r"`lora\.target_modules=\[q` is not valid YAML"):
        read(["lora.target_modules=[q"], {})


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
    job = read([str(path)], {"RAYLORA_REAL_DATA": "/data"})
    assert job != Job()
    assert "$" not in str(job.data.train)


def test_there_are_shipped_configs() -> None:
    assert {"distilbert.yaml", "sst2.yaml"} <= {path.name for path in SHIPPED}
