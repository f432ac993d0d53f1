"""A first config for a data file: its columns are found out, and it reads back to a job on that file."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylora.cluster.data.find import find_files
from raylora.cluster.data.folders import SPLIT_WORDS
from raylora.cluster.data.guess import guess_label, guess_text, read_columns, write_config
from raylora.config import file as jobfile
from raylora.errors import ConfigError, DataError

ROWS = [{"id": i, "Review": f"a rather long text number {i}", "Sentiment": ("bad", "good")[i % 2]} for i in range(8)]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def save(folder: Path, ending: str, rows: list[dict[str, Any]] = ROWS) -> str:
    path = folder / f"data{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    if ending == ".json":
        return write(path, json.dumps(rows))
    if ending == ".jsonl":
        return write(path, "\n\n".join(json.dumps(row) for row in rows))
    comma = {".csv": ";", ".tsv": "\t"}[ending]
    return write(
        path, "\ufeff" + "".join(comma.join(map(str, row)) + "\n" for row in [rows[0], *[r.values() for r in rows]])
    )


def test_a_column_may_end_in_a_hard_space(tmp_path: Path) -> None:
    rows = [{"text\xa0": f"good {i}", "label": str(i % 2)} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path = write_config(str(tmp_path / "rows.jsonl"), str(tmp_path / "job.yaml"))
    assert jobfile.read([str(path)], {}).data.text_column == "text\xa0"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_a_written_config_is_a_job_on_the_file(tmp_path: Path, ending: str) -> None:
    data = save(tmp_path, ending)
    path = write_config(data, str(tmp_path / "job.yaml"))
    job = jobfile.read([str(path)], {})
    changes = {"data.train": data, "data.text_column": "Review", "data.label_column": "Sentiment"}
    assert job == jobfile.read([], {}).replace(changes)
    head = path.read_text(encoding="utf-8").splitlines()[:2]
    assert head[0].endswith("Columns found: id, Review, Sentiment.")
    assert head[1] == "# Text: 'Review'. Label: 'Sentiment', with 2 values in the first rows: bad, good."


def test_without_an_output_the_config_is_named_after_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(tmp_path, ".jsonl")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert write_config(data, None) == Path("data.yaml")
    assert (tmp_path / "here" / "data.yaml").is_file()


def test_a_config_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    there = write(tmp_path / "job.yaml", "seed: 1\n")
    with pytest.raises(ConfigError, match=r"job\.yaml is there already"):
        write_config(save(tmp_path, ".jsonl"), there)
    assert Path(there).read_text(encoding="utf-8") == "seed: 1\n"


def test_a_column_name_of_yamls_own_characters_is_quoted(tmp_path: Path) -> None:
    rows = [{"#1: it's": "a rather long text", "no": str(i % 2)} for i in range(4)]
    path = write_config(save(tmp_path, ".jsonl", rows), str(tmp_path / "job.yaml"))
    data = jobfile.read([str(path)], {}).data
    assert (data.text_column, data.label_column) == ("#1: it's", "no")


def test_a_well_known_name_beats_the_longest_text() -> None:
    assert guess_text("f", {"url": ["x" * 99], "Body": ["short"]}) == "Body"
    assert guess_text("f", {"body": ["short"], "text": ["short"]}) == "text"


def test_a_well_known_name_without_strings_is_not_the_text() -> None:
    assert guess_text("f", {"text": [1, 2], "said": ["a", "b"]}) == "said"


def test_the_longest_strings_are_the_text() -> None:
    assert guess_text("f", {"a": ["xx", "xxxx"], "b": ["xxxx", "xxx"], "c": [10**9]}) == "b"


def test_a_well_known_name_beats_the_fewest_values() -> None:
    columns = {"said": ["a", "b", "c", "d"], "flag": [0, 0, 1, 1], " Intent ": ["p", "q", "r", "s"]}
    assert guess_label("f", columns, "said") == " Intent "


def test_the_fewest_values_but_more_than_one_are_the_label() -> None:
    columns = {"said": ["a", "a", "b", "b"], "constant": [1] * 4, "id": [1, 2, 3, 4], "kind": ["x", "y", "x", "y"]}
    assert guess_label("f", columns, "said") == "kind"


def test_no_column_that_could_be_text_or_label_is_an_error() -> None:
    with pytest.raises(DataError, match=r"f has no column of texts\. Columns found: a, b\."):
        guess_text("f", {"a": [1], "b": [None]})
    with pytest.raises(DataError, match="Columns found: none"):
        guess_text("f", {})
    with pytest.raises(DataError, match=r"f has no column that could be a label\. Columns found: said, id\."):
        guess_label("f", {"said": ["a", "b"], "id": [1, 2]}, "said")


def test_columns_are_those_of_the_first_thousand_rows(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(1500)]
    for ending in (".jsonl", ".json", ".parquet"):
        columns = read_columns(save(tmp_path, ending, rows))
        assert columns.keys() == {"text", "label"}
        assert columns["text"][0] == "t0"
        assert {len(values) for values in columns.values()} <= {500, 1000}


def test_the_columns_of_a_folder_are_those_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are sorted by label hold one label each."""
    (tmp_path / "parts").mkdir()
    for label in ("bad", "good"):
        save(tmp_path / "parts", ".jsonl", [row for row in ROWS if row["Sentiment"] == label])
        (tmp_path / "parts" / "data.jsonl").rename(tmp_path / "parts" / f"{label}.jsonl")
    for name, content in (("_SUCCESS", ""), ("a.csv", ""), ("dataset_info.json", "{}")):
        write(tmp_path / "parts" / name, content)
    monkeypatch.chdir(tmp_path)
    for data in ("parts", "parts/", "parts/*", f"file://{tmp_path}/parts"):
        columns = read_columns(data)
        assert set(columns["Sentiment"]) == {"bad", "good"}
        assert len(columns["Review"]) == len(columns["id"]) == 8
        path = write_config(data, None)
        assert path == Path("parts.yaml" if "*" not in data else "data.yaml")
        assert jobfile.read([str(path)], {}).data.train == data
        path.unlink()


def test_the_columns_of_a_hub_dataset_are_not_guessed() -> None:
    with pytest.raises(DataError, match=r"hf://org/name is on the hub.*data\.text_column"):
        read_columns("hf://org/name")


def test_rows_that_do_not_fit_the_header_are_passed_over(tmp_path: Path) -> None:
    columns = read_columns(write(tmp_path / "a.csv", "text,label\na,x\nb\nc,y,z\n\nd,w\n"))
    assert columns == {"text": ["a", "d"], "label": ["x", "w"]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", "is empty"),
        ("a.json", "[{", "is not JSON"),
        ("a.jsonl", "{", "cannot be read as jsonl"),
        ("a.parquet", "text,label", "is not readable as parquet"),
        ("a.dat", "text", "the ending '.dat' tells no format"),
        ("a.csv", "text,label\n", "holds no rows: only a header"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_and_leaves_no_config(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        write_config(write(tmp_path / name, content), str(tmp_path / "job.yaml"))
    assert not (tmp_path / "job.yaml").exists()


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(DataError, match=r"gone\.csv is not there \(looked in /"):
        read_columns("gone.csv")


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("dirty/reviews_other_columns.csv", "Review", "Sentiment"),
        ("raw_formats/banking77_test.csv", "text", "category"),
        ("raw_formats/davidson_labeled_data.csv", "tweet", "class"),
        ("raw_formats/sst2_dev.tsv", "sentence", "label"),
        ("raw_formats/sms_spam_kaggle_layout.csv", "v2", "v1"),
        ("sst2_sentences/train.parquet", "text", "label"),
    ],
)
def test_the_columns_of_real_files_are_found_out(real_data: Path, name: str, text: str, label: str) -> None:
    columns = read_columns(str(real_data / name))
    assert guess_text(name, columns) == text
    assert guess_label(name, columns, text) == label


def test_columns_named_as_pairs_are_a_pair(tmp_path: Path) -> None:
    rows = [{"id": i, "Text_A": "a text", "text_b": "another", "label": i % 2} for i in range(4)]
    path = write_config(save(tmp_path, ".jsonl", rows), str(tmp_path / "job.yaml"))
    data = jobfile.read([str(path)], {}).data
    assert (data.text_column, data.text_pair_column) == ("Text_A", "text_b")
    head = path.read_text(encoding="utf-8").splitlines()
    assert head[1].startswith("# Text: 'Text_A', in pairs with 'text_b'. Label: 'label'")
    assert head[2] == "# Not used: id."


def test_a_folder_with_a_file_a_split_is_named_for_each(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train-00000-of-00001", "dev", "test", "notes"):
        save(folder, ".jsonl")
        (folder / "data.jsonl").rename(folder / f"{name}.jsonl")
    data = jobfile.read([str(write_config(str(folder), str(tmp_path / "job.yaml")))], {}).data
    assert (data.train, data.validation, data.test) == (str(folder),) * 3
    files = {split: [Path(f.path).name for f in find_files(str(folder), split=split)] for split in SPLIT_WORDS}
    assert files == {
        "train": ["train-00000-of-00001.jsonl"],
        "validation": ["dev.jsonl"],
        "test": ["test.jsonl"],
    }


def test_what_is_set_already_is_not_guessed(tmp_path: Path) -> None:
    there = write(tmp_path / "SMSSpamCollection", "label\ttext\nham\tHello you\nspam\tWin now\n" * 1)
    wished = jobfile.read(["data.format=tsv", "lora.r=4", "data.label_column=text"], {})
    job = jobfile.read([str(write_config(there, str(tmp_path / "job.yaml"), wished))], {})
    assert (job.data.format, job.lora.r, job.data.label_column) == ("tsv", 4, "text")


def test_a_header_alone_holds_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv holds no rows: only a header, text, label\."):
        write_config(write(tmp_path / "a.csv", "text,label\n"), None)


def test_a_header_that_is_a_row_is_taken_for_one(tmp_path: Path) -> None:
    there = write(
        tmp_path / "a.csv", "7,a fine thing,good\n8,not so,bad\n9,very,good\n10,no,bad\n11,so so,bad\n12,ok,good\n"
    )
    path = write_config(there, str(tmp_path / "job.yaml"))
    data = jobfile.read([str(path)], {}).data
    assert data.columns == ["column_0", "text", "label"]
    assert (data.text_column, data.label_column) == ("text", "label")
    told = "# The first line is taken for a row, and the columns are named column_0, text, label."
    assert told in path.read_text(encoding="utf-8").splitlines()
    assert read_columns(there, data)["text"][0] == "a fine thing"
