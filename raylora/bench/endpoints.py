"""What `bench serve` holds beside `raylora serve`: `python -m raylora.bench.endpoints SPEC`, SPEC as JSON.

Each answers POST /predict in raylora's own shape, and finds an adapter's name in Ray Serve's own header. `limit` serves
nothing: it calls the model in its own process.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylora.bench.processes import answer
from raylora.bench.served import Ranking

Rival = Literal["limit", "floor", "pipeline", "recipe", "batch"]
FORWARD = 64  # rows of one forward pass at most
ONGOING = 1000  # requests a replica takes at once: more than any load here
SIZES = (1, 2, 4, 8, 16, 32, 64)


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


class Model:
    """One adapter merged into its base, with its tokenizer; used by one thread at a time, on all cores."""

    def __init__(self, folder: str, dtype: str) -> None:
        import torch

        from raylora.model.precision import eager_when_short

        torch.set_num_threads(cores())
        loaded, self.max_length = load(folder)
        self.tokenizer = tokenizer_of(folder)
        self.net: Any = loaded.merge_and_unload().to(getattr(torch, dtype)).eval()
        if dtype == "bfloat16":
            eager_when_short(self.net)

    def many(self, requests: Sequence[Sequence[str]]) -> list[list[Ranking]]:
        """Texts of several requests together, and apart again."""
        rankings = iter(self.rank([text for texts in requests for text in texts]))
        return [[next(rankings) for _ in texts] for texts in requests]

    def rank(self, texts: Sequence[str]) -> list[Ranking]:
        """At most 64 texts at once, padded to the longest of them."""
        return [r for i in range(0, len(texts), FORWARD) for r in self._rank(texts[i : i + FORWARD])]

    def batch(self, texts: Sequence[str]) -> Any:
        options: dict[str, Any] = {"padding": True, "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(list(texts), max_length=self.max_length, **options)

    def _rank(self, texts: Sequence[str]) -> list[Ranking]:
        import torch

        with torch.inference_mode():
            scores = self.net(**self.batch(texts)).logits.float().softmax(-1)
        return [_ranking(row, self.net.config.id2label) for row in scores.tolist()]


class InProcess(Model):
    """Tokenizes as raylora does, with less around it: the limit should be one."""

    def __init__(self, folder: str, dtype: str) -> None:
        from raylora.model.tokens import tokenizer_spec

        super().__init__(folder, dtype)
        self.spec = tokenizer_spec(self.tokenizer, self.max_length)

    def batch(self, texts: Sequence[str]) -> Any:
        from raylora.model.tokens import Collator, encode, table_of

        found = Collator(table_of(encode(texts, self.spec)), self.spec)(np.arange(len(texts)))
        return {name: tensor for name, tensor in found.items() if name != "labels"}


def _ranking(scores: Sequence[float], labels: dict[int, str]) -> Ranking:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [{"label": labels[i], "score": scores[i]} for i in order]


class Multiplexed(Model):
    """One base with the adapters that PEFT holds beside each other; a batch is of one of them."""

    def __init__(self, folders: dict[str, str]) -> None:
        import torch

        torch.set_num_threads(cores())
        self.folders, first = folders, next(iter(folders))
        self.net, self.max_length = load(folders[first], first)
        self.tokenizer = tokenizer_of(folders[first])

    def add(self, name: str) -> None:
        if name not in self.net.peft_config:
            self.net.load_adapter(self.folders[name], name)

    def many_of(self, name: str, requests: Sequence[Sequence[str]]) -> list[list[Ranking]]:
        self.net.set_adapter(name)
        return self.many(requests)


def load(folder: str, name: str = "default") -> tuple[Any, int]:
    """PEFT's model of an adapter on its base, in fp32, and the tokens it keeps of a text."""
    from peft import PeftModel

    from raylora.config import ModelSection
    from raylora.model.adapter import read_card
    from raylora.model.base import load_base, read_config, resolve

    card = read_card(Path(folder))
    base = resolve(ModelSection(base_model=card.base_model, revision=card.revision))
    loaded = load_base(base, read_config(base, card.labels, dropout=True), tokenizer_of(folder).pad_token_id)
    return PeftModel.from_pretrained(loaded.model, folder, adapter_name=name).eval(), card.max_length


def tokenizer_of(folder: str) -> Any:
    from raylora.model.base import load_tokenizer

    return load_tokenizer(folder)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Limit:
    """The model called in this process on all cores, tokenizing included: rows/s by batch size, and the median time
    of one text."""

    rows_per_s: dict[str, float]
    p50_ms: float

    @property
    def best(self) -> float:
        return max(self.rows_per_s.values())


def better(one: Limit, other: Limit) -> Limit:
    """The best of two, figure by figure."""
    rates = {size: max(rate, other.rows_per_s[size]) for size, rate in one.rows_per_s.items()}
    return Limit(rates, min(one.p50_ms, other.p50_ms))


def limit(spec: Spec) -> Limit:
    model, texts = InProcess(spec.adapters["only"], spec.dtype), _texts(spec)
    model.rank(texts[:FORWARD])
    times = {size: _times(model, texts, size, spec.seconds) for size in SIZES}
    rates = {str(size): size * len(own) / sum(own) for size, own in times.items()}
    return Limit(rates, 1000 * statistics.median(times[1]))


def _texts(spec: Spec) -> list[str]:
    return json.loads(Path(spec.texts_path).read_text(encoding="utf-8"))


def _times(model: Model, texts: Sequence[str], size: int, seconds: float) -> list[float]:
    """Seconds of each batch, in the order of the texts, for so long."""
    found: list[float] = []
    starts = range(0, max(len(texts) - size, 1), size)
    for at in cycle(starts):
        start = time.perf_counter()
        model.rank(texts[at : at + size])
        found.append(time.perf_counter() - start)
        if sum(found) > seconds:
            break
    return found


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
    from raylora.cluster.connect import connect, use_haproxy
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
        from raylora.cluster.connect import set_environ

        set_environ({"OMP_WAIT_POLICY": "PASSIVE"})  # read when torch is loaded, here and in Ray's workers
    if given.rival == "limit":
        answer(limit(given))
    elif given.rival == "pipeline":
        serve_pipeline(given)
    else:
        serve_with_ray(given)
