"""The serve bench's client, its adapters and its table, on numbers worked out by hand and a server of three lines."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from safetensors.numpy import load_file, save_file

from raylora.bench.adapters import file_bytes, make_adapters
from raylora.bench.inprocess import Limit, better
from raylora.bench.load import Answer, Load, Plan, drive, percentile, requests_of, summarize, well_formed
from raylora.bench.serve import PARTS, Setup, contenders
from raylora.bench.served import free_port, running
from raylora.bench.standing import Measured, Shape, compare, middle, report, table
from raylora.config import Job
from raylora.errors import TrainingError

TEXTS = ["one", "two", "three"]
GOOD = b'[[{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]]'


def load_of(rows_per_s: float, p50_ms: float = 1.0, **other: Any) -> Load:
    fields = {"p95_ms": p50_ms, "p99_ms": p50_ms, "statuses": {"200": 10}, "misshapen": 0, "client_cores": 0.1}
    return Load(requests_per_s=rows_per_s, rows_per_s=rows_per_s, p50_ms=p50_ms, **(fields | other))


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert [percentile([1.0, 2.0, 3.0], share) for share in (0.5, 0.95, 0.99)] == [2.0, 3.0, 3.0]
    assert percentile([7.0], 0.5) == 7.0 and percentile([], 0.5) == 0.0


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"not json", 1),
        (b'{"error": {"type": "x", "message": "y"}}', 1),
        (b"[]", 1),
        (b"[[]]", 1),
        (GOOD, 2),
        (b'[{"label": "a", "score": 0.5}]', 1),
        (b'[[{"label": 1, "score": 0.5}]]', 1),
        (b'[[{"label": "a"}]]', 1),
    ],
)
def test_an_answer_of_another_shape_is_seen(body: bytes, rows: int) -> None:
    assert well_formed(GOOD, 1)
    assert not well_formed(body, rows)


def test_rates_and_latencies_are_of_good_answers_alone() -> None:
    answers = [Answer(0.0, 0.010, 200, GOOD), Answer(0.0, 0.030, 200, GOOD), Answer(0.0, 9.0, 200, b"[]")]
    answers += [Answer(0.0, 9.0, 429, b""), Answer(0.0, 9.0, 0, b"")]
    found = summarize(answers, rows=1, seconds=2.0, client_cores=0.5)
    assert (found.requests_per_s, found.p50_ms, found.p99_ms) == (1.0, 10.0, 30.0)
    assert found.statuses == {"0": 1, "200": 3, "429": 1}
    assert (found.misshapen, found.failed) == (1, 3)


def test_the_same_seed_asks_for_the_same_texts_in_the_same_order() -> None:
    def first(seed: int) -> list[bytes]:
        return list(islice(requests_of(Plan(80, "", rows=2, seed=seed), TEXTS), 20))

    assert first(1) == first(1) != first(2)
    assert len(set(first(1))) > 5


def test_every_adapter_is_asked_as_often_and_once_where_once_is_said() -> None:
    names = [f"a{n}" for n in range(8)]

    def asked(requests: Sequence[bytes]) -> list[str]:
        return [line[28:].decode() for r in requests for line in r.split(b"\r\n") if line.startswith(b"serve_mul")]

    many = asked(list(islice(requests_of(Plan(80, "", adapters=names), TEXTS), 4096)))
    assert {name: many.count(name) for name in names} == dict.fromkeys(names, 512)
    assert many[:8] != names
    assert asked(list(requests_of(Plan(80, "", adapters=names, once=True), TEXTS))) == names


async def _driven(plan: Plan, answer: Callable[[dict[str, Any]], web.Response]) -> tuple[Load, list[dict[str, Any]]]:
    """What a plan sees of a server that answers so, and the bodies that the server saw."""
    seen: list[dict[str, Any]] = []

    async def predict(request: web.Request) -> web.Response:
        seen.append(await request.json())
        await asyncio.sleep(0.01)
        return answer(seen[-1])

    app = web.Application()
    app.router.add_post("/predict", predict)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", plan.port).start()
    try:
        return await drive(plan, TEXTS), seen
    finally:
        await runner.cleanup()


def _scores(body: dict[str, Any]) -> web.Response:
    texts = [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]
    return web.json_response([[{"label": "a", "score": 1.0}] for _ in texts])


def test_clients_ask_again_as_soon_as_they_have_their_answer() -> None:
    """Four clients, at least 10 ms an answer: at most 400 a second, and well over those of one client."""
    plan = Plan(free_port(), "", clients=4, warm_s=0.1, seconds=0.5)
    found, seen = asyncio.run(_driven(plan, _scores))
    assert 100 < found.requests_per_s <= 400
    assert found.rows_per_s == found.requests_per_s
    assert 10 <= found.p50_ms <= found.p95_ms <= found.p99_ms < 200
    assert list(found.statuses) == ["200"] and found.failed == 0
    assert {body["inputs"] for body in seen} == set(TEXTS)


def test_many_texts_a_request_are_counted_as_many() -> None:
    plan = Plan(free_port(), "", clients=2, rows=5, warm_s=0.1, seconds=0.3)
    found, seen = asyncio.run(_driven(plan, _scores))
    assert found.rows_per_s == pytest.approx(5 * found.requests_per_s)
    assert {len(body["inputs"]) for body in seen} == {5}


def test_refusals_are_counted_and_a_dropped_connection_is_opened_again() -> None:
    plan = Plan(free_port(), "", clients=2, warm_s=0.0, seconds=0.3)

    def refuse(body: dict[str, Any]) -> web.Response:
        response = web.json_response({}, status=429)
        response.force_close()
        return response

    found, seen = asyncio.run(_driven(plan, refuse))
    assert found.statuses["429"] > 2 and found.requests_per_s == 0
    assert found.failed == sum(found.statuses.values()) and len(seen) >= found.failed


def test_a_server_that_is_not_there_is_asked_a_bounded_number_of_times() -> None:
    found = asyncio.run(drive(Plan(free_port(), "", clients=2, warm_s=0.0, seconds=0.3), TEXTS))
    assert list(found.statuses) == ["0"]
    assert 0 < found.statuses["0"] <= 14


def test_once_ends_after_the_last_adapter() -> None:
    plan = Plan(free_port(), "", clients=3, adapters=["x", "y", "z", "w"], warm_s=0.0, seconds=60, once=True)
    found, seen = asyncio.run(_driven(plan, _scores))
    assert found.statuses == {"200": 4} and len(seen) == 4


def test_a_server_that_ends_at_once_is_an_error_with_its_own_words() -> None:
    with (
        pytest.raises(TrainingError, match=r"did not start(.|\n)*no such base"),
        running(lambda port: [sys.executable, "-c", "raise SystemExit('no such base')"]),
    ):
        raise AssertionError("it never runs")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "raylora.json").write_text('{"labels": ["a", "b"]}', encoding="utf-8")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    random = np.random.default_rng(0)
    weights = {"lora_A": random.normal(size=(4, 8)).astype(np.float32), "lora_B": np.zeros((8, 4), dtype=np.float32)}
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


def test_made_adapters_differ_in_their_weights_and_share_the_rest(adapter: Path, tmp_path: Path) -> None:
    names = make_adapters(adapter, 5, tmp_path / "many")
    assert names == ["a0000", "a0001", "a0002", "a0003", "a0004"]
    weights = [load_file(tmp_path / "many" / name / "adapter_model.safetensors") for name in names]
    assert len({w["lora_A"].tobytes() for w in weights}) == 5
    original = load_file(adapter / "adapter_model.safetensors")
    assert all(w["lora_A"].dtype == np.float32 and w.keys() == original.keys() for w in weights)
    assert all(np.abs(w["lora_A"] - original["lora_A"]).max() < 1.5 for w in weights)
    manifests = [(tmp_path / "many" / name / "raylora.json").read_bytes() for name in names]
    assert set(manifests) == {(adapter / "raylora.json").read_bytes()}
    assert file_bytes(tmp_path / "many", names) == (adapter / "adapter_model.safetensors").stat().st_size


def test_the_same_seed_makes_the_same_adapters(adapter: Path, tmp_path: Path) -> None:
    def made(root: str, seed: int) -> list[bytes]:
        names = make_adapters(adapter, 2, tmp_path / root, seed)
        return [(tmp_path / root / name / "adapter_model.safetensors").read_bytes() for name in names]

    assert made("first", 1) == made("second", 1) != made("third", 2)


def test_columns_of_the_table_are_aligned() -> None:
    assert table([["server", "1 client"], ["a", "12.0"], ["longer words", "7"]]) == [
        "  server        1 client",
        "  a                 12.0",
        "  longer words         7",
    ]


def test_the_middle_of_repeats_is_each_figures_median() -> None:
    loads = [load_of(10.0, 5.0), load_of(30.0, 1.0, statuses={"200": 9, "429": 1}), load_of(20.0, 9.0)]
    found = middle(loads)
    assert (found.rows_per_s, found.p50_ms, found.failed) == (20.0, 5.0, 1)
    assert found.statuses == {"200": 29, "429": 1}


ONE, EIGHT, LONG = Shape(1), Shape(8), Shape(8, 32)


def _run(one: float, eight: float, long: float, p50_ms: float = 1.0) -> Measured:
    return Measured({ONE: load_of(one, p50_ms), EIGHT: load_of(eight), LONG: load_of(long)}, off=1e-7)


def test_targets_are_ratios_within_a_turn_and_a_miss_is_called_missed() -> None:
    """In process 1,000 texts/s and 2 ms; p50 4 ms above it; 8 clients at 0.6 of it; at 32 texts 0.95."""
    runs = [
        {
            "merged": _run(100, 600, 950, p50_ms=6.0),
            "batch 8 0": _run(110, 300, 100),
            "batch 8 0.01": _run(50, 590, 100),
            "many": _run(90, 480, 900),
        }
    ]
    said: list[str] = []
    compare(runs * 2, [Limit({"1": 500.0, "32": 1000.0}, 2.0)] * 2, [ONE, EIGHT, LONG], said.append)
    assert [" ".join(line.split()) for line in said] == [
        "met p50 at 1 client, ms above in process: 4.00 (target <= 4)",
        "MISSED 1 client, against the best @serve.batch for it: 0.91 (target >= 1)",
        "met 1 client, many mixed adapters against one merged: 0.90 (target >= 0.85)",
        "MISSED 8 clients, texts/s against in process at its best: 0.60 (target >= 0.7)",
        "met 8 clients, against the best @serve.batch for it: 1.02 (target >= 1)",
        "MISSED 8 clients, many mixed adapters against one merged: 0.80 (target >= 0.85)",
        "met 8 clients x 32 texts, texts/s against in process at its best: 0.95 (target >= 0.9)",
        "met 8 clients x 32 texts, many mixed adapters against one merged: 0.95 (target >= 0.85)",
    ]


def test_the_limit_is_the_better_of_two_figure_by_figure() -> None:
    found = better(Limit({"1": 50.0, "8": 90.0}, 20.0), Limit({"1": 60.0, "8": 80.0}, 17.0))
    assert found == Limit({"1": 60.0, "8": 90.0}, 17.0)
    assert found.best == 90.0


def test_the_report_names_what_failed() -> None:
    broken = Measured({ONE: load_of(1.0, 123.4, statuses={"200": 5, "503": 2})}, off=None)
    lines = report({"merged": "raylora serve"}, [{"merged": broken}], [Limit({"1": 500.0, "32": 1000.0}, 2.0)], [ONE])
    assert [" ".join(line.split()) for line in lines] == [
        "texts/s, p50/p95/p99 ms 1 client off by",
        "in process: 1000 at batch 32 500 2.0",
        "raylora serve 1 123/123/123",
        "raylora serve, 1 client: answers by status {'200': 5, '503': 2}, 0 of another shape",
    ]


def test_every_contender_is_there_for_its_part_alone(tmp_path: Path) -> None:
    many = {f"a{n:04d}": str(tmp_path / f"a{n:04d}") for n in range(3)}
    setup = Setup(Job(), tmp_path, "float32", "adapter", "texts.json", many, many)
    assert list(contenders(setup, ["floor"])) == ["floor"]
    assert list(contenders(setup, ["mixed"])) == ["merged", "few", "many"]
    assert not contenders(setup, ["memory"])
    assert len(contenders(setup, PARTS)) == 11
    batch = contenders(setup, ["batch"])["batch 16 0.05"].command(1234)
    assert json.loads(batch[-1])["batch_wait_timeout_s"] == 0.05 and json.loads(batch[-1])["port"] == 1234
