"""KServe's Open Inference Protocol v2 over the same service, so that its gateways and clients plug in.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

import math
from typing import Any

from fastapi import APIRouter

import raylora
from raylora.cluster.serve.middleware import request_context
from raylora.cluster.serve.schemas import InferAnswer, InferBody, InferParameters, OutputTensor, Tensor
from raylora.cluster.serve.service import Answer, Service
from raylora.errors import DataError
from raylora.model.tokens import Text
from raylora.tasks import Wish, task_of


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
        labels, pairs = len(found.adapter.labels), found.adapter.manifest.takes_pairs
        return {
            "name": name,
            "versions": [found.version],
            "platform": "raylora_lora",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 2] if pairs else [-1]}],
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
        """`text` BYTES [n], or [n, 2] for pairs, to `label`, `score` and all `scores` in label order.

        Of several labels a text, `label` is a JSON list of those that reach their thresholds, `score` that of the best;
        of numbers, the name and the value of the first. Below the score that `parameters.min_accuracy` needs it is
        empty.
        """
        own = request_context.get()
        own.adapter = name
        texts = _texts(asked.inputs[0])
        own.inputs = len(texts)
        wished = asked.parameters or InferParameters()
        wish = Wish(wished.function_to_apply, None, wished.threshold, wished.min_accuracy)
        answer = await service.predict(name, texts, wish)
        own.adapter, own.version = answer.found.name, answer.found.version
        return InferAnswer(model_name=name, model_version=answer.found.version, id=asked.id, outputs=_outputs(answer))

    return router


def _outputs(answer: Answer) -> list[OutputTensor]:
    adapter, each, count = answer.found.adapter, answer.predictions, len(answer.predictions)
    task, labels = task_of(adapter.manifest.problem_type), adapter.labels
    flat = [prediction.scores[label] for prediction in each for label in labels]
    return [
        OutputTensor(name="label", datatype="BYTES", shape=[count], data=list(map(task.in_text, each))),
        OutputTensor(name="score", datatype="FP32", shape=[count], data=[prediction.score for prediction in each]),
        OutputTensor(name="scores", datatype="FP32", shape=[count, len(labels)], data=flat),
    ]


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
