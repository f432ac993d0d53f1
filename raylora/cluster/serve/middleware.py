"""What every HTTP request passes before the routes: its id, its key, the limits, and a line in the log."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylora.cluster.serve import keys
from raylora.cluster.serve.keys import HashedKey, Role
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.status import HEADERS, REFUSALS, WORDS, body
from raylora.config.serve import LOOPBACK
from raylora.errors import KeyMissingError, MediaTypeError, RayLoraError, TooLargeError

access = logging.getLogger("raylora.access")

BODY_S = 30.0  # a body that takes longer to arrive is not waited for
OPEN = re.compile(r"/|/health|/ready|/docs(/.*)?|/openapi\.json|/v2/health/(live|ready)|/v2")
# a slash more is led to the call itself, by a redirect
PREDICT = re.compile(r"/|(/predict|/adapters/[^/]+/predict|/v2/models/[^/]+/infer)/?")
PUT = re.compile(r"/adapters/[^/]+/?")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass
class RequestContext:
    """What is known of the request under way; the routes fill in the adapter."""

    id: str
    adapter: str = ""
    version: str = ""
    inputs: int = 0
    status: int = 500
    start: float = field(default_factory=time.perf_counter)


request_context: ContextVar[RequestContext] = ContextVar("request_context")


def role_of(method: str, path: str) -> Role | None:
    """The role that a call needs, where keys are used: an admin's for all that is not known to read or to predict."""
    if method == "OPTIONS" or (method in ("GET", "HEAD") and OPEN.fullmatch(path)):
        return None
    predicts = method in ("GET", "HEAD") or (method == "POST" and PREDICT.fullmatch(path))
    return "predict" if predicts else "admin"


def takes_body(method: str, path: str) -> bool:
    """Whether a call is asked by a JSON body."""
    return (method == "POST" and PREDICT.fullmatch(path) is not None) or (
        method == "PUT" and PUT.fullmatch(path) is not None
    )


def check_type(headers: Headers) -> None:
    """Raises:
    MediaTypeError: a body in another form than JSON as it is.
    """
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("identity", ""):
        raise MediaTypeError(f"a body with content-encoding {encoding[:100]} is not read: send it as it is.")
    if headers.get("content-length") == "0" or not {"content-length", "transfer-encoding"} & {*headers.keys()}:
        return  # there is none, which the routes say
    given = headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        found = f"found {given[:100]}" if given else "there is none"
        raise MediaTypeError(f"the header `content-type` must be application/json, {found}.")


class Middleware:
    """ASGI middleware.

    Args:
        known: keys; with none, everybody may predict, and `open_admin` says whether everybody may also change adapters:
            everybody but web pages from elsewhere, unless they are of `cors_origins`.
    """

    def __init__(
        self,
        app: ASGIApp,
        known: Sequence[HashedKey],
        open_admin: bool,
        max_body_bytes: int,
        meters: Meters,
        cors_origins: Sequence[str] = (),
    ) -> None:
        self.app, self.known, self.open_admin, self.cors_origins = app, known, open_admin, cors_origins
        self.max_body_bytes, self.meters = max_body_bytes, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        own = RequestContext(given if ID.fullmatch(given) else uuid.uuid4().hex)
        request_context.set(own)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.body" and scope["method"] == "HEAD":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                own.status = message["status"]
                out = MutableHeaders(scope=message)
                if not given:  # Ray Serve answers with the id that it finds or makes
                    out["x-request-id"] = own.id
                out["x-content-type-options"] = "nosniff"
                if own.version:
                    out["x-adapter"], out["x-adapter-version"] = own.adapter, own.version
            await send(message)

        if CONTROL.search(scope["path"]):  # a route's pattern may match before a line feed at the end
            await JSONResponse(body(WORDS[404], "a path holds no control characters."), 404)(scope, receive, answer)
            self._record(scope, own)
            return
        try:
            self._check_key(scope, headers)
            self._check_length(headers)
            if takes_body(scope["method"], _path(scope)):
                check_type(headers)
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self.app(asked, _Body(receive, self.max_body_bytes).receive, answer)
        except RayLoraError as error:
            await refuse(error)(scope, receive, answer)
        finally:
            self._record(scope, own)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        role = role_of(scope["method"], _path(scope))
        if role is None:
            return
        if self.known:
            keys.check(headers.get("authorization"), self.known, role)
        elif role == "admin" and not self.open_admin:
            raise KeyMissingError(
                f"{scope['method'][:20]} {_path(scope)[:200]} is no call that predicts: from beyond this machine "
                "others need a key. Set `serve.api_keys`."
            )
        elif role == "admin" and not self._is_own_page(scope, headers):
            raise KeyMissingError(
                f"a page of {headers.get('origin', '')[:200]} may change adapters only with a key: set "
                "`serve.api_keys`, or name it in `serve.cors_origins`."
            )

    def _is_own_page(self, scope: Scope, headers: Headers) -> bool:
        """Whether no web page asks, or the endpoint's own, or one that `serve.cors_origins` names.

        A browser tells where a page that POSTs is from. A name of somebody else's may lead to 127.0.0.1 as well, so
        that a page's own host is taken for this one only by the names that a machine has for itself.
        """
        origin = headers.get("origin")
        if origin is None or origin in self.cors_origins:
            return True
        try:
            page = urlsplit(origin)
        except ValueError:  # half an IPv6 address
            return False
        return page.netloc == headers.get("host") and page.hostname in LOOPBACK

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.max_body_bytes:
            raise _too_large(self.max_body_bytes)

    def _record(self, scope: Scope, own: RequestContext) -> None:
        seconds = time.perf_counter() - own.start
        if own.adapter or own.status >= 400:
            self.meters.count_request(own.adapter if own.version else "", own.status, seconds)
        record = {
            "request_id": own.id,
            "method": scope["method"],
            "path": _path(scope),
            "status": own.status,
            "ms": round(1000 * seconds, 2),
            "adapter": own.adapter,
            "version": own.version,
            "inputs": own.inputs,
        }
        access.info(json.dumps(record, ensure_ascii=True))


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))


class _Body:
    """A request's body, cut off where it is too long or too slow."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self.inner, self.max_bytes, self.read = receive, max_bytes, 0
        self.whole = False
        self.until = time.monotonic() + BODY_S

    async def receive(self) -> Message:
        if self.whole:  # what comes now is the caller's leaving, whenever that is
            return await self.inner()
        try:
            message = await asyncio.wait_for(self.inner(), max(0.0, self.until - time.monotonic()))
        except TimeoutError:
            raise HTTPException(413, f"the body has not arrived after {BODY_S:g} s.") from None
        if message["type"] == "http.request":
            self.read += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.read > self.max_bytes:  # FastAPI hands on its own kind of error alone
                raise HTTPException(413, str(_too_large(self.max_bytes)))
        return message


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"a body may have {max_bytes} bytes (`serve.max_body_bytes`). Send fewer inputs a request.")


def refuse(error: RayLoraError) -> JSONResponse:
    """The answer that says what is wrong."""
    refusal = next(refusal for kind, refusal in REFUSALS.items() if isinstance(error, kind))
    return JSONResponse(body(refusal.name, str(error)), refusal.status, headers=HEADERS.get(refusal.status))
