"""Ray Data's part: one split whatever the files' order, and every bad dataset refused with its reason."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.prepare import PART_BYTES, announce, prepare, read_here, token_blocks
from raylora.cluster.data.report import report_of
from raylora.cluster.data.sources import list_sources
from raylora.cluster.storage.run_folder import RunFolder
from raylora.config import Job
from raylora.errors import DataError
from raylora.model.base.load import load_tokenizer
from raylora.model.tokens import TokenizerSpec, tokenizer_spec

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="session")
def spec(bases: Callable[[str], Path]) -> TokenizerSpec:
    return tokenizer_spec(load_tokenizer(str(bases("bert"))), 64)


def load(spec: TokenizerSpec, part_bytes: int = PART_BYTES, **data: Any) -> Dataset:
    job = Job().replace({f"data.{key}": value for key, value in data.items()})
    return prepare(job, list_sources(job.data), spec, part_bytes)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def tokens_of(dataset: Dataset, split: str) -> list[list[int]]:
    from raylora.model.collator import Collator

    table = getattr(dataset.load(), split)
    collate = Collator(table, dataset.tokenizer)
    return [collate(np.array([i]))["input_ids"][0].tolist() for i in range(len(table))]


def test_the_split_does_not_depend_on_file_or_row_order(
    spec: TokenizerSpec, reviews: list[dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    for i in range(3):
        write(tmp_path / "parts" / f"{i}.jsonl", reviews[i:60:3])
    whole = load(spec, train=write(tmp_path / "whole.jsonl", reviews[:60]))
    backwards = load(spec, train=write(tmp_path / "back.jsonl", reviews[:60][::-1]))
    parts = load(spec, train=str(tmp_path / "parts"))
    for split in ("train", "validation"):
        assert tokens_of(whole, split) == tokens_of(backwards, split) == tokens_of(parts, split)
    assert whole.facts["fingerprint"] == backwards.facts["fingerprint"] == parts.facts["fingerprint"]
    assert whole.facts["rows"]["train"]["negative"] + whole.facts["rows"]["train"]["positive"] == 48


def test_each_file_and_each_part_of_a_large_file_is_a_task(
    spec: TokenizerSpec, reviews: list[dict[str, str]], tmp_path: Path
) -> None:
    """The rows, their ids and the split are those of one task."""
    rows = reviews[:300]
    (tmp_path / "parts").mkdir()
    for i in range(100):
        write(tmp_path / "parts" / f"{i}.jsonl", rows[i::100])
    one, many = write(tmp_path / "whole.jsonl", rows), str(tmp_path / "parts")
    size = Path(one).stat().st_size
    assert tasks_of(spec, train=one) == 1
    assert tasks_of(spec, train=many) == 100
    assert size / 3500 < tasks_of(spec, part_bytes=3000, train=one) <= size / 3000 + 1
    (tmp_path / "parts" / "empty.csv").write_text("text,label\n")
    whole, files, parts = load(spec, train=one), load(spec, train=many), load(spec, part_bytes=3000, train=one)
    assert len(files.blocks) == len(parts.blocks) == 1, "small ones are joined"
    for other in (files, parts):
        assert other.facts["fingerprint"] == whole.facts["fingerprint"]
        for split, found in whole.splits.items():
            assert tokens_of(other, split) == tokens_of(whole, split)
            assert other.splits[split].targets.tolist() == found.targets.tolist()


def tasks_of(spec: TokenizerSpec, part_bytes: int = PART_BYTES, **data: Any) -> int:
    """Each leaves a block."""
    job = Job().replace({f"data.{key}": value for key, value in data.items()})
    return len(token_blocks(job, list_sources(job.data), spec, part_bytes))


def test_places_are_exact_wherever_a_file_is_cut(spec: TokenizerSpec, real_data: Path) -> None:
    path = str(real_data / "dirty" / "reviews_dirty.csv")
    assert tasks_of(spec, part_bytes=5000, train=path) > 10
    labels = ["negative", "positive"]
    whole, cut = (
        load(spec, part_bytes=size, train=path, labels=labels, on_bad_row="skip") for size in (PART_BYTES, 5000)
    )
    assert len(cut.bad_rows) == 52
    assert cut.bad_rows == whole.bad_rows
    assert cut.facts["fingerprint"] == whole.facts["fingerprint"]
    first = whole.bad_rows[0]
    with pytest.raises(DataError, match=re.escape(f"\n  {first['place']}: {first['reason']}\n")):
        load(spec, part_bytes=5000, train=path, labels=labels)


@pytest.mark.slow
def test_tasks_are_spread_over_the_nodes(tmp_path: Path) -> None:
    """In a process of its own: a cluster of three nodes, and the nodes that hold the blocks of twelve files."""
    texts = [{"text": f"{i} " + "some words " * 20, "label": i % 2} for i in range(1500)]
    for i in range(12):
        write(tmp_path / f"{i}.jsonl", texts)
    ran = subprocess.run([sys.executable, "-c", SPREAD, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-2000:]
    blocks, nodes = map(int, ran.stdout.split()[-2:])
    assert (blocks, nodes) == (12, 3)


SPREAD = """
import sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray.experimental import get_object_locations
from raylora.cluster.data.prepare import PART_BYTES, token_blocks
from raylora.cluster.data.sources import list_sources
from raylora.config import Job
from raylora.model.base.find import resolve
from raylora.model.base.load import load_tokenizer
from raylora.model.tokens import tokenizer_spec
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
job = Job().replace({"data.train": sys.argv[1]})
spec = tokenizer_spec(load_tokenizer(resolve(job.model).path), 64)
blocks = token_blocks(job, list_sources(job.data), spec, PART_BYTES)
nodes = {node for place in get_object_locations(blocks).values() for node in place["node_ids"]}
print(len(blocks), len(nodes), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def test_bad_rows_are_errors_or_skipped_with_their_places(spec: TokenizerSpec, real_data: Path) -> None:
    path = str(real_data / "dirty" / "reviews_nulls.parquet")
    with pytest.raises(DataError, match=r"18 of 300 rows cannot be used:\n  .*, row 1: 'text' is null"):
        load(spec, train=path)
    dataset = load(spec, train=path, on_bad_row="skip")
    assert len(dataset.bad_rows) == 18
    assert sum(len(r.rows) for r in dataset.splits.values()) == 282


def test_the_head_of_a_run_says_what_inspect_finds(spec: TokenizerSpec, tmp_path: Path) -> None:
    rows = [{"text": f"some text {i // 2} " + "long " * 80 * (i % 3 == 0), "label": "ab"[i % 2]} for i in range(40)]
    path = write(tmp_path / "rows.jsonl", [*rows, rows[0], {"text": "", "label": "a"}])
    settings = {"data.train": path, "data.on_bad_row": "skip", "data.max_length": 64, "data.mute": ["D002"]}
    job = Job().replace({**settings, "run_name": "first", "storage_path": str(tmp_path)})
    sources = list_sources(job.data)
    dataset = prepare(job, sources, spec)
    assert dataset.report == report_of(job.data, sources, read_here(job, sources, spec), spec)
    said: list[str] = []
    announce(dataset, RunFolder(job), said.append)
    assert [line.split()[0] for line in said] == ["rows", "tokens", "texts", "warning", "warning", "warning"]
    assert said[1].endswith("; 15 (36.6 %) cut at data.max_length=64")
    assert [line.split()[1] for line in said[3:]] == ["D001", "D003", "D005"]
    kept = json.loads((tmp_path / "first" / "data_report.json").read_text())
    assert (kept["splits"]["train"]["rows"], kept["splits"]["train"]["duplicates"]) == (42, 1)


def test_a_dirty_file_trains_on_its_good_rows(spec: TokenizerSpec, real_data: Path) -> None:
    path = str(real_data / "dirty" / "reviews_dirty.csv")
    dataset = load(spec, train=path, on_bad_row="skip", labels=["negative", "positive"])
    assert sum(len(r.rows) for r in dataset.splits.values()) >= 1000
    assert {"D001", "D003"} <= {warning.code for warning in dataset.report.warnings}


def test_leaks_and_unseen_labels_are_named(spec: TokenizerSpec, real_data: Path, tmp_path: Path) -> None:
    train, test = (str(real_data / "dirty" / f"drift_{split}.csv") for split in ("train", "test"))
    with pytest.raises(
        DataError, match=r"test holds labels that train never saw: 'mixed' \(20 rows, the first at .*line"
    ):
        load(spec, train=train, test=test)
    with pytest.raises(DataError, match="validation holds labels that train never saw: 'mixed'"):
        load(spec, train=train, validation=test)
    dataset = load(spec, train=train, test=train)
    leaks = next(warning for warning in dataset.report.warnings if warning.code == "D004")
    assert leaks.text.startswith("400 of 400 test texts are in train too")


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([("a", "x"), ("b", "x")], {}, "one label, 'x'; a classifier needs two"),
        ([("a", "x"), ("b", "x"), ("c", "y")], {}, "label 'y' has 1 row; a split needs two"),
        ([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "y")], {}, "a split needs two"),
        ([("a", "1"), ("b", "2"), ("c", "3")], {}, "looks like an id"),
        ([("a", "x"), ("b", "y")], {"labels": ["x", "y", "z"]}, "3 labels, more than the 2 rows"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(
    spec: TokenizerSpec, tmp_path: Path, rows: list[tuple[str, str]], settings: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": text, "label": label} for text, label in rows])
    with pytest.raises(DataError, match=message):
        load(spec, train=path, **settings)


def test_a_file_that_breaks_in_a_ray_task_is_one_clear_error(spec: TokenizerSpec, tmp_path: Path) -> None:
    """Only the head of the first file is read by the driver; the second breaks inside Ray Data."""
    good = write(tmp_path / "a.jsonl", [{"text": f"t{i}", "label": str(i % 2)} for i in range(8)])
    (tmp_path / "b.parquet").write_text("not a parquet file")
    for part_bytes in (PART_BYTES, 10):  # in the task that reads it, or in that which cuts it
        with pytest.raises(DataError, match=r"^/.*b\.parquet is not readable as parquet"):
            load(spec, part_bytes=part_bytes, train=[good, str(tmp_path / "b.parquet")])


def test_max_samples_keeps_the_labels_shares(spec: TokenizerSpec, tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "rare" if i % 10 == 0 else "usual"} for i in range(200)]
    dataset = load(spec, train=write(tmp_path / "rows.jsonl", rows), max_samples=50)
    counts = dataset.facts["rows"]
    assert counts["train"]["rare"] + counts["validation"]["rare"] == 5
    assert counts["train"]["usual"] + counts["validation"]["usual"] == 45


def test_int_labels_sort_as_numbers(spec: TokenizerSpec, tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": (2, 10, 1)[i % 3]} for i in range(30)]
    assert load(spec, train=write(tmp_path / "rows.jsonl", rows)).labels == ("1", "2", "10")


def test_pairs_keep_their_token_types(spec: TokenizerSpec, real_data: Path) -> None:
    path = str(real_data / "mrpc" / "validation.parquet")
    dataset = load(spec, train=path, text_column="text_a", text_pair_column="text_b")
    from raylora.model.collator import Collator

    table = dataset.load().train
    batch = Collator(table, dataset.tokenizer)(np.arange(4))
    assert set(batch["token_type_ids"].unique().tolist()) == {0, 1}
    assert len(table) + len(dataset.splits["validation"].rows) == 408
