"""The endpoint over real HTTP: answers, adapters, errors, limits, protocols, clients."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import ROOT, run
from serving import Reply, Server, serving
from tiny import make_adapter, save_base

import raylora
from raylora.cluster.serve.keys import make
from raylora.config import parse

pytestmark = pytest.mark.e2e

HEAD = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
TEXTS = ["Arrived a day early.", "It broke after a week and nobody answers the phone.", "Fine", "Works well."]


def assert_answers(reply: Reply, folder: Path, texts: list[str]) -> None:
    """The reply is what the adapter says in process, best label first."""
    assert reply.status == 200, reply.text
    expected = raylora.load(folder).predict(texts)
    assert len(reply.json) == len(texts)
    for row, prediction in zip(reply.json, expected, strict=True):
        assert [entry["label"] for entry in row] == list(prediction.scores)
        assert np.allclose([entry["score"] for entry in row], list(prediction.scores.values()), rtol=0, atol=1e-5)


def test_answers_equal_those_in_process(server: Server, adapters: Path) -> None:
    assert_answers(server.predict(TEXTS), adapters / "demo", TEXTS)
    assert_answers(server.predict("Fine"), adapters / "demo", ["Fine"])
    assert_answers(server.predict("Fine", path="/"), adapters / "demo", ["Fine"])


def test_an_adapter_is_chosen_by_path_parameter_or_header(server: Server, adapters: Path) -> None:
    assert_answers(server.predict(TEXTS, "/adapters/topics/predict"), adapters / "topics", TEXTS)
    by_parameter = server.predict(TEXTS, adapter="topics")
    assert_answers(by_parameter, adapters / "topics", TEXTS)
    assert (by_parameter.headers["x-adapter"], by_parameter.headers["x-adapter-version"]) == ("topics", "1")
    header = {"serve_multiplexed_model_id": "topics"}
    assert_answers(server.ask("POST", "/predict", {"inputs": TEXTS}, header), adapters / "topics", TEXTS)


def test_an_adapter_of_the_root_is_served_by_its_folders_name(server: Server, adapters: Path) -> None:
    assert_answers(server.predict(TEXTS, "/adapters/three/predict"), adapters / "three", TEXTS)
    listed = {each["name"]: each for each in server.ask("GET", "/adapters").json["adapters"]}
    assert {"demo", "topics", "three"} <= listed.keys()
    assert listed["three"]["labels"] == ["a", "b", "c"]
    assert [each["name"] for each in server.ask("GET", "/adapters?prefix=t&limit=1").json["adapters"]] == ["topics"]


def test_a_crowd_on_many_adapters_gets_each_its_own_answers(server: Server, adapters: Path) -> None:
    expected = {name: raylora.load(adapters / name).predict(TEXTS) for name in ("demo", "topics", "three")}

    def ask(number: int) -> None:
        name = list(expected)[number % 3]
        chosen = [(number + i) % 4 for i in range(1 + number % 4)]
        reply = server.predict([TEXTS[i] for i in chosen], f"/adapters/{name}/predict")
        assert reply.status == 200, reply.text
        for i, row in zip(chosen, reply.json, strict=True):
            assert row[0]["label"] == expected[name][i].label
            assert row[0]["score"] == pytest.approx(expected[name][i].score, abs=1e-5)

    with ThreadPoolExecutor(16) as crowd:
        list(crowd.map(ask, range(200)))


def test_parameters_change_the_answers_form(server: Server, adapters: Path) -> None:
    top = server.predict("Fine", adapter="topics", top_k=2).json[0]
    assert len(top) == 2
    logits = raylora.load(adapters / "topics").logits(["Fine"])[0]
    plain = server.predict("Fine", adapter="topics", function_to_apply="none").json[0]
    assert [each["score"] for each in plain] == pytest.approx(sorted(logits.tolist(), reverse=True), abs=1e-5)


def test_huggingfaces_own_client_works(server: Server, adapters: Path) -> None:
    expected = raylora.load(adapters / "demo").predict(["Arrived a day early."])[0]
    for url in (server.url, f"{server.url}/predict", f"{server.url}/adapters/demo/predict"):
        # in a process of its own: these tests run with the hub switched off
        client = [sys.executable, "-c", CLIENT, url, "Arrived a day early."]
        result = subprocess.run(client, env={**os.environ, "HF_HUB_OFFLINE": "0"}, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        label, score = json.loads(result.stdout)
        assert (label, score) == (expected.label, pytest.approx(expected.score, abs=1e-5))


def test_kserve_v2_clients_work(server: Server, adapters: Path) -> None:
    assert server.ask("GET", "/v2/health/live").status == server.ask("GET", "/v2/health/ready").status == 200
    about = server.ask("GET", "/v2/models/topics").json
    assert (about["name"], about["outputs"][2]["shape"]) == ("topics", [-1, 4])
    assert server.ask("GET", "/v2/models/topics/ready").status == 200
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS[:2]}
    reply = server.ask("POST", "/v2/models/topics/infer", {"id": "7", "inputs": [tensor]}).json
    expected = raylora.load(adapters / "topics").predict(TEXTS[:2])
    outputs = {each["name"]: each["data"] for each in reply["outputs"]}
    assert (reply["id"], reply["model_version"], outputs["label"]) == ("7", "1", [each.label for each in expected])
    assert outputs["score"] == pytest.approx([each.score for each in expected], abs=1e-5)
    assert len(outputs["scores"]) == 8
    pair = {"name": "text", "shape": [1, 2], "datatype": "BYTES", "data": [["a", "b"]]}
    assert server.ask("POST", "/v2/models/demo/infer", {"inputs": [pair]}).status == 200
    wrong = server.ask("POST", "/v2/models/demo/infer", {"inputs": [{**tensor, "shape": [3]}]})
    assert (wrong.status, "2 texts" in wrong.json["error"]["message"]) == (422, True)
    assert server.ask("GET", "/v2/models/nobody").status == 404


def test_pairs_of_texts_are_answered(server: Server, adapters: Path) -> None:
    expected = raylora.load(adapters / "demo").predict([("Is it good?", "It is.")])[0]
    row = server.predict([["Is it good?", "It is."]]).json[0]
    assert (row[0]["label"], row[0]["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-5))


CLIENT = """
import json, sys
from huggingface_hub import InferenceClient
found = InferenceClient(model=sys.argv[1]).text_classification(sys.argv[2], top_k=1)
print(json.dumps([found[0].label, found[0].score]))
"""
BIG = b'{"inputs": "' + b"x" * (10 * 2**20) + b'"}'
BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "not JSON": (b"{inputs: }", 400),
    "not UTF-8": (b'{"inputs": "\xff\xfe"}', 400),
    "a number": (b"3", 422),
    "no inputs": (b"{}", 422),
    "inputs of a wrong type": (b'{"inputs": 5}', 422),
    "no input": (b'{"inputs": []}', 422),
    "blank": (b'{"inputs": "  "}', 422),
    "a blank one": (b'{"inputs": ["a", ""]}', 422),
    "a triple": (b'{"inputs": [["a", "b", "c"]]}', 422),
    "texts and pairs": (b'{"inputs": ["a", ["b", "c"]]}', 422),
    "NaN": (b'{"inputs": NaN}', 422),
    "top_k NaN": (b'{"inputs": "a", "parameters": {"top_k": NaN}}', 422),
    "top_k 0": (b'{"inputs": "a", "parameters": {"top_k": 0}}', 422),
    "unknown key": (b'{"inputs": "a", "parameter": {}}', 422),
    "unknown function": (b'{"inputs": "a", "parameters": {"function_to_apply": "tanh"}}', 422),
    "half a surrogate pair": (b'{"inputs": "\\ud800"}', 422),
    "deep": (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "10 MB": (BIG, 413),
    "10,000 inputs": (json.dumps({"inputs": ["a"] * 10_000}).encode(), 413),
    "a text of 1 MB": (json.dumps({"inputs": "x" * 1_000_000}).encode(), 413),
    "unknown adapter": (b'{"inputs": "a", "parameters": {"adapter": "nobody"}}', 404),
    "a path as adapter": (b'{"inputs": "a", "parameters": {"adapter": "../../etc/passwd"}}', 404),
    "half a pair as adapter": (b'{"inputs": "a", "parameters": {"adapter": "\\ud800"}}', 404),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_gets_its_reason_and_harms_nobody(name: str, server: Server) -> None:
    body, status = BAD_BODIES[name]
    reply = server.ask("POST", "/predict", body)
    assert reply.status == status, reply.text
    assert reply.json["error"].keys() == {"type", "message"}
    assert reply.json["error"]["message"]
    assert server.predict("Fine").status == 200


def test_odd_but_sound_texts_are_answered(server: Server) -> None:
    for text in ("a\x00b", "中文", "🙂" * 50, "\u202e reversed", "x " * 9000):
        assert server.predict(text).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("POST", "/adapters/nobody/predict", 404),
        ("POST", "/adapters/..%2f..%2fetc%2fpasswd/predict", 404),
        ("POST", "/adapters/%2e%2e/predict", 404),
        ("DELETE", "/adapters/nobody", 404),
        ("DELETE", "/adapters/three", 422),
        ("POST", "/adapters/nobody/default", 404),
        ("POST", "/adapters/nobody/rollback", 404),
        ("GET", "/adapters?limit=0", 422),
    ],
)
def test_a_wrong_call_gets_its_status(method: str, path: str, status: int, server: Server) -> None:
    reply = server.ask(method, path, {"inputs": "a"} if method == "POST" else None)
    assert reply.status == status, reply.text
    assert reply.json["error"]["message"]


def test_a_body_that_is_not_told_to_be_json_is_named(server: Server) -> None:
    for headers, word in (({"content-type": "text/plain"}, "found text/plain"), ({"content-encoding": "gzip"}, "gzip")):
        reply = server.ask("POST", "/predict", {"inputs": "a"}, headers)
        assert (reply.status, reply.json["error"]["type"]) == (415, "unsupported_media_type")
        assert word in reply.json["error"]["message"]


def test_an_unknown_key_is_answered_with_the_known_ones(server: Server) -> None:
    def message(method: str, path: str, body: object) -> str:
        reply = server.ask(method, path, body)
        assert reply.status == 422, reply.text
        return reply.json["error"]["message"]

    said = message("POST", "/predict", {"input": "a"})
    assert said == "unknown key 'input'; did you mean 'inputs'? The keys are inputs, parameters."
    said = message("POST", "/predict", {"inputs": "a", "parameters": {"topk": 1}})
    assert said.startswith("unknown key 'topk'; did you mean 'top_k'? The keys of `parameters` are top_k, function")
    said = message("PUT", "/adapters/x", {"path": "/a", "weight": 0.5})
    assert said == "unknown key 'weight'. The keys are path, traffic."


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/info", "/metrics", "/adapters", "/docs", "/v2", "/v2/models/demo"]
)
def test_head_is_answered_wherever_get_is(path: str, server: Server) -> None:
    got, head = server.ask("GET", path), server.ask("HEAD", path)
    assert (got.status, head.status, head.text) == (200, 200, "")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_a_foreign_page_changes_nothing(server: Server, adapters: Path) -> None:
    put = {"path": str(adapters / "demo")}
    refused = server.ask("PUT", "/adapters/x", put, {"origin": "https://evil.example"})
    assert (refused.status, "`serve.api_keys`" in refused.json["error"]["message"]) == (401, True)
    assert server.predict("Fine", "/adapters/x/predict").status == 404


def test_an_unknown_adapter_is_answered_with_a_close_one(server: Server) -> None:
    assert "did you mean 'topics'" in server.predict("Fine", adapter="topic").json["error"]["message"]


def test_a_request_keeps_its_id(server: Server) -> None:
    given = server.ask("POST", "/predict", {"inputs": "a"}, {"x-request-id": "abc-123"})
    assert given.headers["x-request-id"] == "abc-123"
    assert len(server.predict("a").headers["x-request-id"]) >= 16


def test_the_state_of_the_endpoint_is_told(server: Server) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
    info = server.ask("GET", "/info").json
    assert (info["dtype"], info["default"], info["limits"]["max_inputs"]) == ("float32", "demo", 256)
    server.predict(TEXTS, adapter="topics")
    text = server.ask("GET", "/metrics").text
    counted = "requests_total inputs_total request_seconds_bucket queue_seconds_bucket batch_rows_bucket tokens_total"
    for name in counted.split():
        assert f"raylora_{name}" in text
    assert 'raylora_inputs_total{adapter="topics"' in text
    assert 'raylora_adapter_seconds_count{adapter="topics"' in text
    paths = server.ask("GET", "/openapi.json").json["paths"]
    assert {"/predict", "/adapters/{name}", "/v2/models/{name}/infer"} <= paths.keys()
    docs = server.ask("GET", "/docs").text
    assert "http://" not in docs.replace(server.url, "") and "https://" not in docs
    assert server.ask("GET", "/docs/static/swagger-ui-bundle.js").status == 200
    page = server.ask("GET", "/")
    assert (page.status, "default-src 'none'" in page.headers["content-security-policy"]) == (200, True)


def test_a_slow_sender_holds_up_nobody(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(HEAD.format(500).encode() + b"{")
        start = time.monotonic()
        assert server.predict("Fine").status == 200
        assert time.monotonic() - start < 5


def test_a_caller_who_leaves_harms_nobody(server: Server) -> None:
    body = json.dumps({"inputs": ["word " * 100] * 200}).encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as leaver:
            leaver.sendall(HEAD.format(len(body)).encode() + body)
    assert server.predict("Fine").status == 200
    until = time.monotonic() + 30
    while server.ask("GET", "/info").json["ongoing_tokens"]:
        assert time.monotonic() < until
        time.sleep(0.2)


def test_swap_canary_rollback_and_drop_lose_no_request_and_answer_right(server: Server, adapters: Path) -> None:
    expected = {name: raylora.load(adapters / name).predict(["Fine"])[0] for name in ("demo", "topics", "three")}
    labels = {prediction.label: name for name, prediction in expected.items()}
    path = str(adapters / "demo")
    assert server.ask("PUT", "/adapters/swapped", {"path": path}).json == {"name": "swapped", "version": "1"}
    seen: list[tuple[int, str, str]] = []
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            reply = server.predict("Fine", "/adapters/swapped/predict")
            version = reply.headers.get("x-adapter-version", "")
            seen.append((reply.status, version, labels.get(reply.json[0][0]["label"], "?")))

    callers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        put = server.ask("PUT", "/adapters/swapped", {"path": str(adapters / "topics")})
        assert put.json["version"] == "2"
        assert server.predict("Fine", "/adapters/swapped/predict").headers["x-adapter-version"] == "2"
        canary = server.ask("PUT", "/adapters/swapped", {"path": str(adapters / "three"), "traffic": 0.3})
        assert canary.json["version"] == "3"
        until, enough = time.monotonic() + 60, len(seen) + 80  # a busy machine answers a few a second
        while len(seen) < enough and time.monotonic() < until:
            time.sleep(0.1)
        names = [each["name"] for each in server.ask("GET", "/adapters").json["adapters"]]
        assert names == ["demo", "swapped", "topics", "careful", "moods", "pairs", "stars", "three"], (
            "the table's in order, whatever was changed last; the root's"
        )
        listed = {each["name"]: each for each in server.ask("GET", "/adapters").json["adapters"]}["swapped"]
        assert (listed["version"], listed["canary"]) == ("2", {"version": "3", "traffic": 0.3})
        assert server.ask("POST", "/adapters/swapped/rollback").json["version"] == "2"
        assert server.ask("POST", "/adapters/swapped/rollback").json["version"] == "1"
        time.sleep(0.5)
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert {status for status, _, _ in seen} == {200}
    assert {(version, name) for _, version, name in seen} == {("1", "demo"), ("2", "topics"), ("3", "three")}
    versions = [version for _, version, _ in seen]
    share = versions.count("3") / (versions.count("3") + sum(v == "2" for v in versions[versions.index("3") :]))
    assert 0.1 < share < 0.6
    assert server.ask("DELETE", "/adapters/swapped").status == 200
    assert server.predict("Fine", "/adapters/swapped/predict").status == 404


def test_another_default_can_be_promoted(server: Server, adapters: Path) -> None:
    assert server.ask("POST", "/adapters/topics/default").json == {"default": "topics"}
    try:
        assert_answers(server.predict(TEXTS), adapters / "topics", TEXTS)
    finally:
        assert server.ask("POST", "/adapters/demo/default").status == 200


def test_what_cannot_be_put_is_refused_and_changes_nothing(
    server: Server, adapters: Path, tmp_path: Path, bases: Callable[[str], Path]
) -> None:
    def put(name: str, **body: object) -> Reply:
        return server.ask("PUT", f"/adapters/{name}", body)

    outside = put("x", path=str(tmp_path))
    assert (outside.status, "must be inside" in outside.json["error"]["message"]) == (422, True)
    assert put("x", path="/etc/passwd").status == 422
    assert put("x", path=f"{adapters}/../../etc").status == 422
    assert put("x", path=str(adapters / "nobody")).status == 422
    assert put("x", path=str(adapters / "demo"), traffic=0.5).status == 422
    assert put("x", path=str(adapters / "demo"), traffic=1.5).status == 422
    assert put("-x", path=str(adapters / "demo")).status == 422
    assert put("x").status == 422
    save_base("bert", tmp_path / "other", hidden_size=16)
    foreign = adapters / "foreign"
    try:
        make_adapter(tmp_path / "other", foreign, ("a", "b"))
        refused = put("x", path=str(foreign))
        assert (refused.status, "One endpoint serves one base model" in refused.text) == (422, True)
        spoilt = server.predict("Fine", "/adapters/foreign/predict")
        assert (spoilt.status, spoilt.json["error"]["type"], spoilt.headers["retry-after"]) == (503, "not_ready", "2")
    finally:
        shutil.rmtree(foreign)
    assert "x" not in {each["name"] for each in server.ask("GET", "/adapters").json["adapters"]}
    assert server.predict("Fine").status == 200


def test_the_config_for_serve_deploy_builds_the_same_endpoint(adapters: Path) -> None:
    words = [f"serve.adapters.demo={adapters / 'demo'}", "serve.port=8765", "serve.host=0.0.0.0"]
    printed = yaml.safe_load(run("raylora", "serve", *words, "--print-config").stdout)
    assert printed["http_options"] == {"host": "0.0.0.0", "port": 8765}
    app = printed["applications"][0]
    assert (app["name"], app["import_path"]) == ("serve", "raylora.cluster.serve.endpoint:build")
    assert app["args"]["serve"]["adapters"] == {"demo": str(adapters / "demo")}


def test_the_shipped_serve_config_is_one_that_ray_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    tree = yaml.safe_load((ROOT / "jobs" / "serve.yaml").read_text())
    app = ServeDeploySchema(**tree).applications[0]
    assert parse(app.args).serve.adapter_root == "/mnt/adapters"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to serve: set serve.adapters.NAME=PATH"),
        (["serve.adapters.x=gone"], "gone is not there"),
        (["serve.adapter_root=.", "serve.api_keys=gone"], "`serve.api_keys`: no file"),
        (["serve.adapter_root=.", "serve.port=0"], "serve.port: must be greater than or equal to 1"),
        (["serve.adapters.x=y", "serve.default=z"], "`default` must be one of `adapters`"),
        (["serve.adapter_root=.", "serve.autoscaling_config={min: 1}"], "`autoscaling_config` has no min"),
    ],
)
def test_an_endpoint_that_cannot_be_ends_with_its_reason(words: list[str], message: str, tmp_path: Path) -> None:
    result = run("raylora", "serve", *words, cwd=tmp_path)
    assert (result.returncode, message in result.stderr) == (2, True), result.stderr


@pytest.mark.slow
def test_two_endpoints_on_one_machine_never_answer_for_each_other(
    server: Server, adapters: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with serving(f"serve.adapters.only={adapters / 'topics'}", folder=tmp_path) as other:
            replicas = {other.ask("GET", "/info").json["replica"] for _ in range(20)}
            assert server.ask("GET", "/info").json["replica"] not in replicas
            assert_answers(other.predict(TEXTS), adapters / "topics", TEXTS)
            assert_answers(server.predict(TEXTS), adapters / "demo", TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["its process group", "itself"])
def test_a_sigterm_frees_the_port_and_ends_without_a_word_of_rays(to: str, adapters: Path, tmp_path: Path) -> None:
    with serving(f"serve.adapters.only={adapters / 'demo'}", folder=tmp_path, own_group=True) as server:
        while "Ctrl-C ends it" not in (tmp_path / "serve.log").read_text():  # ready a moment before it says so
            time.sleep(0.1)
        kill = os.kill if to == "itself" else os.killpg
        kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(60) == 0
    until = time.monotonic() + 10
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", server.port))
            break
        assert time.monotonic() < until, "something listens on the port still"
        time.sleep(0.1)
    log = (tmp_path / "serve.log").read_text()
    assert log.splitlines()[-1] == "ending"
    assert "\x1b" not in log and "existing Serve app" not in log, log


@pytest.mark.slow
def test_keys_limits_and_the_table_outlive_a_restart(adapters: Path, tmp_path: Path) -> None:
    predict, admin = make("predict"), make("admin")
    (tmp_path / "keys").write_text(f"{predict.line}\n{admin.line}\n")
    words = [
        f"serve.adapters.only={adapters / 'demo'}",
        "serve.api_keys=keys",
        "serve.cors_origins=[http://shop.example]",
        "serve.max_queued_requests=2",
    ]
    by = {name: {"authorization": f"Bearer {key}"} for name, key in (("predict", predict.key), ("admin", admin.key))}
    with serving(*words, folder=tmp_path) as server:
        assert server.ask("GET", "/health").status == server.ask("GET", "/").status == 200
        for path in ("/adapters", "/metrics", "/info"):
            assert server.ask("GET", path).status == 401
        assert server.predict("Fine").json["error"]["type"] == "unauthorized"
        wrong = {"authorization": "Bearer rl-wrong"}
        assert server.ask("POST", "/predict", {"inputs": "a"}, wrong).status == 401
        assert_answers(server.ask("POST", "/predict", {"inputs": TEXTS}, by["predict"]), adapters / "demo", TEXTS)
        put = {"path": str(adapters / "topics")}
        assert server.ask("PUT", "/adapters/only", put, by["predict"]).status == 401
        assert server.ask("PUT", "/adapters/only", put, by["admin"]).json["version"] == "2"
        asked = {"origin": "http://shop.example", "access-control-request-method": "POST"}
        allowed = server.ask("OPTIONS", "/predict", None, asked)
        assert allowed.headers["access-control-allow-origin"] == "http://shop.example"
        statuses: list[Reply] = []

        def flood(_: int) -> None:
            statuses.append(server.ask("POST", "/predict", {"inputs": ["word " * 120] * 200}, by["predict"]))

        with ThreadPoolExecutor(12) as crowd:
            list(crowd.map(flood, range(12)))
        refused = [reply for reply in statuses if reply.status == 429]
        assert refused and {reply.status for reply in statuses} == {200, 429}
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        assert refused[0].json["error"]["type"] == "overload"
    log = (tmp_path / "serve.log").read_text()
    assert predict.key not in log and admin.key not in log
    with serving(*words, f"serve.adapter_root={tmp_path / 'runs'}", folder=tmp_path) as server:
        reply = server.ask("POST", "/predict", {"inputs": TEXTS}, by["predict"])
        assert_answers(reply, adapters / "topics", TEXTS)
        assert reply.headers["x-adapter-version"] == "2"
        listed = server.ask("GET", "/adapters", headers=by["predict"]).json["adapters"]
        assert [each["name"] for each in listed] == ["only"]  # not the endpoint's own folder among the runs
