"""What an endpoint measures of itself, as Prometheus reads it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from raylora.model.serving.engine import Batch

M = TypeVar("M", Counter, Gauge, Summary)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
TOLD_APART = 1000  # adapters; the text of 10,000 takes a replica half a second to write, every two seconds
OTHERS = "(others)"
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Of one replica."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.named: set[str] = set()
        self.requests = self._made(
            Counter, "raylora_requests", "requests by adapter and HTTP status", "adapter", "status"
        )
        self.inputs = self._made(Counter, "raylora_inputs", "texts labelled, by adapter", "adapter")
        self.tokens = self._made(Counter, "raylora_tokens", "tokens run, padding left out")
        self.padded_tokens = self._made(Counter, "raylora_padded_tokens", "tokens run, padding included")
        self.model_seconds = self._made(Counter, "raylora_model_seconds", "time that the model was busy")
        self.answered = self._made(
            Summary, "raylora_adapter_seconds", "from a request's arrival to its answer, by adapter", "adapter"
        )
        self.latency = self._spread("raylora_request_seconds", "from a request's arrival to its answer", SECONDS)
        self.queued = self._spread("raylora_queue_seconds", "from a text's arrival to the start of its batch", SECONDS)
        self.batch_rows = self._spread("raylora_batch_rows", "texts of a batch", ROWS)
        self.batch_adapters = self._spread("raylora_batch_adapters", "adapters of a batch", ROWS)
        self.ongoing_tokens = self._made(Gauge, "raylora_ongoing_tokens", "tokens that wait or run")
        self.loaded = self._made(Gauge, "raylora_adapters_loaded", "adapters in memory")
        self.adapter_bytes = self._made(Gauge, "raylora_adapter_bytes", "memory that they take")

    def _made(self, kind: type[M], name: str, help: str, *labels: str) -> M:
        return kind(name, help, labels, registry=self.registry)

    def _spread(self, name: str, help: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, help, registry=self.registry, buckets=buckets)

    def count_inputs(self, adapter: str, inputs: int) -> None:
        self.inputs.labels(self._label(adapter)).inc(inputs)

    def count_request(self, adapter: str, status: int, seconds: float) -> None:
        label = self._label(adapter)
        self.requests.labels(label, str(status)).inc()
        self.answered.labels(label).observe(seconds)
        self.latency.observe(seconds)

    def _label(self, adapter: str) -> str:
        if len(self.named) < TOLD_APART:
            self.named.add(adapter)
        return adapter if adapter in self.named else OTHERS

    def observe(self, batch: Batch) -> None:
        """Called by the engine after every forward."""
        self.tokens.inc(batch.tokens)
        self.padded_tokens.inc(batch.padded_tokens)
        self.model_seconds.inc(batch.run_s)
        self.batch_rows.observe(batch.rows)
        self.batch_adapters.observe(batch.adapters)
        for waited_s in batch.waited_s:
            self.queued.observe(waited_s)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def together(texts: Mapping[str, str]) -> bytes:
    """One exposition of several replicas' `text`, each sample labelled with its `replica`."""
    registry = CollectorRegistry()
    registry.register(_Joined(texts))
    return generate_latest(registry)


class _Joined(Collector):
    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def collect(self) -> Iterable[Metric]:
        return self._families()

    def _families(self) -> Iterator[Metric]:
        joined: dict[str, Metric] = {}
        for replica, text in self.texts.items():
            for family in text_string_to_metric_families(text):
                whole = joined.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
        yield from joined.values()
