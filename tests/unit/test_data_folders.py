"""Folders as tools leave them: saved datasets, Spark's parts, a folder per split, a folder per class of texts."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datafiles import AWKWARD, pairs, read_path, rows_of

from raylora.cluster.data.find import splits_there
from raylora.cluster.data.guess import read_columns, write_config
from raylora.cluster.data.parts import cut
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.cluster.storage.filesystem import locate
from raylora.config import DataSection
from raylora.config import file as jobfile
from raylora.errors import DataError


def lay(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def found(root: Path, **data: Any) -> dict[str, list[str]]:
    """Names of the files of each split."""
    sources = list_sources(DataSection(**data))
    return {
        split: [Path(source.path).relative_to(root).as_posix() for source in sources if source.split == split]
        for split in dict.fromkeys(source.split for source in sources)
    }


ROW = "text,label\na,x\n"


# ---- datasets


def saved(texts: list[str], numbers: list[int]) -> Any:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    return datasets.Dataset.from_dict({"text": texts, "label": numbers}, features=features)


def test_a_saved_dataset_is_read_with_the_names_of_its_labels(tmp_path: Path) -> None:
    dataset = saved(AWKWARD, [i % 2 for i in range(len(AWKWARD))])
    dataset.save_to_disk(str(tmp_path / "set"), num_shards=3)
    expected = [(text, ("no", "yes")[i % 2]) for i, text in enumerate(AWKWARD)]
    for where in (str(tmp_path / "set"), f"file://{tmp_path}/set", str(tmp_path / "set" / "*.arrow")):
        assert pairs(read_path(where)) == expected
    assert read_columns(str(tmp_path / "set"))["label"][:2] == ["no", "yes"]
    assert [row.label for row in read_path(tmp_path / "set", labels=["0", "1"])[:2]] == ["0", "1"]


def test_a_cache_beside_a_saved_dataset_is_no_data(tmp_path: Path) -> None:
    import datasets

    saved(["a", "b"], [0, 1]).save_to_disk(str(tmp_path / "set"))
    datasets.load_from_disk(str(tmp_path / "set")).map(lambda row: {"text": row["text"] * 2})
    assert list((tmp_path / "set").glob("cache-*.arrow"))
    assert pairs(read_path(tmp_path / "set")) == [("a", "no"), ("b", "yes")]


def test_a_saved_dataset_that_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    saved(["a", "b"], [0, 1]).save_to_disk(str(tmp_path / "set"), num_shards=2)
    (tmp_path / "set" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(
        DataError, match=r"set is not a whole dataset of save_to_disk: its state\.json names data-00001"
    ):
        read_path(tmp_path / "set")


def test_the_splits_of_a_saved_dict_are_taken_by_their_keys(tmp_path: Path) -> None:
    import datasets

    splits = {"train": saved(["a", "b"], [0, 1]), "valid": saved(["c"], [1]), "test": saved(["d"], [0])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
    where = str(tmp_path / "set")
    section = DataSection(train=where, validation=where, test=where)
    rows = {s.split: pairs(rows_of(s, section)) for s in list_sources(section)}
    assert rows == {"train": [("a", "no"), ("b", "yes")], "validation": [("c", "yes")], "test": [("d", "no")]}
    data = jobfile.read([str(write_config(where, str(tmp_path / "job.yaml")))], {}).data
    assert (data.train, data.validation, data.test) == (where,) * 3


def aside(root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in splits_there(str(root)).aside]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["train.csv", "test.csv", "more.csv", "train_test.csv", "_old.csv", "notes.txt"],
            ["more.csv", "train_test.csv"],
        ),
        (["train/a.csv", "dev/a.csv", "more/a.csv", "empty/README", ".git/a.csv"], ["more"]),
        (["train.csv", "more.csv"], []),
        (["train/a.csv", "more/a.csv"], []),
        (["pos/1.txt", "neg/1.txt"], []),
    ],
)
def test_data_that_is_named_for_no_split_beside_such_that_is_is_left_aside(
    tmp_path: Path, names: list[str], expected: list[str]
) -> None:
    lay(tmp_path, dict.fromkeys(names, ROW))
    assert aside(tmp_path) == expected


def test_a_split_of_a_saved_dict_that_is_none_of_ours_is_left_aside(tmp_path: Path) -> None:
    import datasets

    splits = {"train": saved(["a", "b"], [0, 1]), "unsupervised": saved(["c"], [1])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path))
    assert aside(tmp_path) == ["unsupervised"]


def test_a_split_that_a_saved_dict_lacks_is_named(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict({"train": saved(["a", "b"], [0, 1])}).save_to_disk(str(tmp_path / "set"))
    assert len(read_path(tmp_path / "set")) == 2
    with pytest.raises(DataError, match=r"set holds files of train, none of test: data-00000-of-00001\.arrow"):
        list_sources(DataSection(test=str(tmp_path / "set")))


def test_lists_of_class_labels_carry_their_names(tmp_path: Path) -> None:
    """What a list as a label means is the task's to say."""
    import datasets

    inner = datasets.ClassLabel(names=["joy", "fear"])
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(inner)})
    datasets.Dataset.from_dict({"text": ["a"], "label": [[1, 0]]}, features=features).save_to_disk(str(tmp_path / "s"))
    (row,) = read_path(tmp_path / "s")
    assert "['fear', 'joy']" in (row.fault or row.label)


# ---- Spark, pandas


@pytest.mark.parametrize(
    ("names", "content", "data"),
    [
        (["part-00000-1f.c000.csv", "part-00001-1f.c000.csv"], ROW, {}),
        (["part-00000-1f.csv.gz", "part-00001-1f.csv.gz"], gzip.compress(ROW.encode()), {}),
        (["part-00000-1f.json", "part-00001-1f.json"], '{"text":"a","label":"x"}\n{"text":"a","label":"x"}\n', {}),
        (["part-00000.txt", "part-00001.txt"], "x\ta\n", {"columns": ["label", "text"]}),
        (["part-00000", "part-00001"], "a;x\n", {"format": "csv", "columns": ["text", "label"]}),
    ],
)
def test_the_parts_that_spark_wrote_are_the_table(
    tmp_path: Path, names: list[str], content: str | bytes, data: dict[str, Any]
) -> None:
    side = {
        "_SUCCESS": "",
        f".{names[0]}.crc": "crc",
        "_started_12": "{}",
        "_committed_12": "{}",
        "_temporary/0/x.csv": ROW,
    }
    lay(tmp_path / "out", {**dict.fromkeys(names, content), **side})
    assert found(tmp_path, train=str(tmp_path / "out"), **data) == {"train": [f"out/{name}" for name in names]}
    assert set(pairs(read_path(tmp_path / "out", **data))) == {("a", "x")}


# ---- a file or folder per split


def test_a_folder_per_split_is_taken_by_its_name(tmp_path: Path) -> None:
    names = ["train/b.csv", "train/a.csv", "dev/a.jsonl", "test/x.csv", "docs/readme.md", "_logs/train/x.csv"]
    lay(tmp_path, dict.fromkeys(names, ROW))
    (tmp_path / "dev/a.jsonl").write_text('{"text": "a", "label": "x"}\n')
    where = str(tmp_path)
    assert found(tmp_path, train=where, validation=where, test=where) == {
        "train": ["train/a.csv", "train/b.csv"],
        "validation": ["dev/a.jsonl"],
        "test": ["test/x.csv"],
    }
    data = jobfile.read(
        [str(write_config(where, str(tmp_path / "job.yaml"), jobfile.read(["data.label_column=label"], {})))], {}
    ).data
    assert (data.validation, data.test) == (where, where)


# ---- texts by class


TEXTS = [text for text in AWKWARD if "\0" not in text] + ["a first line\nand nul \0 below"]


def lay_texts(root: Path) -> Path:
    lay(root, {f"pos/{i}_9.txt": text for i, text in enumerate(TEXTS)})
    return lay(
        root, {"neg/0_1.txt": "bad", "neg/10_1.txt": "worse", "neg/.DS_Store": "", "README": "a note", "urls.txt": "x"}
    )


def test_a_folder_per_class_of_texts_is_a_row_a_file(tmp_path: Path) -> None:
    lay_texts(tmp_path / "reviews")
    section = DataSection(train=str(tmp_path / "reviews"))
    sources = list_sources(section)
    assert [(s.name, s.format, len(s.members)) for s in sources] == [("neg", "text", 2), ("pos", "text", len(TEXTS))]
    rows = pairs(read_path(tmp_path / "reviews"))
    assert rows[:2] == [("bad", "neg"), ("worse", "neg")]
    assert sorted(text for text, label in rows if label == "pos") == sorted(TEXTS)
    assert sources[0].place(2) == str(tmp_path / "reviews" / "neg" / "10_1.txt")
    for part_bytes in (1, 60):
        parts = [(s, part) for s in sources for part in cut(s, section, part_bytes)]
        assert len(parts) > 2
        assert pairs([row for s, part in parts for row in read_rows(s, section, part)]) == rows


def test_texts_by_class_and_split_are_read_as_published(tmp_path: Path) -> None:
    """As aclImdb is laid."""
    for split in ("train", "test"):
        lay(tmp_path / split, {"pos/0_9.txt": f"good {split}", "neg/0_1.txt": "bad", "labeledBow.feat": "9 0:9"})
    lay(tmp_path, {"README": "x", "imdb.vocab": "the", "imdbEr.txt": "0.1"})
    where = str(tmp_path)
    assert found(tmp_path, train=where, test=where) == {
        "train": ["train/neg", "train/pos"],
        "test": ["test/neg", "test/pos"],
    }
    assert pairs(read_path(tmp_path / "train")) == [("bad", "neg"), ("good train", "pos")]
    data = jobfile.read([str(write_config(where, str(tmp_path / "job.yaml")))], {}).data
    assert (data.train, data.validation, data.test) == (where, None, where)


def test_texts_without_an_ending_and_compressed_ones_are_texts(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"sci.space/60151": "moon", "alt.atheism/49960": "god", "alt.atheism/5.txt.gz": gzip.compress(b"packed")},
    )
    assert pairs(read_path(tmp_path)) == [("god", "alt.atheism"), ("packed", "alt.atheism"), ("moon", "sci.space")]


def test_a_bad_text_is_named_by_its_file(tmp_path: Path) -> None:
    odd = {"a/4.txt": gzip.compress(b"x"), "a/5.txt": b"\0\1\2"}
    lay(tmp_path, {"a/1.txt": " \n", "a/2.txt": b"caf\xe9", "a/3.txt": "fine", "b/1.txt": "ok", **odd})
    section = DataSection(train=str(tmp_path))
    faults = [(s.place(row.place), row.fault or "") for s in list_sources(section) for row in read_rows(s, section)]
    assert [(Path(place).name, fault[:22]) for place, fault in faults if fault] == [
        ("1.txt", "'text' is blank"),
        ("2.txt", "'text' is not UTF-8: b"),
        ("4.txt", "is compressed (gzip). "),
        ("5.txt", "is binary, not text. K"),
    ]
    assert pairs(read_path(tmp_path, encoding="cp1252", on_bad_row="skip")[1:3]) == [("café", "a"), ("fine", "a")]


def test_a_list_or_glob_of_class_folders_is_read_where_the_format_is_named(tmp_path: Path) -> None:
    lay_texts(tmp_path)
    expected = pairs(read_path(tmp_path))
    assert pairs(read_path([str(tmp_path / "neg"), str(tmp_path / "pos")], format="text")) == expected
    assert sorted(pairs(read_path(f"{tmp_path}/*/*.txt", format="text"))) == sorted(expected)


def test_texts_have_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder of texts, each a row: there is no 'b' beside it"):
        read_path(lay_texts(tmp_path), text_pair_column="b")


def test_a_folder_of_one_class_or_of_tables_is_no_folder_of_texts(tmp_path: Path) -> None:
    lay(tmp_path / "one", {"pos/1.txt": "x"})
    lay(tmp_path / "tables", {"june/1.csv": ROW, "may/2.csv": ROW})
    for name in ("one", "tables"):
        with pytest.raises(DataError, match=r"holds no data file; .*Folders there: "):
            read_path(tmp_path / name)


def test_notes_beside_tables_are_no_data_and_txt_alone_is(tmp_path: Path) -> None:
    lay(tmp_path, {"both/a.csv": ROW, "both/notes.txt": "hello", "alone/a.txt": "label\ttext\nx\ta\n"})
    assert pairs(read_path(tmp_path / "both")) == [("a", "x")]
    assert pairs(read_path(tmp_path / "alone")) == [("a", "x")]
    assert pairs(read_path(tmp_path / "both" / "*")) == [("a", "x")]


# ---- mixed


def test_formats_may_be_mixed_in_one_folder(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a"], "label": ["x"]})
    lay(tmp_path, {
        "1.csv": ROW, "2.tsv": "label\ttext\nx\ta\n", "3.jsonl": '{"text": "a", "label": "x"}',
        "4.json": '{"text": ["a"], "label": ["x"]}', "5.csv.gz": gzip.compress(ROW.encode("utf-16")),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "6.parquet")
    pa.feather.write_feather(table, str(tmp_path / "7.feather"))
    assert pairs(read_path(tmp_path)) == [("a", "x")] * 7


# ---- object storage


def upload(address: str, files: dict[str, str | bytes]) -> None:
    place = locate(address)
    place.filesystem.create_dir(place.path.split("/")[0])
    for name, content in files.items():
        with place.filesystem.open_output_stream(f"{place.path}/{name}", compression=None) as stream:
            stream.write(content.encode() if isinstance(content, str) else content)


def test_object_storage_has_globs_folders_and_compressed_files(s3_address: Callable[[str], str]) -> None:
    files: dict[str, str | bytes] = {
        "in/a b.csv": ROW, "in/deep/c.csv.gz": gzip.compress(ROW.encode()), 
        "in/deep/er/d.jsonl": '{"text":"b","label":"y"}',
        "in/_logs/x.csv": ROW, "in/.hidden.csv": ROW, "in/e.csv/part-0.csv": ROW, "in/e.csv/_SUCCESS": "",
        "texts/pos/1.txt": "good", "texts/neg/1.txt": "bad", "two/train/a.csv": ROW, "two/test/b.csv": ROW,
    }  # fmt: skip
    upload(s3_address("bucket"), files)

    def names(path: str) -> list[str]:
        section = DataSection(train=s3_address(path))
        return [s.path.partition("?")[0].removeprefix("s3://bucket/") for s in list_sources(section)]

    assert names("bucket/in/*.csv") == ["in/a%20b.csv", "in/e.csv/part-0.csv"]
    assert names("bucket/in/**/*.csv*") == ["in/a%20b.csv", "in/deep/c.csv.gz", "in/e.csv/part-0.csv"]
    assert names("bucket/**/d.jsonl") == ["in/deep/er/d.jsonl"]
    assert names("bucket/in/**") == ["in/a%20b.csv", "in/deep/c.csv.gz", "in/deep/er/d.jsonl", "in/e.csv/part-0.csv"]
    assert names("bucket/in/d*p/c*.gz") == ["in/deep/c.csv.gz"]
    assert names("bucket/two") == ["two/train/a.csv"]
    assert splits_there(s3_address("bucket/two")).splits.keys() == {"train", "test"}
    elsewhere = [s3_address("bucket/in/deep"), s3_address("bucket/texts/pos/1.txt"), s3_address("bucket/no")]
    assert splits_there(elsewhere).splits == {}
    assert pairs(read_path(s3_address("bucket/texts"))) == [("bad", "neg"), ("good", "pos")]
    assert set(pairs(read_path(s3_address("bucket/in/**")))) == {("a", "x"), ("b", "y")}
    with pytest.raises(DataError, match=r"\*\.parquet.* is not there: no file matches it"):
        read_path(s3_address("bucket/in/*.parquet"))
    with pytest.raises(DataError, match="`\\*` stands in a path, not in a bucket's name"):
        read_path("s3://*/a.csv")
