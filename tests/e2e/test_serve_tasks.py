"""Adapters of every task at one endpoint: HTTP, KServe's protocol, Hugging Face's client, each as in process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import Reply, Server

import raylora
from raylora.model.tokens import Text
from raylora.tasks import Prediction

pytestmark = pytest.mark.e2e

TEXTS = ["Arrived a day early.", "It broke after a week and nobody answers the phone.", "Fine", "Works well."]
PAIRS = [["Is it good?", "It is."], ["Was it late?", "No, a day early."]]
CLIENT = """
import json, sys
from huggingface_hub import InferenceClient
client = InferenceClient(model=sys.argv[1])
print(json.dumps([[[found.label, found.score] for found in client.text_classification(t)] for t in sys.argv[2:]]))
"""


def expected(adapters: Path, name: str, texts: list[Any] = TEXTS, **wish: float) -> list[Prediction]:
    given: list[Text] = [text if isinstance(text, str) else tuple(text) for text in texts]
    return raylora.load(adapters / name).predict(given, **wish)


def entries(predictions: list[Prediction], decided: bool = False) -> list[list[Any]]:
    """Label and score of all labels, or of those that are decided."""
    names = [each.labels if decided else list(each.scores) for each in predictions]
    return [[[n, pytest.approx(p.scores[n], abs=1e-5)] for n in own] for own, p in zip(names, predictions, strict=True)]


def found(reply: Reply) -> list[list[Any]]:
    assert reply.status == 200, reply.text
    return [[[entry["label"], entry["score"]] for entry in row] for row in reply.json]


def refused(reply: Reply) -> str:
    assert (reply.status, reply.json["error"]["type"]) == (422, "wrong_shape"), reply.text
    return reply.json["error"]["message"]


def test_several_labels_are_told_by_their_thresholds_or_as_the_caller_wishes(server: Server, adapters: Path) -> None:
    own = expected(adapters, "moods")
    assert found(server.predict(TEXTS, adapter="moods")) == entries(own, decided=True)
    assert {len(each.labels) for each in own} == {0, 1, 2, 3}
    assert found(server.predict(TEXTS, adapter="moods", top_k=2)) == [row[:2] for row in entries(own)]
    assert found(server.predict(TEXTS, adapter="moods", threshold=0)) == entries(own)
    lower = expected(adapters, "moods", threshold=0.4)
    assert found(server.predict(TEXTS, adapter="moods", threshold=0.4)) == entries(lower, decided=True)
    assert found(server.predict("Fine", adapter="moods", threshold=1)) == [[]]


def test_numbers_are_told_in_their_own_unit(server: Server, adapters: Path) -> None:
    own = entries(expected(adapters, "stars"))
    assert found(server.predict(TEXTS, adapter="stars")) == own
    assert found(server.predict(TEXTS, adapter="stars", function_to_apply="none", top_k=1)) == own
    (told,) = found(server.predict("Fine", adapter="stars", function_to_apply="sigmoid"))
    assert 0 < told[0][1] < 1


def test_an_unsure_answer_has_no_label(server: Server, adapters: Path) -> None:
    plain = found(server.predict(TEXTS, adapter="careful"))
    asked = found(server.predict(TEXTS, adapter="careful", min_accuracy=0.9))
    assert asked == [row if row[0][1] >= 0.6 else [[None, row[0][1]]] for row in plain]
    assert {row[0][0] is None for row in asked} == {True, False}
    said = refused(server.predict("Fine", adapter="careful", min_accuracy=0.95))
    assert said.endswith("which is 0.9 (50.0 % of texts).")


@pytest.mark.parametrize(
    ("name", "inputs", "parameters", "said"),
    [
        ("stars", "Fine", {"threshold": 0.5}, "`threshold` is of multi_label_classification"),
        ("moods", "Fine", {"min_accuracy": 0.9}, "`min_accuracy` is of single_label_classification"),
        ("demo", "Fine", {"min_accuracy": 0.9}, "promises, which is none"),
        ("moods", "Fine", {"threshold": 1.5}, "parameters.threshold: "),
        ("careful", "Fine", {"min_accuracy": 1}, "parameters.min_accuracy: "),
        ("pairs", "Fine", {}, "input 0 is a single text; this adapter was trained on pairs"),
        ("stars", PAIRS, {}, "input 0 is a pair; this adapter was trained on single texts"),
    ],
)
def test_what_an_adapter_does_not_take_is_refused(
    name: str, inputs: Any, parameters: dict[str, Any], said: str, server: Server
) -> None:
    assert said in refused(server.predict(inputs, adapter=name, **parameters))


def test_an_adapter_of_pairs_takes_pairs(server: Server, adapters: Path) -> None:
    assert found(server.predict(PAIRS, adapter="pairs")) == entries(expected(adapters, "pairs", PAIRS))
    tensor = {"name": "text", "shape": [2, 2], "datatype": "BYTES", "data": PAIRS}
    reply = server.ask("POST", "/v2/models/pairs/infer", {"inputs": [tensor]})
    assert reply.json["outputs"][0]["data"] == [each.label for each in expected(adapters, "pairs", PAIRS)]
    assert server.ask("GET", "/v2/models/pairs").json["inputs"][0]["shape"] == [-1, 2]
    single = {**tensor, "shape": [1], "data": ["Fine"]}
    assert "single text" in refused(server.ask("POST", "/v2/models/pairs/infer", {"inputs": [single]}))


def test_what_a_loaded_adapter_offers_is_listed(server: Server) -> None:
    for name in ("moods", "stars", "careful"):
        server.predict("Fine", adapter=name)
    server.predict(PAIRS, adapter="pairs")
    listed = {each["name"]: each for each in server.ask("GET", "/adapters").json["adapters"]}
    assert listed["moods"]["task"] == "multi_label_classification"
    assert listed["moods"]["thresholds"] == {"joy": 0.63, "love": 0.7, "fear": 0.6}
    assert (listed["stars"]["task"], listed["stars"]["thresholds"]) == ("regression", None)
    assert listed["careful"]["min_accuracy"] == {"0.9": 0.5}
    assert [listed[name]["pairs"] for name in ("pairs", "stars", "careful")] == [True, False, None]


def test_kserves_outputs_are_of_one_shape_for_every_task(server: Server, adapters: Path) -> None:
    tensor = {"name": "text", "shape": [4], "datatype": "BYTES", "data": TEXTS}
    for name, width in (("moods", 3), ("stars", 1), ("demo", 2)):
        own = expected(adapters, name)
        reply = server.ask("POST", f"/v2/models/{name}/infer", {"inputs": [tensor]}).json["outputs"]
        label, score, scores = reply
        assert (label["shape"], score["shape"], scores["shape"]) == ([4], [4], [4, width])
        texts = [json.dumps(each.labels) for each in own] if name == "moods" else [each.label for each in own]
        assert label["data"] == texts
        assert score["data"] == pytest.approx([each.score for each in own], abs=1e-5)
        labels = raylora.load(adapters / name).labels
        assert scores["data"] == pytest.approx([each.scores[one] for each in own for one in labels], abs=1e-5)
        assert server.ask("GET", f"/v2/models/{name}").json["outputs"][2]["shape"] == [-1, width]


def test_huggingfaces_own_client_reads_every_task(server: Server, adapters: Path) -> None:
    for name in ("moods", "stars"):
        client = [sys.executable, "-c", CLIENT, f"{server.url}/adapters/{name}/predict", *TEXTS]
        # in a process of its own: these tests run with the hub switched off
        done = subprocess.run(client, env={**os.environ, "HF_HUB_OFFLINE": "0"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == entries(expected(adapters, name), decided=True)
