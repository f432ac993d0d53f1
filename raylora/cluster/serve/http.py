"""The HTTP face of a replica: raylora's own routes, in the Hugging Face Inference shape."""

from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

import raylora
from raylora.cluster.serve import kserve
from raylora.cluster.serve.keys import HashedKey
from raylora.cluster.serve.meters import together
from raylora.cluster.serve.middleware import Middleware, request_context
from raylora.cluster.serve.refusals import answer_errors
from raylora.cluster.serve.schemas import (
    AdapterInfo,
    AdapterList,
    Canary,
    ChangeAnswer,
    ErrorBody,
    MissingReplica,
    Parameters,
    PredictBody,
    PutBody,
    Score,
)
from raylora.cluster.serve.service import Service
from raylora.cluster.serve.table import Outcome
from raylora.errors import ConfigError
from raylora.model.lora.manifest import Manifest
from raylora.model.tokens import Text
from raylora.tasks import Wish, task_of

PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody} for code in (400, 401, 404, 413, 415, 422, 429, 503)
}


def build_app(service: Service, known: Sequence[HashedKey], open_admin: bool) -> FastAPI:
    """The endpoint as an ASGI app.

    Args:
        known: API keys; with none everybody may predict.
        open_admin: whether adapters may be changed without a key.
    """
    app = FastAPIOffline(  # its /docs asks no other server for scripts
        title="raylora",
        version=raylora.__version__,
        description="LoRA adapters for sequence classification over one base model.",
        redoc_url=None,
        static_url="/docs/static",
        responses=ERRORS,
    )
    for routes in (_predict_routes, _adapter_routes, _state_routes, kserve.routes):
        app.include_router(routes(service))
    answer_errors(app)
    app.add_middleware(
        Middleware,
        known=known,
        open_admin=open_admin,
        max_body_bytes=service.settings.max_body_bytes,
        meters=service.meters,
        cors_origins=service.settings.cors_origins,
    )
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-adapter", "x-adapter-version"],
        )
    return app


def _predict_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["predict"])

    async def answer(asked: PredictBody, name: str | None) -> list[list[Score]]:
        wished = asked.parameters or Parameters()
        own = request_context.get()
        own.adapter = name = name or wished.adapter or ""
        texts = _texts(asked.inputs)
        own.inputs = len(texts)
        wish = _wish(wished)
        found = await service.predict(name or None, texts, wish)
        own.adapter, own.version = found.found.name, found.found.version
        task = task_of(found.found.adapter.manifest.problem_type)
        rows = [task.listed(prediction, wish) for prediction in found.predictions]
        # a plain response: validating each score once more takes longer than a small model
        return JSONResponse([[{"label": s.label, "score": s.score} for s in row] for row in rows])  # pyright: ignore[reportReturnType]

    @router.post("/predict")
    async def predict(
        asked: PredictBody, serve_multiplexed_model_id: Annotated[str | None, Header(convert_underscores=False)] = None
    ) -> list[list[Score]]:
        """Labels with their scores, best first, for each input: of several labels a text those that reach their
        thresholds; numbers in the order of their names."""
        return await answer(asked, serve_multiplexed_model_id)

    @router.post("/", include_in_schema=False)
    async def root(
        asked: PredictBody, serve_multiplexed_model_id: Annotated[str | None, Header(convert_underscores=False)] = None
    ) -> list[list[Score]]:
        return await answer(asked, serve_multiplexed_model_id)

    @router.post("/adapters/{name}/predict")
    async def predict_named(name: str, asked: PredictBody) -> list[list[Score]]:
        """As `/predict`, by a named adapter."""
        return await answer(asked, name)

    return router


def _wish(wished: Parameters) -> Wish:
    return Wish(wished.function_to_apply, wished.top_k, wished.threshold, wished.min_accuracy)


def _texts(inputs: str | list[str] | list[list[str]]) -> list[Text]:
    if isinstance(inputs, str):
        return [inputs]
    return [text if isinstance(text, str) else (text[0], text[1]) for text in inputs]


def _offers(manifest: Manifest) -> dict[str, Any]:
    """What can be asked of a loaded adapter, for `AdapterInfo`."""
    return {
        "labels": list(manifest.labels),
        "task": manifest.problem_type,
        "pairs": manifest.takes_pairs,
        "thresholds": manifest.thresholds,
        "min_accuracy": {promise: known["coverage"] for promise, known in manifest.min_scores.items()} or None,
    }


def _adapter_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/adapters", tags=["adapters"])
    store = service.store

    def describe(name: str) -> AdapterInfo:
        known, entry = store.known(name), store.table.entries.get(name)
        offers = _offers(known.manifest) if known else {"labels": None}
        if entry is None:
            place = store.rooted.get(name)
            version = known.digest[:12] if known else None
            path = place.path if place else None
            return AdapterInfo(name=name, version=version, path=path, loaded=known is not None, **offers)
        canary = Canary(version=str(entry.canary.number), traffic=entry.traffic) if entry.canary else None
        return AdapterInfo(
            name=name,
            version=str(entry.current.number),
            path=entry.current.path,
            loaded=known is not None,
            previous=str(entry.previous.number) if entry.previous else None,
            canary=canary,
            **offers,
        )

    @router.get("")
    async def list_adapters(prefix: str = "", limit: Annotated[int, Query(ge=1, le=100_000)] = 1000) -> AdapterList:
        """What is served, by name."""
        names = [name for name in await store.names() if name.startswith(prefix)][:limit]
        return AdapterList(default=store.table.default, adapters=[describe(name) for name in names])

    def told(response: Response, answer: ChangeAnswer, outcome: Outcome) -> ChangeAnswer:
        """202 in place of 200, with the replicas that do not serve the change yet."""
        if outcome.missing:
            response.status_code = 202
            answer.missing = [MissingReplica(**vars(each)) for each in outcome.missing]
        return answer

    # a change is written down before it is answered; 202 is one that some replicas do not serve yet
    changing: dict[str, Any] = {"response_model_exclude_none": True, "responses": {202: {"model": ChangeAnswer}}}

    @router.put("/{name}", **changing)
    async def put(name: str, asked: PutBody, response: Response) -> ChangeAnswer:
        """Load an adapter, or replace one: no request is dropped; after 200 all replicas serve the new one."""
        service.check_name(name)
        request_context.get().adapter = name
        outcome = await service.put(name, asked.path, asked.traffic)
        assert outcome.entry, "what was put is in the table"
        taken = outcome.entry.canary if asked.traffic < 1 else None
        return told(response, ChangeAnswer(name=name, version=str((taken or outcome.entry.current).number)), outcome)

    @router.delete("/{name}", **changing)
    async def drop(name: str, response: Response) -> ChangeAnswer:
        """Serve an adapter no more."""
        request_context.get().adapter = name
        if name not in store.table.entries and await store.is_rooted(name):
            raise ConfigError(f"adapter '{name}' is served from `serve.adapter_root`: remove its folder there.")
        return told(response, ChangeAnswer(name=name), await service.changes.drop(name))

    @router.post("/{name}/default", **changing)
    async def promote(name: str, response: Response) -> ChangeAnswer:
        """Let this adapter answer requests that name none."""
        request_context.get().adapter = name
        return told(response, ChangeAnswer(default=name), await service.promote(name))

    @router.post("/{name}/rollback", **changing)
    async def rollback(name: str, response: Response) -> ChangeAnswer:
        """End the canary; where there is none, go back to the previous version."""
        request_context.get().adapter = name
        outcome = await service.rollback(name)
        assert outcome.entry, "what was rolled back is in the table"
        return told(response, ChangeAnswer(name=name, version=str(outcome.entry.current.number)), outcome)

    return router


def _state_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["state"])
    html = PAGE.read_text(encoding="utf-8")

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> dict[str, str]:
        """The base model is loaded and the adapters are known."""
        service.check_ready()
        return {"status": "ready"}

    @router.get("/info")
    async def info() -> dict[str, Any]:
        """What is served, and within which limits."""
        base, limits = service.store.base, service.settings
        names = ("max_inputs", "max_characters", "max_body_bytes", "max_batch_tokens", "max_queued_tokens")
        return {
            "base_model": base.folder.id,
            "base_digest": base.digest,
            "dtype": str(base.dtype).removeprefix("torch."),
            "int8": base.int8,
            "device": str(base.device),
            "replica": service.replica,
            "default": service.store.table.default,
            "adapters_loaded": len(service.store.cache.held),
            "adapter_bytes": service.store.cache.size_bytes,
            "ongoing_tokens": service.engine.load.tokens,
            "limits": {name: getattr(limits, name) for name in (*names, "max_queued_requests")},
            "versions": {name: installed(name) for name in ("ray", "torch", "transformers", "peft")}
            | {"raylora": raylora.__version__},
        }

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Of all replicas, as Prometheus reads it."""
        texts = {**await service.changes.meters(), service.replica: service.meter_text()}
        return Response(together(texts), media_type=CONTENT_TYPE_LATEST)

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        headers = {"content-security-policy": PAGE_POLICY, "referrer-policy": "no-referrer"}
        return HTMLResponse(html, headers=headers)

    return router
