"""Parts of a table, scored in this process: each row keeps its columns and gets what its adapter's predictor says."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import make_adapter

import raylora
from raylora.cluster.data.parts import cut
from raylora.cluster.predict.adapters import base_for, check_wishes, take, texts_of
from raylora.cluster.predict.columns import schema_of
from raylora.cluster.predict.inputs import list_texts
from raylora.cluster.predict.output import Output
from raylora.cluster.predict.plan import PartPlan, names_of_parts
from raylora.cluster.predict.scorer import PartScorer, Work
from raylora.cluster.predict.survey import look, types_in
from raylora.config import Job
from raylora.errors import ConfigError, DataError, ModelError

Bases = Callable[[str], Path]
TAGS = ("joy", "love", "anger")
WORDS = ["the", "film", "was", "long", "and", "nobody", "asked", "for", "it", "but", "everybody", "loved", "her"]
TEXTS = [" ".join(WORDS[i % 7 : 8 + i % 5]) + f" {i}" for i in range(40)]


@pytest.fixture(scope="module")
def folder(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of each task, of pairs, and of texts in windows."""
    folder, base = tmp_path_factory.mktemp("adapters"), bases("bert")
    promise = {"min_scores": {"0.9": {"score": 0.8, "coverage": 0.5, "rows": 50, "error": 0.04}}}
    windows = {"truncation": "windows", "stride": 2, "max_windows": 4}
    learned = {"config": {"data": {"text_column": "review", "text_pair_column": None}}}
    many, numbers = {"problem_type": "multi_label_classification"}, {"problem_type": "regression"}
    make_adapter(base, folder / "label", ("no", "yes"), seed=1, facts={**promise, **learned})
    make_adapter(base, folder / "tags", TAGS, seed=2, facts=many, lora__r=8)
    make_adapter(base, folder / "stars", ("stars",), seed=3, facts=numbers)
    make_adapter(base, folder / "pair", ("same", "other"), seed=5, facts={"is_pair": True})
    make_adapter(base, folder / "windows", ("no", "yes"), seed=6, facts=windows, data__max_length=8)
    return folder


def scored_here(
    where: Path, output: Path, meanwhile: Callable[[], object] | None = None, **changes: Any
) -> list[dict[str, Any]]:
    """A table scored part by part; the marks.

    Args:
        meanwhile: is called when the table was read, and before it is scored.
    """
    job = job_of(where, output, **changes)
    sources, adapters = list_texts(job, print), take(job)
    data = texts_of(adapters, job)
    pieces = [
        look(i, source, part, data, job.predict.columns)
        for i, source in enumerate(sources)
        for part in cut(source, data, 300)
    ]
    names = names_of_parts([sources[piece.source].path for piece in pieces], job.predict.format)
    plans = [
        PartPlan(name, p.source, p.part.start, p.part.end, p.part.before, p.rows, len(p.faults))
        for name, p in zip(names, pieces, strict=True)
    ]
    work = Work(
        output=str(output),
        sources=sources,
        parts=plans,
        data=data,
        schema=schema_of(types_in(pieces)),
        adapters=adapters,
        model=base_for(adapters, job)[0],
        wish=check_wishes(adapters, job),
        format=job.predict.format,
        all_scores=job.predict.all_scores,
        batch_size=job.predict.batch_size,
        dtype="float32",
        use_gpu=False,
        threads=1,
    )
    Output(str(output)).root.make_folder()
    scorer = PartScorer(work)
    if meanwhile:
        meanwhile()
    for plan in plans:
        scorer.score(plan)
    assert len(plans) > 1
    return Output(str(output)).marks(names)


def job_of(where: Path, output: Path, **changes: Any) -> Job:
    own = {"data": str(where), "output": str(output), **changes}
    return Job().replace({key if "." in key else f"predict.{key}": value for key, value in own.items()})


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(output.glob("part-*")) for line in path.read_text().splitlines()]


def test_three_tasks_in_one_pass_score_as_their_own_predictors_do(folder: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(range(40), pa.int16()),
            "text": TEXTS,
            "when": pa.array([1_700_000_000_123_456_789 + i for i in range(40)], pa.timestamp("ns", "UTC")),
            "seen": pa.array([[i, None] for i in range(40)], pa.list_(pa.int8())),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=13)
    adapters = {name: str(folder / name) for name in ("label", "tags", "stars")}
    marks = scored_here(
        tmp_path / "rows.parquet", tmp_path / "out", adapters=adapters, all_scores=True, text_column="text"
    )
    found = pq.read_table(tmp_path / "out")
    assert found.select(table.column_names).equals(table)
    own = [raylora.load(path).predict(TEXTS) for path in adapters.values()]
    for row, label, tags, stars in zip(found.to_pylist(), *own, strict=True):
        assert (row["label_label"], row["tags_label"], row["tags_labels"]) == (
            label.label,
            tags.label,
            list(tags.labels),
        )
        assert row["label_score"] == pytest.approx(label.score, abs=1e-5)
        assert row["label_score_no"] == pytest.approx(label.scores["no"], abs=1e-5)
        assert row["stars_value"] == pytest.approx(stars.score, abs=1e-4)
        assert [row[f"tags_score_{tag}"] for tag in TAGS] == pytest.approx([tags.scores[t] for t in TAGS], abs=1e-5)
    counted = [sum(mark["counts"]["label"].get(name, 0) for mark in marks) for name in ("no", "yes")]
    assert counted == [[each.label for each in own[0]].count(name) for name in ("no", "yes")]


def test_rows_below_the_accuracy_have_no_label_and_bad_rows_are_left_out(folder: Path, tmp_path: Path) -> None:
    rows = [{"review": text, "n": i} for i, text in enumerate(TEXTS)]
    path = write_jsonl(tmp_path / "rows.jsonl", [*rows[:5], {"review": " ", "n": -1}, *rows[5:]])
    marks = scored_here(path, tmp_path / "out", adapter=str(folder / "label"), min_accuracy=0.9, format="jsonl")
    own = raylora.load(folder / "label").predict(TEXTS, min_accuracy=0.9)
    found = lines_of(tmp_path / "out")
    assert [(row["n"], row["label"]) for row in found] == [(i, each.label) for i, each in enumerate(own)]
    assert {row["label"] is None for row in found} == {True, False}
    assert [sum(mark[key] for mark in marks) for key in ("rows", "bad")] == [40, 1]
    assert sum(mark["counts"][""].get("", 0) for mark in marks) == sum(each.label is None for each in own)


def test_pairs_of_a_csv_become_a_csv(folder: Path, tmp_path: Path) -> None:
    pairs = list(zip(TEXTS[:20], TEXTS[20:], strict=True))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "label"], *([a, b, f'odd "{i}"\n'] for i, (a, b) in enumerate(pairs))])
    columns = {"text_column": "a", "text_pair_column": "b", "prefix": "said_", "format": "csv"}
    scored_here(tmp_path / "rows.csv", tmp_path / "out", adapter=str(folder / "pair"), **columns)
    found = [row for path in sorted((tmp_path / "out").glob("part-*")) for row in csv.DictReader(path.open(newline=""))]
    own = raylora.load(folder / "pair").predict(pairs)
    assert [row["said_label"] for row in found] == [each.label for each in own]
    assert [float(row["said_score"]) for row in found] == pytest.approx([each.score for each in own], abs=1e-5)
    assert [(row["a"], row["b"]) for row in found] == pairs
    assert [row["label"] for row in found] == [f'odd "{i}"\n' for i in range(20)]


def test_long_texts_are_read_in_windows(folder: Path, tmp_path: Path) -> None:
    texts = [f"{a} {b}" for a, b in zip(TEXTS[:20], TEXTS[20:], strict=True)]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    scored_here(path, tmp_path / "out", adapter=str(folder / "windows"), format="jsonl", batch_size=7)
    own = raylora.load(folder / "windows").predict(texts)
    assert [row["label"] for row in lines_of(tmp_path / "out")] == [each.label for each in own]
    scores = [row["score"] for row in lines_of(tmp_path / "out")]
    assert scores == pytest.approx([each.score for each in own], abs=1e-5)


def test_a_file_that_changed_since_it_was_read_is_an_error(folder: Path, tmp_path: Path) -> None:
    rows = [{"review": text} for text in TEXTS]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows\.jsonl changed while it was read"):
        scored_here(path, tmp_path / "out", lambda: write_jsonl(path, rows[:-3]), adapter=str(folder / "label"))


def test_the_texts_are_those_that_the_adapter_learned_from_unless_the_config_names_others(folder: Path) -> None:
    def columns(name: str, **changes: Any) -> tuple[str, str | None]:
        job = job_of(Path("a.csv"), Path("out"), adapter=str(folder / name), **changes)
        data = texts_of(take(job), job)
        return data.text_column, data.text_pair_column

    assert columns("label") == ("review", None)
    assert columns("label", **{"data.text_column": "body"}) == ("body", None)
    assert columns("label", text_column="text", **{"data.text_column": "body"}) == ("text", None)
    assert columns("tags") == ("text", None)
    assert columns("pair", **{"data.text_pair_column": "b"}) == ("text", "b")
    with pytest.raises(ConfigError, match="takes pairs of texts"):
        columns("pair")
    with pytest.raises(ConfigError, match="takes single texts, and a pair column is set, 'b'"):
        columns("label", text_pair_column="b")


def test_adapters_that_cannot_be_are_refused_in_the_driver(folder: Path, bases: Bases, tmp_path: Path) -> None:
    def taken(path: Path, **changes: Any) -> None:
        job = job_of(Path("a.csv"), Path("out"), adapters={"a": str(folder / "label"), "b": str(path)}, **changes)
        base_for(take(job), job)

    with pytest.raises(ModelError, match=r"adapter 'b' was trained on .*roberta with weights"):
        taken(make_adapter(bases("roberta"), tmp_path / "roberta", ("a", "b")))
    broken = make_adapter(bases("bert"), tmp_path / "broken", ("a", "b"))
    weights = (broken / "adapter_model.safetensors").read_bytes()
    (broken / "adapter_model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(ModelError, match="is broken"):
        taken(broken)
    (broken / "adapter_model.safetensors").write_bytes(weights)
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer can be loaded"):
        taken(broken)
    with pytest.raises(ModelError, match="nowhere is not there"):
        taken(tmp_path / "nowhere")
    job = job_of(Path("a.csv"), Path("out"), adapter=str(folder / "tags"), min_accuracy=0.9)
    with pytest.raises(ConfigError, match="`min_accuracy` is of single_label_classification"):
        check_wishes(take(job), job)
