"""Schemathesis on /openapi.json: sound and broken calls of every route, changes included. Never a 500."""

import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from serving import Server, serving

import raylora

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CASES = int(os.environ.get("RAYLORA_FUZZ_CASES", "1000"))
ROUND = 20  # calls of one route on end
NAMES = ["demo", "topics", "three", "nobody"]
ASKED = [*NAMES, "moods", "stars", "pairs", "careful"]


@pytest.fixture(scope="module")
def own_server(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint that may be left in any state."""
    arguments = [f"serve.adapters.{name}={adapters / name}" for name in ("demo", "topics")]
    with serving(*arguments, f"serve.adapter_root={adapters}", folder=tmp_path_factory.mktemp("fuzzed")) as server:
        yield server


class Fuzz:
    """Counts cases, and what was wrong with their answers."""

    def __init__(self, server: Server, adapters: Path) -> None:
        self.server, self.adapters = server, adapters
        self.session = requests.Session()
        self.statuses: Counter[int] = Counter()
        self.done: Counter[str] = Counter()  # calls answered with 200, by operation
        self.faults: dict[str, str] = {}

    def ask(self, case: Any) -> None:
        count = self.statuses.total()
        if count % 2:
            self._make_likely(case, count // 2)
        reply = case.call(base_url=self.server.url, session=self.session, timeout=60)
        self.statuses[reply.status_code] += 1
        self.done[case.operation.label] += reply.status_code == 200
        fault = _fault_of(reply)
        if fault:
            self.faults.setdefault(f"{case.method} {case.path}: {fault}", case.as_curl_command()[:500])

    def _make_likely(self, case: Any, count: int) -> None:
        """Names and paths that exist: no generator hits them, and what lies behind them is to be fuzzed too."""
        if "name" in (case.path_parameters or {}):
            names = ASKED if case.path.endswith(("/predict", "/infer")) else NAMES
            case.path_parameters["name"] = names[count % len(names)]
        if isinstance(case.body, dict) and isinstance(case.body.get("path"), str):
            case.body["path"] = str(self.adapters / NAMES[count // 4 % 4])
        wished = case.body.get("parameters") if isinstance(case.body, dict) else None
        if isinstance(wished, dict) and count % 2:  # few adapters have a threshold, fewer a promise
            wished.pop("threshold", None)
            wished.pop("min_accuracy", None)
        if case.path.endswith("/infer"):
            self._make_tensor(case.body)

    @staticmethod
    def _make_tensor(body: Any) -> None:
        """Let `shape` be that of the texts, which no generator finds."""
        tensors = body.get("inputs") if isinstance(body, dict) else None
        for tensor in tensors if isinstance(tensors, list) else ():
            if isinstance(tensor, dict) and isinstance(tensor.get("data"), list):
                tensor["data"] = [f"text {text}" for text in tensor["data"]] or ["text"]
                tensor["shape"] = [len(tensor["data"])]

    def run(self, operation: Any, mode: Any, examples: int, number: int) -> int:
        """Cases sent; fewer than `examples` where there are no more."""
        before = self.statuses.total()

        @hypothesis.seed(number)
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def cases(case: Any) -> None:
            self.ask(case)

        try:
            cases()
        except (schemathesis.errors.SchemathesisError, hypothesis.errors.Unsatisfiable):
            return 0  # a call without parameters cannot be broken
        return self.statuses.total() - before


def _fault_of(reply: Any) -> str | None:
    if reply.status_code >= 500 and reply.status_code != 503:
        return f"status {reply.status_code}: {reply.content[:200]!r}"
    if reply.status_code < 400:
        return None
    try:
        error = json.loads(reply.content)["error"]
    except (ValueError, TypeError, KeyError):
        return f"status {reply.status_code} is answered with {reply.content[:200]!r}"
    sound = error.keys() == {"type", "message"} and all(isinstance(v, str) and v for v in error.values())
    return None if sound else f"status {reply.status_code} is answered with {error}"


def test_no_call_of_the_schema_is_answered_with_a_500(own_server: Server, adapters: Path) -> None:
    schema = schemathesis.openapi.from_url(f"{own_server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 17
    kinds = list(itertools.product(operations, schemathesis.GenerationMode))
    fuzz, number, chance = Fuzz(own_server, adapters), 0, random.Random(0)
    while kinds and fuzz.statuses.total() < CASES:
        share = min(ROUND, max(1, (CASES - fuzz.statuses.total()) // len(kinds)))
        number += 1
        chance.shuffle(kinds)  # what has been put is sometimes rolled back before it is dropped
        kinds = [
            kind
            for kind in kinds
            if fuzz.statuses.total() < CASES and fuzz.run(*kind, share, number) == share  # the others have no more
        ]
    sys.stdout.write(f"{fuzz.statuses.total()} cases, schemathesis {schemathesis.__version__}: {dict(fuzz.statuses)}\n")
    assert not fuzz.faults, json.dumps(fuzz.faults, indent=1, ensure_ascii=False)[:6000]
    assert fuzz.statuses.total() >= CASES
    assert all(fuzz.done[operation.label] for operation in operations), fuzz.done  # behind the checks, too
    path = str(adapters / "demo")
    assert own_server.ask("PUT", "/adapters/demo", {"path": path}).status == 200
    found = own_server.predict("Fine", "/adapters/demo/predict").json[0][0]
    expected = raylora.load(path).predict(["Fine"])[0]
    assert (found["label"], found["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-5))
