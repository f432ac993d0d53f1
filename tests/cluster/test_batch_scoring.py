"""A table is scored once, row by row as each adapter's own predictor does, whatever is lost on the way."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import make_adapter

import raylora
from raylora.cluster.predict.inputs import list_texts
from raylora.cluster.predict.job import Scored, score
from raylora.config import Job
from raylora.tasks import Prediction

pytestmark = pytest.mark.cluster

Bases = Callable[[str], Path]
TAGS = ("joy", "love", "anger")
MANY, NUMBERS = {"problem_type": "multi_label_classification"}, {"problem_type": "regression"}
WORDS = ["the", "film", "was", "long", "and", "nobody", "asked", "for", "it", "but", "everybody", "loved", "her"]
TEXTS = [" ".join(WORDS[i % 7 : 8 + i % 5]) + f" {i}" for i in range(60)]


@pytest.fixture(scope="module")
def folder(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of each task, of pairs, and of texts in windows."""
    folder, base = tmp_path_factory.mktemp("adapters"), bases("bert")
    promise = {"min_scores": {"0.9": {"score": 0.8, "coverage": 0.5, "rows": 50, "error": 0.04}}}
    windows = {"truncation": "windows", "stride": 2, "max_windows": 4}
    make_adapter(base, folder / "label", ("no", "yes"), seed=1, facts=promise)
    make_adapter(base, folder / "tags", TAGS, seed=2, facts=MANY, lora__r=8)
    make_adapter(base, folder / "stars", ("stars",), seed=3, facts=NUMBERS)
    make_adapter(base, folder / "pair", ("same", "other"), seed=5, facts={"is_pair": True})
    make_adapter(base, folder / "windows", ("no", "yes"), seed=6, facts=windows, data__max_length=8)
    return folder


def job_of(where: Path | list[str], output: Path, **changes: Any) -> Job:
    data = [str(each) for each in where] if isinstance(where, list) else str(where)
    own = {"data": data, "output": str(output), "dtype": "float32", "part_bytes": 400, "concurrency": 2, **changes}
    return Job().replace({key if "." in key else f"predict.{key}": value for key, value in own.items()})


def run(job: Job) -> Scored:
    return score(job, list_texts(job, print), print)


def parts_of(output: Path) -> list[Path]:
    return sorted(output.glob("part-*"))


def content_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts_of(output)}


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in parts_of(output) for line in path.read_text().splitlines()]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def predicted(adapter: Path, texts: Sequence[Any], **wish: Any) -> list[Prediction]:
    return raylora.load(adapter).predict(texts, **wish)


def test_three_tasks_score_a_parquet_file_in_one_pass_as_their_own_predictors_do(
    local_ray: None, folder: Path, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "id": pa.array(range(60), pa.int16()),
            "text": TEXTS,
            "when": pa.array([1_700_000_000_123_456_789 + i for i in range(60)], pa.timestamp("ns", "UTC")),
            "seen": pa.array([[i, None] for i in range(60)], pa.list_(pa.int8())),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    adapters = {name: str(folder / name) for name in ("label", "tags", "stars")}
    output = tmp_path / "out"
    scored = run(job_of(tmp_path / "rows.parquet", output, adapters=adapters, all_scores=True))
    found = pq.read_table(output)
    assert (scored.rows, scored.bad) == (60, 0)
    assert len(parts_of(output)) > 2
    assert found.select(table.column_names).equals(table)
    rows = found.to_pylist()
    for row, label, tags, stars in zip(rows, *(predicted(Path(p), TEXTS) for p in adapters.values()), strict=True):
        assert (row["label_label"], row["tags_label"]) == (label.label, tags.label)
        assert row["tags_labels"] == list(tags.labels)
        assert row["label_score"] == pytest.approx(label.score, abs=1e-5)
        assert row["stars_value"] == pytest.approx(stars.score, abs=1e-4)
        for tag in TAGS:
            assert row[f"tags_score_{tag}"] == pytest.approx(tags.scores[tag], abs=1e-5)
    assert sum(scored.counts["label"].values()) == 60
    assert json.loads((output / "_SUCCESS").read_text())["rows"] == 60
