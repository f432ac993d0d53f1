"""Adapters of every task over one base: mixed in one batch, each answers as its own predictor does."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_adapter

import raylora
from raylora.cli.main import main
from raylora.cluster.serve.adapter_store import AdapterStore
from raylora.cluster.serve.http import build_app
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.service import Answer, Service
from raylora.config import Job, ModelSection
from raylora.errors import ConfigError, DataError
from raylora.model.collator import Collator
from raylora.model.lora.manifest import Manifest
from raylora.model.serving.base import ServedBase
from raylora.model.serving.engine import Engine, Limits
from raylora.model.tokens import Text, encode, table_of
from raylora.tasks import Prediction, Wish, task_of

TEXTS = ["Works well.", "It broke after a week and nobody answers.", "Fine", "Late too."]
PAIRS = [("Is it good?", "It is."), ("Was it late?", "No, a day early.")]
TAGS = ("joy", "love", "anger", "fear")


@pytest.fixture(scope="module")
def folder(bases: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of each task: `label`, `tags`, `stars` (one output), `numbers`, and `pair`."""
    folder, base = tmp_path_factory.mktemp("tasks"), bases("bert")
    many, numbers = {"problem_type": "multi_label_classification"}, {"problem_type": "regression", "is_pair": False}
    promise = {"0.9": {"score": 0.8, "coverage": 0.5, "rows": 50, "error": 0.04}}
    thresholds = dict(zip(TAGS, (0.2, 0.5, 0.7, 0.9), strict=True))
    make_adapter(base, folder / "label", ("no", "yes"), seed=1, facts={"min_scores": promise})
    make_adapter(base, folder / "tags", TAGS, seed=2, facts={**many, "thresholds": thresholds}, lora__r=8)
    make_adapter(base, folder / "stars", ("stars",), seed=3, facts=numbers)
    make_adapter(base, folder / "numbers", ("a", "b", "c"), seed=4, facts=numbers)
    make_adapter(base, folder / "pair", ("same", "other"), seed=5, facts={"is_pair": True})
    return folder


@pytest.fixture
def base(bases: Callable[[str], Path]) -> ServedBase:
    return ServedBase(ModelSection(base_model=str(bases("bert"))), torch.float32, torch.device("cpu"))


@pytest.fixture
def service(base: ServedBase, folder: Path, tmp_path: Path) -> Iterator[Service]:
    store = AdapterStore(base, 2**30, str(folder), None, merge=False, kept=str(tmp_path / "versions"))
    engine = Engine(base, Limits(2048, 10**6, 10**4), threads=None)
    yield Service(Job(), "r", store, engine, None, Meters())  # pyright: ignore[reportArgumentType] - nothing changes
    engine.close()


def ask(service: Service, name: str, texts: list[Text], wish: Wish | None = None) -> list[Prediction]:
    return asyncio.run(service.predict(name, texts, wish or Wish())).predictions


def assert_same(found: list[Prediction], expected: list[Prediction]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.label, one.labels, list(one.scores)) == (other.label, other.labels, list(other.scores))
        assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=1e-5)
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_one_batch_of_all_tasks_answers_as_each_adapter_alone(base: ServedBase, folder: Path) -> None:
    names = ["label", "stars", "tags", "numbers"]
    order = [names[i] for i in (1, 0, 2, 3, 2, 1, 0, 3)]
    loaded = {name: base.load(folder / name) for name in names}
    adapters = [loaded[name] for name in order]
    assert len({base.batch_key(adapter) for adapter in adapters}) == 1
    texts = [TEXTS[i % 4] for i in range(len(adapters))]
    table = table_of(encode(texts, adapters[0].spec))
    rows = base.logits(Collator(table, adapters[0].spec)(np.arange(len(texts))), adapters)
    alone = {name: raylora.load(folder / name) for name in names}
    for name, adapter, text, row in zip(order, adapters, texts, rows, strict=True):
        task, learned = task_of(adapter.manifest.problem_type), adapter.manifest.learned
        assert_same(task.answers(row[None], learned), alone[name].predict([text]))


def test_requests_of_all_tasks_at_one_time_get_each_its_own_answers(service: Service, folder: Path) -> None:
    names = ["label", "stars", "tags", "numbers"]

    async def together() -> list[Answer]:
        return await asyncio.gather(*(service.predict(name, TEXTS) for name in names))

    for name, found in zip(names, asyncio.run(together()), strict=True):
        assert_same(found.predictions, raylora.load(folder / name).predict(TEXTS))


def test_a_number_is_the_models_own_output(folder: Path) -> None:
    predictor = raylora.load(folder / "stars")
    logits = predictor.logits(TEXTS)
    assert logits.shape == (4, 1) and np.ptp(logits) > 0.1
    assert [each.score for each in predictor.predict(TEXTS)] == pytest.approx(logits[:, 0].tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["label", "tags", "stars", "pair"])
def test_the_model_cards_own_line_of_python_answers(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (folder / name / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("raylora.load(")]
    monkeypatch.chdir(folder)
    (prediction,) = eval(line.replace('"adapter"', f'"{name}"'), {"raylora": raylora})
    assert prediction.scores


def test_labels_are_decided_by_the_manifest_unless_the_caller_names_a_threshold(folder: Path) -> None:
    predictor = raylora.load(folder / "tags")
    own, none, every = (predictor.predict(TEXTS, threshold=t) for t in (None, 1.0, 0.0))
    for each in own:
        reached = [t for t in TAGS if each.scores[t] >= (predictor.manifest.thresholds or {})[t]]
        assert sorted(each.labels) == sorted(reached)
    assert len({each.labels for each in own}) > 1
    assert {each.labels for each in none} == {()}
    assert all(len(each.labels) == len(TAGS) for each in every)


def test_an_unsure_answer_has_no_label(folder: Path) -> None:
    predictor = raylora.load(folder / "label")
    plain, asked = predictor.predict(TEXTS), predictor.predict(TEXTS, min_accuracy=0.9)
    assert [each.label for each in asked] == [each.label if each.score >= 0.8 else None for each in plain]
    assert {each.label is None for each in asked} == {True, False}
    assert [each.score for each in asked] == [each.score for each in plain]


@pytest.mark.parametrize(
    ("name", "wish", "said"),
    [
        ("label", Wish(min_accuracy=0.99), r"which is 0\.9 \(50\.0 % of texts\)"),
        ("label", Wish(threshold=0.5), "`threshold` is of multi_label_classification"),
        ("tags", Wish(min_accuracy=0.9), "`min_accuracy` is of single_label_classification"),
        ("pair", Wish(min_accuracy=0.9), "promises, which is none"),
    ],
)
def test_what_an_adapter_does_not_offer_is_refused_with_what_it_does(
    name: str, wish: Wish, said: str, service: Service, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(service, name, ["Fine"], wish)
    with pytest.raises(ConfigError, match=said):
        raylora.load(folder / name).predict(["Fine"], threshold=wish.threshold, min_accuracy=wish.min_accuracy)


def posted(service: Service, path: str, body: Any) -> tuple[int, Any]:
    """Status and JSON that the endpoint's app answers."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    asyncio.run(build_app(service, (), open_admin=False)({**scope, "headers": headers}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def inferred(service: Service, name: str, parameters: Any) -> tuple[int, Any]:
    tensor = {"name": "text", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}
    return posted(service, f"/v2/models/{name}/infer", {"inputs": [tensor], "parameters": parameters})


def test_kserves_infer_abstains_where_predict_does(service: Service) -> None:
    _, rows = posted(service, "/adapters/label/predict", {"inputs": TEXTS, "parameters": {"min_accuracy": 0.9}})
    status, reply = inferred(service, "label", {"min_accuracy": 0.9, "binary_data_output": False})
    label, score, scores = (output["data"] for output in reply["outputs"])
    assert (status, label) == (200, [row[0]["label"] or "" for row in rows])
    assert 0 < label.count("") < len(TEXTS)
    assert score == pytest.approx([row[0]["score"] for row in rows], abs=1e-5)
    assert len(scores) == 2 * len(TEXTS)


def test_kserves_infer_takes_a_threshold_and_a_function(service: Service) -> None:
    _, rows = posted(service, "/adapters/tags/predict", {"inputs": TEXTS, "parameters": {"threshold": 0.4}})
    _, reply = inferred(service, "tags", {"threshold": 0.4})
    assert list(map(json.loads, reply["outputs"][0]["data"])) == [[each["label"] for each in row] for row in rows]
    _, plain = inferred(service, "label", {"function_to_apply": "none"})
    assert min(plain["outputs"][2]["data"]) < 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("label", {"min_accuracy": 0.99}),
        ("label", {"min_accuracy": 1}),
        ("label", {"min_accuracy": "0.9"}),
        ("tags", {"min_accuracy": 0.9}),
        ("label", {"threshold": 0.5}),
        ("tags", {"threshold": -1}),
        ("label", {"function_to_apply": "tanh"}),
        ("label", [0.9]),
    ],
)
def test_kserves_infer_refuses_what_predict_refuses_in_its_words(name: str, parameters: Any, service: Service) -> None:
    status, refused = posted(service, f"/adapters/{name}/predict", {"inputs": TEXTS, "parameters": parameters})
    assert (status, refused) == inferred(service, name, parameters)
    assert status == 422


def test_an_adapter_takes_the_texts_that_it_was_trained_on(service: Service, folder: Path) -> None:
    pair, stars = raylora.load(folder / "pair"), raylora.load(folder / "stars")
    assert_same(ask(service, "pair", list(PAIRS)), pair.predict(PAIRS))
    assert_same(ask(service, "label", list(PAIRS)), raylora.load(folder / "label").predict(PAIRS))  # does not say
    with pytest.raises(DataError, match=r"text 1 is a single text; this adapter was trained on pairs"):
        pair.predict([PAIRS[0], "Fine"])
    with pytest.raises(DataError, match=r"text 0 is a pair; this adapter was trained on single texts"):
        stars.predict(PAIRS)
    with pytest.raises(DataError, match=r"input 0 is a single text; .* takes \[text, text\]"):
        ask(service, "pair", ["Fine"])
    with pytest.raises(DataError, match="input 0 is a pair"):
        ask(service, "stars", list(PAIRS))


def test_an_old_adapter_says_by_its_config_whether_it_takes_pairs() -> None:
    def taken(**facts: object) -> bool | None:
        return Manifest(("a", "b"), "x", None, "d", 8, **facts).takes_pairs  # pyright: ignore[reportArgumentType]

    assert taken() is None
    assert taken(config={"data": {"text_pair_column": None}}) is False
    assert taken(config={"data": {"text_pair_column": "second"}}) is True
    assert taken(config={"data": {"text_pair_column": "second"}}, is_pair=False) is False
    assert taken(is_pair=True) is True


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["predict", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_command_shows_labels_numbers_and_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (stars,) = raylora.load(folder / "stars").predict(["Fine"])
    assert said(capsys, "--adapter", str(folder / "stars"), "Fine") == [f"stars {stars.score:.6g}  Fine"]
    (pair,) = raylora.load(folder / "pair").predict(PAIRS[:1])
    words = ("--pairs", "--adapter", str(folder / "pair"), *PAIRS[0])
    assert said(capsys, *words) == [f"{pair.label}  {pair.score:.4f}  {' | '.join(PAIRS[0])}"]
    assert json.loads(said(capsys, "--json", *words)[0])["text"] == list(PAIRS[0])
    tags = [json.loads(line) for line in said(capsys, "--json", "--adapter", str(folder / "tags"), *TEXTS)]
    expected = raylora.load(folder / "tags").predict(TEXTS)
    assert [(each["label"], tuple(each["labels"])) for each in tags] == [(e.label, e.labels) for e in expected]
    every = said(capsys, "--adapter", str(folder / "tags"), "--threshold", "0", "Fine")
    assert all(f"{tag} 0." in every[0] or f"{tag} 1.0000" in every[0] for tag in TAGS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min-accuracy", "0.99", "--adapter", "label", "Fine"], "which is 0.9 (50.0 % of texts)"),
        (["--adapter", "pair", "Fine"], "with --pairs"),
        (["--pairs", "--adapter", "stars", "a", "b"], "this adapter was trained on single texts"),
        (["--pairs", "--adapter", "pair", "a", "b", "c"], "--pairs takes an even number of texts, found 3"),
    ],
)
def test_the_command_refuses_what_the_adapter_does_not_offer(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["predict", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_threshold_beyond_a_share_is_a_fault_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("1.5", "nan", "half"):
        with pytest.raises(SystemExit) as end:
            main(["predict", "--threshold", word, "--adapter", "x", "Fine"])
        assert end.value.code == 2
        assert f"must be a number from 0 to 1, found '{word}'" in capsys.readouterr().err
