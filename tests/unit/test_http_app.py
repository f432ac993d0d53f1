"""The HTTP side of an endpoint with its routes, called as a web server calls it; what it changes is noted down."""

import asyncio
import gc
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from starlette.types import Message

from raylora.cluster.serve import keys
from raylora.cluster.serve.http import build_app
from raylora.cluster.serve.keys import HashedKey
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.middleware import role_of
from raylora.cluster.serve.table import Entry, Outcome, Table, Version
from raylora.config import Job

PREDICT, ADMIN = keys.make("predict"), keys.make("admin")
KNOWN = keys.read("env:KEYS", {"KEYS": f"{PREDICT.line}\n{ADMIN.line}"})
PREDICTS = {"/", "/predict", "/adapters/{name}/predict", "/v2/models/{name}/infer"}
READ = {"GET", "HEAD", "OPTIONS"}
INFER = "/v2/models/x/infer"


class Endpoint:
    """An app over a service that does nothing; `done` holds what it was told to change."""

    def __init__(self, known: Sequence[HashedKey] = (), open_admin: bool = True) -> None:
        self.done: list[Any] = []
        entry = Entry(Version(2, "/x", "d" * 64), previous=Version(1, "/x", "e" * 64))

        async def change(*what: Any) -> Outcome:
            self.done.append(what)
            return Outcome(entry)

        service: Any = SimpleNamespace(
            settings=Job().serve,
            meters=Meters(),
            store=SimpleNamespace(table=Table(1, None, {"x": entry})),
            changes=SimpleNamespace(drop=change),
            check_name=lambda name: None,  # pyright: ignore[reportUnknownLambdaType]
            put=change,
            promote=change,
            rollback=change,
        )
        self.app: FastAPI = build_app(service, known, open_admin)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        """Status and body; `path` as it stands in an address."""
        named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }
        asyncio.run(self.app(scope, receive, send))
        return sent[0]["status"], sent[1]["body"].decode()

    def message(self, path: str, body: Any) -> str:
        """What a wrong body is told."""
        status, text = self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
        assert status == 422, text
        return json.loads(text)["error"]["message"]


def changing_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every call but those that read or predict, by the app's own description."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    calls = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [(method, path) for method, path in calls if method not in READ and path not in PREDICTS]


def spellings(path: str) -> Iterator[str]:
    yield path
    for ending in ("%0A", "%0D", "%0D%0A", "%00", "%7F", "%C2%85", "%E2%80%A8", "%20", "/", "//", "/%0A", "/.", "/%2e"):
        yield path + ending
    yield from ("/" + path, "/." + path, "/%2e" + path, "/predict/.." + path, path.upper(), path.replace("/", "%2F"))
    yield from (path.replace("x", name) for name in ("%2e", "x%0A", "predict", "x%2Fpredict"))
    yield path.replace("/x", "//x")


def test_the_calls_that_change_something_are_these() -> None:
    assert sorted(changing_routes(Endpoint().app)) == [
        ("DELETE", "/adapters/{name}"),
        ("POST", "/adapters/{name}/default"),
        ("POST", "/adapters/{name}/rollback"),
        ("PUT", "/adapters/{name}"),
    ]


def test_only_an_admin_changes_something_whatever_the_address_is_spelt_like() -> None:
    callers = [
        (Endpoint(KNOWN, open_admin=False), {"authorization": f"Bearer {PREDICT.key}"}),
        (Endpoint(open_admin=False), {}),
        (Endpoint(open_admin=True), {"origin": "https://evil.example"}),
    ]
    for method, route in changing_routes(callers[0][0].app):
        path = route.replace("{name}", "x")
        admin = Endpoint(KNOWN, open_admin=False)
        assert admin.ask(method, path, b'{"path": "/x"}', authorization=f"Bearer {ADMIN.key}")[0] == 200
        assert admin.done
        for spelling in spellings(path):
            for endpoint, headers in callers:
                status, _ = endpoint.ask(method, spelling, b'{"path": "/x"}', **headers)
                assert (status in (401, 404), endpoint.done) == (True, []), (method, spelling, status)


def test_a_call_that_is_not_known_to_predict_or_read_is_an_admins() -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "post", "MERGE"):
        for path in ("/adapters/x/new", "/adapters", "/health", "/adapters/x/predict/all", "/v2/models/x/infer\n", ""):
            assert role_of(method, path) == "admin", (method, path)
    assert {role_of(method, "/predict") for method in ("PUT", "PATCH", "DELETE")} == {"admin"}


def test_a_path_with_a_control_character_is_not_found() -> None:
    endpoint = Endpoint(KNOWN, open_admin=False)
    for path in ("/health%0A", "/predict%0D", "/adapters/a%00b", "/%1b", "/docs/static/x%7F", "/v2/models/x%C2%85"):
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            status, text = endpoint.ask(method, path, authorization=f"Bearer {ADMIN.key}")
            assert (status, json.loads(text)["error"]["type"]) == (404, "not_found"), (method, path)


def test_a_slash_behind_a_call_that_predicts_leads_to_it() -> None:
    endpoint = Endpoint(KNOWN, open_admin=False)
    for path in ("/predict/", "/adapters/x/predict/", INFER + "/"):
        assert endpoint.ask("POST", path, b"{}", authorization=f"Bearer {PREDICT.key}")[0] == 307


WRONG_INPUTS = [
    (5, "it is a number"),
    (None, "it is null"),
    ({"a": 1}, "it is an object"),
    ([1], "item 0 is a number"),
    (["a", None], "item 1 is null"),
    (["a", True], "item 1 is true or false"),
    (["a", ["b", "c"]], "item 1 is a list"),
    ([["a", "b"], "c"], "item 1 is a text among lists"),
    ([["a", "b", "c"]], "item 0 is a list of 3"),
    ([["a", "b"], ["a", 1]], "item 1 holds a number"),
    ([[]], "item 0 is a list of 0"),
]


@pytest.mark.parametrize(("inputs", "found"), WRONG_INPUTS)
def test_the_first_wrong_input_is_named(inputs: Any, found: str) -> None:
    expected = f"inputs: must be a text, a list of texts, or a list of [text, text] pairs; {found}."
    assert Endpoint().message("/predict", {"inputs": inputs}) == expected


def tensor(data: Any, **changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": data, **changes}]}


def test_kserves_protocol_is_refused_in_its_own_words() -> None:
    say = Endpoint().message
    assert say(INFER, {"inputs": [{"name": "t"}]}) == (
        "inputs.0.shape: Field required; inputs.0.datatype: Field required; inputs.0.data: Field required"
    )
    assert say(INFER, {}) == "inputs: Field required"
    for inputs in ("a", ["a"], [], 5):
        said = say(INFER, {"inputs": inputs})
        assert said.startswith("inputs") and "list of texts, or" not in said
    rule = "inputs.0.data: must be a list of texts, or a list of lists of texts; "
    assert say(INFER, tensor("a")) == rule + "it is a text."
    assert say(INFER, tensor(["a", 1])) == rule + "item 1 is a number."
    assert say(INFER, tensor([["a"], ["a", 1]])) == rule + "item 1 holds a number."
    assert say(INFER, tensor(["a"], shape=["1"])).startswith("inputs.0.shape.0: ")
    assert say(INFER, tensor(["a"], datatype="FP32")).startswith("inputs.0.datatype: ")
    assert "shape" in say(INFER, tensor(["a"], shape=[1, 1, 1]))


def many(element: str) -> bytes:
    """500 kB of one element."""
    return b"[" + b",".join([element.encode()] * (500_000 // (len(element) + 1))) + b"]"


def in_tensor(data: bytes, shape: bytes = b"[1]") -> bytes:
    return b'{"inputs":[{"name":"t","shape":' + shape + b',"datatype":"BYTES","data":' + data + b"}]}"


LARGE = [
    (path, body)
    for e in ("1", '["a",1]')
    for path, body in (
        ("/predict", b'{"inputs":' + many(e) + b"}"),
        ("/predict", b'{"inputs":["a",' + many(e)[1:] + b"}"),
        ("/predict", b'{"inputs":[' + many(e) + b"]}"),
        (INFER, in_tensor(many(e))),
        (INFER, in_tensor(b"[" + many(e) + b"]")),
        (INFER, in_tensor(b'["a"]', shape=many(e))),
        (INFER, b'{"inputs":' + many(e) + b"}"),
    )
] + [
    ("/predict", b'{"inputs":"a",' + b",".join(b'"k%d":1' % i for i in range(45_000)) + b"}"),
    ("/predict", b'{"inputs":"a","parameters":{' + b",".join(b'"k%d":1' % i for i in range(45_000)) + b"}}"),
    (INFER, in_tensor(b'["a"]', shape=many("-1"))),
]


def test_a_large_body_of_wrong_elements_costs_little_more_than_to_read_it(request: pytest.FixtureRequest) -> None:
    endpoint = Endpoint()
    endpoint.message("/predict", {"inputs": 5})
    gc.disable()  # a collection among all that the tests hold takes longer than a body
    request.addfinalizer(gc.enable)
    for path, body in LARGE:
        began = time.process_time()
        json.loads(body)
        read_s = time.process_time() - began
        said = endpoint.message(path, body)
        taken_s = time.process_time() - began - read_s
        assert taken_s < 10 * read_s + 0.1, (path, body[:60], taken_s, read_s)
        assert len(said) < 1000, (path, body[:60], said[:200])


def test_unknown_keys_are_told_as_far_as_somebody_reads() -> None:
    body = {"inputs": "a", **dict.fromkeys((f"k{i}" for i in range(50)), 1)}
    assert Endpoint().message("/predict", body).count("unknown key") == 5


def parts(schema: Any) -> Iterable[str]:
    return [str(part.get("type")) for part in schema["anyOf"]]


def test_the_description_of_the_calls_tells_what_inputs_may_be() -> None:
    schemas = Endpoint().app.openapi()["components"]["schemas"]
    assert parts(schemas["PredictBody"]["properties"]["inputs"]) == ["string", "array", "array"]
    assert parts(schemas["Tensor"]["properties"]["data"]) == ["array", "array"]
