"""What stands before the routes of an endpoint, called as a web server calls it: keys, limits, log."""

import asyncio
import hmac
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylora.cluster.serve import keys
from raylora.cluster.serve.keys import HashedKey
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.middleware import Middleware
from raylora.config import Job
from raylora.errors import KeyMissingError, ModelError

PREDICT, ADMIN = keys.make("predict"), keys.make("admin")
KNOWN = keys.read("env:KEYS", {"KEYS": f"{PREDICT.line}\n{ADMIN.line}"})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/adapters/broken":
        raise ModelError("it is broken.")
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def ask(
    method: str,
    path: str,
    app: ASGIApp = echo,
    query: str = "",
    known: Sequence[HashedKey] = KNOWN,
    cors_origins: Sequence[str] = (),
    **headers: str,
) -> tuple[int, str]:
    """Status and body of one request through the guard; without keys, on a machine's own address."""
    guard = Middleware(app, known, not known, max_body_bytes=100, meters=Meters(), cors_origins=cors_origins)
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": named}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode()


def test_no_key_gets_into_the_log_or_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = ADMIN.key
    answers = [
        ask("POST", "/predict", authorization=f"Bearer {key}"),
        ask("POST", "/predict", authorization=key),
        ask("POST", "/predict", authorization=f"Basic {key}"),
        ask("POST", "/predict", authorization=f"Bearer {key}x"),
        ask("POST", "/predict", query=f"api_key={key}"),
        ask("POST", "/predict", x_api_key=key, cookie=f"key={key}", referer=f"http://x/?key={key}"),
        ask("PUT", "/adapters/broken", authorization=f"Bearer {key}"),
        ask("PUT", "/adapters/x", authorization=f"Bearer {PREDICT.key}"),
    ]
    assert [status for status, _ in answers] == [200, 401, 401, 401, 401, 401, 422, 401]
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "raylora.access"]
    assert [line["status"] for line in lines] == [status for status, _ in answers]
    said = caplog.text + "".join(body for _, body in answers)
    for secret in (key, PREDICT.key, *(known.sha256 for known in KNOWN)):
        assert secret not in said


def test_every_known_key_is_compared_whatever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def compare(given: Any, known: Any) -> bool:
        seen.append(known)
        return real(given, known)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    many: list[HashedKey] = [*KNOWN, *keys.read("env:K", {"K": "\n".join(keys.make("predict").line for _ in "1234")})]
    keys.check(f"Bearer {PREDICT.key}", many, "predict")
    first = seen.copy()
    with pytest.raises(KeyMissingError):
        keys.check("Bearer wrong", many, "predict")
    assert first == [known.sha256 for known in many] == seen[len(many) :]


def test_a_long_body_is_refused_by_what_it_says_of_itself() -> None:
    status, body = ask("POST", "/predict", authorization=f"Bearer {PREDICT.key}", content_length="101")
    assert (status, "`serve.max_body_bytes`" in body) == (413, True)


CHANGES = [
    ("PUT", "/adapters/x"),
    ("DELETE", "/adapters/x"),
    ("POST", "/adapters/x/default"),
    ("POST", "/adapters/x/rollback"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_without_keys_no_foreign_page_changes_an_endpoint_of_this_machine(method: str, path: str) -> None:
    def by(origin: str, host: str = "localhost:8000", **more: Any) -> int:
        return ask(method, path, known=(), host=host, origin=origin, **more)[0]

    assert ask(method, path, known=(), host="localhost:8000")[0] == 200  # curl, a script
    assert by("http://localhost:8000") == by("http://127.0.0.1:8000", "127.0.0.1:8000") == 200  # its own page
    foreign = [
        "https://evil.example",
        "null",
        "http://localhost:3000",
        "http://localhost.evil.example:8000",
        "http://[",
        "",
    ]
    assert {by(origin) for origin in foreign} == {401}
    assert by("http://evil.example:8000", "evil.example:8000") == 401  # a name that leads to 127.0.0.1
    assert by("http://shop.example", cors_origins=["http://shop.example"]) == 200
    assert by("http://shop.example", cors_origins=["*"]) == 401
    key = f"Bearer {ADMIN.key}"
    assert ask(method, path, host="localhost:8000", origin="https://evil.example", authorization=key)[0] == 200
    assert ask("POST", "/predict", known=(), host="localhost:8000", origin="https://evil.example")[0] == 200


def test_a_body_in_another_form_than_json_is_named() -> None:
    def post(path: str = "/predict", **headers: Any) -> tuple[int, str]:
        return ask("POST", path, known=(), content_length="2", **headers)

    for sound in ("application/json", "Application/JSON; charset=utf-8", "application/ld+json"):
        assert post(content_type=sound)[0] == 200
    status, body = post()
    assert (status, json.loads(body)["error"]["type"]) == (415, "unsupported_media_type")
    assert "`content-type` must be application/json, there is none" in body
    for path in ("/", "/predict", "/adapters/x/predict", "/v2/models/x/infer"):
        status, body = post(path, content_type="application/x-www-form-urlencoded")
        assert (status, "found application/x-www-form-urlencoded" in body) == (415, True)
    status, body = post(content_type="application/json", content_encoding="gzip")
    assert (status, "content-encoding gzip" in body) == (415, True)
    assert post(content_type="application/json", content_encoding="identity")[0] == 200
    assert ask("PUT", "/adapters/x", known=(), content_length="2", content_type="text/plain")[0] == 415
    assert ask("POST", "/predict", known=(), content_length="0")[0] == 200  # the route says that there is no body
    assert ask("POST", "/adapters/x/default", known=(), content_length="2")[0] == 200  # takes none


async def says(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": scope["method"].encode() + b"!"})


def test_head_is_answered_as_get_without_its_body() -> None:
    assert ask("GET", "/health", says) == (200, "GET!")
    assert ask("HEAD", "/health", says) == (200, "")
    assert ask("HEAD", "/adapters", says)[0] == 401  # as GET


def test_limits_are_on_by_default() -> None:
    names = ("max_body_bytes", "max_inputs", "max_characters", "max_queued_tokens", "max_queued_requests")
    assert all(0 < getattr(Job().serve, name) < 2**21 for name in names)
    assert Job().serve.host == "127.0.0.1"
    assert Job().serve.cors_origins == []
    assert not Job().model.trust_remote_code
