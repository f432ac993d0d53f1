"""What `bench serve` holds beside `raylora serve`: `python -m raylora.bench.endpoints SPEC`, SPEC as JSON.

Each answers POST /predict in raylora's own shape, and finds an adapter's name in Ray Serve's own header. `limit` serves
nothing: it calls the model in its own process.
"""

import asyncio
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raylora.bench.inprocess import Model, Multiplexed, limit
from raylora.bench.processes import answer
from raylora.bench.served import Ranking

Rival = Literal["limit", "floor", "pipeline", "recipe", "batch"]
ONGOING = 1000  # requests a replica takes at once: more than any load here


@dataclass(frozen=True)
class Spec:
    """A rival. `adapters` are folders by name; all but the recipe serve the one named `only`, merged into the base.

    `max_batch_size` and `batch_wait_timeout_s` are those of `@serve.batch`, whose defaults the recipe has. `passive`:
    torch's threads sleep while they wait for each other. By default they spin, which on cores that are shared costs
    anything up to 50 times.
    """

    rival: Rival
    adapters: dict[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    max_batch_size: int = 10
    batch_wait_timeout_s: float = 0.01
    port: int = 0
    texts_path: str = ""
    seconds: float = 1.0
    passive: bool = False


def serve_pipeline(spec: Spec) -> None:
    """FastAPI and transformers' pipeline, as its documentation has it: one call a request, in FastAPI's threads."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    model = Model(spec.adapters["only"], spec.dtype)
    classify: Any = pipeline("text-classification", model=model.net, tokenizer=model.tokenizer)  # pyright: ignore
    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, Any]) -> list[Ranking]:
        texts = [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]
        return classify(texts, batch_size=32, truncation=True, max_length=model.max_length, top_k=None)

    uvicorn.run(app, host="127.0.0.1", port=spec.port, log_level="warning")


def serve_with_ray(spec: Spec) -> None:
    """One replica behind Ray Serve's HAProxy ingress, without an access log, until it is interrupted."""
    from raylora.cluster.session import connect, use_haproxy
    from raylora.config import RaySection

    use_haproxy()  # read when Ray Serve is imported, here and in its processes; the same settings as raylora's
    from ray import serve

    with connect(RaySection()):
        serve.start(http_options={"host": "127.0.0.1", "port": spec.port})
        app = {"floor": _floor, "batch": _batch, "recipe": _recipe}[spec.rival](spec)
        serve.run(app, name="bench", logging_config={"enable_access_log": False})
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


def _floor(spec: Spec) -> Any:
    """Reads the request, and answers always the same."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI()

    class Floor:
        @app.post("/predict")
        async def predict(self, request: Request) -> JSONResponse:
            texts = _inputs(await request.json())
            return JSONResponse([[{"label": "any", "score": 1.0}] for _ in texts])

    return _bound(app, Floor)


def _batch(spec: Spec) -> Any:
    """`@serve.batch` over one merged model, which runs in a thread of its own."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from ray import serve

    app = FastAPI()

    class Batch:
        def __init__(self) -> None:
            self.model = Model(spec.adapters["only"], spec.dtype)
            self.thread = ThreadPoolExecutor(1)

        @serve.batch(max_batch_size=spec.max_batch_size, batch_wait_timeout_s=spec.batch_wait_timeout_s)
        async def together(self, requests: list[list[str]]) -> list[list[Ranking]]:
            return await asyncio.get_running_loop().run_in_executor(self.thread, self.model.many, requests)

        @app.post("/predict")
        async def predict(self, request: Request) -> JSONResponse:
            return JSONResponse(await self.together(_inputs(await request.json())))

    return _bound(app, Batch)


def _recipe(spec: Spec) -> Any:
    """Ray Serve's model multiplexing with its dynamic batching: a batch is of one adapter, all adapters stay loaded."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from ray import serve

    app = FastAPI()

    class Recipe:
        def __init__(self) -> None:
            self.models = Multiplexed(spec.adapters)
            self.thread = ThreadPoolExecutor(1)

        @serve.multiplexed(max_num_models_per_replica=-1)
        async def adapter(self, name: str) -> str:
            await asyncio.get_running_loop().run_in_executor(self.thread, self.models.add, name)
            return name

        @serve.batch(max_batch_size=spec.max_batch_size, batch_wait_timeout_s=spec.batch_wait_timeout_s)
        async def together(self, requests: list[list[str]]) -> list[list[Ranking]]:
            named: Any = self.adapter
            name = await named(serve.get_multiplexed_model_id())
            return await asyncio.get_running_loop().run_in_executor(self.thread, self.models.many_of, name, requests)

        @app.post("/predict")
        async def predict(self, request: Request) -> JSONResponse:
            return JSONResponse(await self.together(_inputs(await request.json())))

    return _bound(app, Recipe)


def _bound(app: Any, kind: Any) -> Any:
    from ray import serve

    deployed: Any = serve.deployment(serve.ingress(app)(kind), max_ongoing_requests=ONGOING)
    return deployed.bind()


def _inputs(body: dict[str, Any]) -> list[str]:
    return [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]


if __name__ == "__main__":
    given = Spec(**json.loads(sys.argv[1]))
    if given.passive:
        from raylora.cluster.session import set_environ

        set_environ({"OMP_WAIT_POLICY": "PASSIVE"})  # read when torch is loaded, here and in Ray's workers
    if given.rival == "limit":
        texts = json.loads(Path(given.texts_path).read_text(encoding="utf-8"))
        answer(limit(given.adapters["only"], given.dtype, texts, given.seconds))
    elif given.rival == "pipeline":
        serve_pipeline(given)
    else:
        serve_with_ray(given)
