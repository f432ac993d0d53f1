"""What a request is answered that cannot be done: every error as `{"error": {"type", "message"}}`, in words of ours."""

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from raylora.cluster.serve.middleware import refuse, request_context
from raylora.cluster.serve.schemas import TOLD, Parameters, PredictBody, PutBody
from raylora.cluster.serve.status import WORDS, body
from raylora.config.explain import close_to
from raylora.errors import RayLoraError

logger = logging.getLogger(__name__)


def answer_errors(app: FastAPI) -> None:
    """Let the app answer so, whatever its routes raise."""
    app.add_exception_handler(RayLoraError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RayLoraError), "registered for these"
    return refuse(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for these"
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return JSONResponse(body(WORDS[400], f"the body is not JSON: {faults[0]['ctx']['error']}."), 400)
    if all(fault["loc"] == ("body",) and fault["type"] == "missing" for fault in faults):
        return JSONResponse(body(WORDS[400], "the request has no body."), 400)
    unknown = [fault["loc"][1:] for fault in faults if fault["type"] == "extra_forbidden"]
    if unknown:
        words = (_unknown_key(key, PutBody if request.method == "PUT" else PredictBody) for key in unknown[:TOLD])
        return JSONResponse(body(WORDS[422], "; ".join(words)), 422)
    words = [f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'body'}: {fault['msg']}" for fault in faults[:TOLD]]
    return JSONResponse(body(WORDS[422], "; ".join(dict.fromkeys(words))), 422)


def _unknown_key(place: Sequence[int | str], asked: type[BaseModel]) -> str:
    """The key with a close one, or with all that its place has."""
    *above, key = map(str, place)
    known = (Parameters if above else asked).model_fields
    where = f" of `{'.'.join(above)}`" if above else ""
    return f"unknown key '{key[:100]}'{close_to(key, known)} The keys{where} are {', '.join(known)}."


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException), "registered for these"
    kind = WORDS.get(error.status_code, "refused")
    return JSONResponse(body(kind, str(error.detail)), error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", request_context.get().id, exc_info=error)
    return JSONResponse(
        body(WORDS[500], f"a fault of the server's; request id {request_context.get().id} is in its log."), 500
    )
