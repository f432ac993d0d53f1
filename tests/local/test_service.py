"""What a replica lets in before it knows how many tokens a request has, in this process."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import make_adapter

from raylora.cluster.serve.adapter_store import AdapterStore
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.service import INLINE_CHARACTERS, WAITING_BODIES, Answer, Service
from raylora.config import Job, ModelSection
from raylora.errors import OverloadError
from raylora.model.serving.base import ServedBase
from raylora.model.serving.engine import Engine, Limits

LONG = "word " * (INLINE_CHARACTERS // 5 + 1)  # is tokenized in a thread, others wait for that


@pytest.mark.parametrize(
    ("key", "value", "fit"), [("max_body_bytes", len(LONG), WAITING_BODIES), ("max_queued_requests", 3, 3)]
)
def test_texts_that_wait_for_their_tokens_are_bounded(
    key: str, value: int, fit: int, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    make_adapter(bases("bert"), tmp_path / "x", ("a", "b"), seed=1)
    base = ServedBase(ModelSection(base_model=str(bases("bert"))), torch.float32, torch.device("cpu"))
    store = AdapterStore(base, 2**30, str(tmp_path), None, merge=False, kept=str(tmp_path / "versions"))
    engine = Engine(base, Limits(2048, 10**6, 10**4), threads=None)  # itself takes all of them
    job = Job().replace({f"serve.{key}": value})
    service = Service(job, "r", store, engine, None, Meters())  # pyright: ignore[reportArgumentType] - nothing changes

    async def ask(count: int) -> list[Answer | BaseException]:
        return await asyncio.gather(*(service.predict("x", [LONG]) for _ in range(count)), return_exceptions=True)

    async def work() -> None:
        for _ in range(2):
            found = await ask(fit + 5)
            assert [isinstance(each, Answer) for each in found] == [True] * fit + [False] * 5
            assert {type(each) for each in found[fit:]} == {OverloadError}

    try:
        asyncio.run(work())
    finally:
        engine.close()
