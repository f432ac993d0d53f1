"""The model called in its own process: what serves inside `bench serve`'s rivals, and the limit of them all."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from raylora.bench.served import Ranking

FORWARD = 64  # rows of one forward pass at most
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Model:
    """One adapter merged into its base, with its tokenizer; used by one thread at a time, on all cores."""

    def __init__(self, folder: str, dtype: str) -> None:
        import torch

        from raylora.model.base.precision import eager_when_short

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
        from raylora.model.collator import Collator
        from raylora.model.tokens import encode, table_of

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

    from raylora.model.base.find import resolve
    from raylora.model.base.load import load_base, read_config
    from raylora.model.lora.manifest import base_of, read_manifest

    manifest = read_manifest(Path(folder))
    base = resolve(base_of(manifest))
    loaded = load_base(base, read_config(base, manifest.labels, dropout=True), tokenizer_of(folder).pad_token_id)
    return PeftModel.from_pretrained(loaded.model, folder, adapter_name=name).eval(), manifest.max_length


def tokenizer_of(folder: str) -> Any:
    from raylora.model.base.load import load_tokenizer

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


def limit(folder: str, dtype: str, texts: Sequence[str], seconds: float) -> Limit:
    """Measured over `texts`, `seconds` for each batch size."""
    model = InProcess(folder, dtype)
    model.rank(texts[:FORWARD])
    times = {size: _times(model, texts, size, seconds) for size in SIZES}
    rates = {str(size): size * len(own) / sum(own) for size, own in times.items()}
    return Limit(rates, 1000 * statistics.median(times[1]))


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
