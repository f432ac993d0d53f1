"""KServe's Open Inference Protocol v2 over the same service, so that its gateways and clients plug in.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

import math
from typing import Any

from fastapi import APIRouter

import raylora
from raylora.cluster.serve.middleware import request_context
from raylora.cluster.serve.schemas import InferAnswer, InferBody, OutputTensor, Tensor
from raylora.cluster.serve.service import Service
from raylora.errors import DataError
from raylora.model.tokens import Text


def routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["KServe v2"])

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        service.check_ready()
        return {"ready": True}

    @router.get("")
    async def server() -> dict[str, Any]:
        return {"name": "raylora", "version": raylora.__version__, "extensions": []}

    @router.get("/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        found = await service.store.find(name, 1.0)
        labels = len(found.adapter.labels)
        return {
            "name": name,
            "versions": [found.version],
            "platform": "raylora_lora",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, labels]},
            ],
        }

    @router.get("/models/{name}/ready")
    async def model_ready(name: str) -> dict[str, Any]:
        await service.store.find(name, 1.0)
        return {"name": name, "ready": True}

    @router.post("/models/{name}/infer", response_model_exclude_none=True)
    async def infer(name: str, asked: InferBody) -> InferAnswer:
        """`text` BYTES [n], or [n, 2] for pairs, to `label`, `score` and all `scores` in label order."""
        own = request_context.get()
        own.adapter = name
        texts = _texts(asked.inputs[0])
        own.inputs = len(texts)
        answer = await service.predict(name, texts)
        own.adapter, own.version = answer.found.name, answer.found.version
        best = answer.scores.argmax(1)
        labels, count = answer.found.adapter.labels, len(texts)
        flat = [float(score) for row in answer.scores for score in row]
        return InferAnswer(
            model_name=name,
            model_version=answer.found.version,
            id=asked.id,
            outputs=[
                OutputTensor(name="label", datatype="BYTES", shape=[count], data=[labels[i] for i in best]),
                OutputTensor(name="score", datatype="FP32", shape=[count], data=answer.scores.max(1).tolist()),
                OutputTensor(name="scores", datatype="FP32", shape=[count, len(labels)], data=flat),
            ],
        )

    return router


def _texts(tensor: Tensor) -> list[Text]:
    """Raises:
    DataError: the shape is not [n] or [n, 2], or the data is not of it.
    """
    flat = [t for row in tensor.data for t in (row if isinstance(row, list) else [row])]
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1], [2]):
        raise DataError(f"`shape` must be [n], or [n, 2] for pairs, found {tensor.shape}.")
    if math.prod(tensor.shape) != len(flat) or min(tensor.shape) < 1:
        raise DataError(f"`data` holds {len(flat)} texts where `shape` is {tensor.shape}.")
    return list(zip(flat[::2], flat[1::2], strict=True)) if tensor.shape[1:] == [2] else flat  # pyright: ignore[reportReturnType]
