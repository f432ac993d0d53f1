"""Files of many formats in one job, and rows from a Python program, through Ray Data and Ray Train."""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tiny import tiny_job

import raylora
from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.prepare import PART_BYTES, prepare
from raylora.cluster.data.sources import list_sources
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import DataError
from raylora.model.base.load import load_tokenizer
from raylora.model.tokens import tokenizer_spec

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

Row = dict[str, str]


def as_csv(rows: list[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["label", "text"], delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def lay_mixed(root: Path, rows: list[Row]) -> list[str]:
    """A tenth of the rows in each of ten formats; the addresses of a job on them all."""
    import datasets

    tenth = [rows[i::10] for i in range(10)]
    many = root / "many"
    (many / "deep").mkdir(parents=True)
    (many / "a.csv").write_bytes(as_csv(tenth[0]).encode("utf-16"))
    (many / "b.csv.gz").write_bytes(gzip.compress(as_csv(tenth[1]).encode()))
    (many / "c.jsonl.bz2").write_bytes(bz2.compress(as_jsonl(tenth[2]).encode()))
    (many / "d.jsonl").write_text("\ufeff" + as_jsonl(tenth[3]), encoding="utf-8")
    (many / "e.json").write_text(json.dumps({name: [row[name] for row in tenth[4]] for name in ("text", "label")}))
    (many / "deep" / "part-0.json").write_text(as_jsonl(tenth[5]))
    pq.write_table(pa.Table.from_pylist(tenth[6]), many / "deep" / "f.parquet")
    pa.feather.write_feather(pa.Table.from_pylist(tenth[7]), str(many / "deep" / "g.feather"), chunksize=4)
    datasets.Dataset.from_list(tenth[8]).class_encode_column("label").save_to_disk(str(root / "saved"))
    for i, row in enumerate(tenth[9]):
        (root / "texts" / row["label"]).mkdir(parents=True, exist_ok=True)
        (root / "texts" / row["label"] / f"{i}.txt").write_text(row["text"], encoding="utf-8")
    return [f"{many}/**/*", str(root / "saved"), str(root / "texts")]


@pytest.fixture
def load(bases: Callable[[str], Path]) -> Callable[..., Dataset]:
    spec = tokenizer_spec(load_tokenizer(str(bases("bert"))), 64)

    def dataset(part_bytes: int = PART_BYTES, **data: Any) -> Dataset:
        job = Job().replace({f"data.{key}": value for key, value in data.items()})
        return prepare(job, list_sources(job.data), spec, part_bytes)

    return dataset


def test_ten_formats_in_one_job_are_the_rows_of_one_file(
    load: Callable[..., Dataset], reviews: list[Row], tmp_path: Path
) -> None:
    rows = reviews[:200]
    (tmp_path / "one.jsonl").write_text(as_jsonl(rows))
    mixed = lay_mixed(tmp_path, rows)
    one = load(train=str(tmp_path / "one.jsonl"))
    for part_bytes in (PART_BYTES, 500):
        many = load(part_bytes, train=mixed)
        assert many.facts["fingerprint"] == one.facts["fingerprint"]
        assert many.facts["rows"] == one.facts["rows"]


def test_a_bad_row_of_any_format_is_named_by_its_place(
    load: Callable[..., Dataset], reviews: list[Row], tmp_path: Path
) -> None:
    lay_mixed(tmp_path, reviews[:100])
    many, texts = tmp_path / "many", tmp_path / "texts"
    (many / "b.csv.gz").write_bytes(gzip.compress(as_csv([*reviews[:3], {"text": " ", "label": "x"}]).encode()))
    pa.feather.write_feather(
        pa.table({"text": [*"abcdef", None], "label": ["negative"] * 7}), str(many / "deep" / "g.feather")
    )
    (texts / "positive" / "0.txt").write_bytes(b"\xe9")
    skipped = load(200, train=[f"{many}/**/*", str(texts)], on_bad_row="skip")
    assert [(row["place"].removeprefix(f"{tmp_path}/"), row["reason"][:22]) for row in skipped.bad_rows] == [
        ("many/b.csv.gz, line 5", "'text' is blank"),
        ("many/deep/g.feather, row 7", "'text' is null"),
        ("texts/positive/0.txt", "'text' is not UTF-8: b"),
    ]


def settings(job: Job) -> dict[str, Any]:
    """What differs from the default, as `raylora.train` takes it."""
    ours, default = jobfile.flatten(job.model_dump()), jobfile.flatten(Job().model_dump())
    return {key: value for key, value in ours.items() if value != default.get(key)}


def test_rows_of_a_program_train_as_their_file_does(
    bases: Callable[[str], Path], reviews: list[Row], tmp_path: Path
) -> None:
    """Of Ray Data, tested by those of pandas; the run's own config repeats it."""
    import ray

    keys = settings(tiny_job(bases("bert"), storage_path=str(tmp_path / "runs"), data__text_column="said"))
    rows = [{"said": row["text"], "label": row["label"], "id": i} for i, row in enumerate(reviews[:94])]
    said: list[str] = []
    data = ray.data.from_items(rows, override_num_blocks=4)
    result = raylora.train(data, keys | {"run_name": "rows"}, test=pd.DataFrame(rows[:31]), say=said.append)
    assert result.labels == ("negative", "positive")
    assert result.test
    assert result.test.rows == 31
    assert any(line.startswith("rows ") for line in said)
    written = jobfile.read([f"{result.folder_uri}/config.yaml"], {})
    lines = Path(str(written.data.train)).read_text(encoding="utf-8-sig").splitlines()
    assert [json.loads(line) for line in lines] == [{"said": r["said"], "label": r["label"]} for r in rows], "in order"
    again = raylora.train(None, {"run_name": "again"}, config=f"{result.folder_uri}/config.yaml")
    assert again.metrics["data"] == result.metrics["data"]
    rows[40]["said"] = " "
    with pytest.raises(
        DataError, match=r"1 of 94 rows cannot be used:\n .*/data/train-\w+\.jsonl, line 41: 'said' is blank"
    ):
        raylora.train(rows, keys | {"run_name": "bad"})
