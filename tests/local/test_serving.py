"""Many adapters over one base, in this process: a mixed batch answers as each adapter alone does."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import LAYOUTS, make_adapter, save_base

import raylora
from raylora.config import ModelSection
from raylora.errors import ModelError, OverloadError
from raylora.model.collator import Collator
from raylora.model.serving.adapter import ServedAdapter, folder_digest
from raylora.model.serving.base import ServedBase
from raylora.model.serving.engine import Batch, Engine, Limits
from raylora.model.tokens import Text, TokenTable, encode
from raylora.tasks.functions import softmax

Bases = Callable[[str], Path]

TEXTS = ["Works well.", "It broke after a week and nobody answers.", "Fine", "Not what I ordered, and late too."]
LABELS = [("no", "yes"), ("a", "b", "c"), ("1", "2", "3", "4", "5")]
OTHER_TARGETS = {
    "bert": ["query", "value", "dense"],
    "roberta": ["query", "key"],
    "xlm-roberta": ["query", "key"],
    "distilbert": ["q_lin", "out_lin"],
    "modernbert": ["Wqkv", "Wo"],
    "deberta-v2": ["query_proj", "key_proj"],
    "llama": ["q_proj", "up_proj"],
}


def open_base(path: Path, int8: bool = False) -> ServedBase:
    return ServedBase(ModelSection(base_model=str(path)), torch.float32, torch.device("cpu"), int8)


def rows_of(adapters: Sequence[ServedAdapter], texts: Sequence[Text]) -> dict[str, torch.Tensor]:
    """A batch whose row i is `texts[i]`."""
    encoded = encode(texts, adapters[0].spec)
    lengths = encoded["input_ids"].combine_chunks().value_lengths().to_numpy().astype(np.int32)
    count = len(texts)
    return Collator(
        TokenTable([encoded], np.arange(count), np.zeros(count, dtype=np.int64), lengths), adapters[0].spec
    )(np.arange(count))


def mixed(base: ServedBase, adapters: Sequence[ServedAdapter], texts: Sequence[Text]) -> list[np.ndarray]:
    """Logits of row i by adapter i, in as few batches as the batch_keys allow."""
    batch_keys: dict[object, list[int]] = {}
    for i, adapter in enumerate(adapters):
        batch_keys.setdefault(base.batch_key(adapter), []).append(i)
    found: dict[int, np.ndarray] = {}
    for own in batch_keys.values():
        chosen = [adapters[i] for i in own]
        found |= dict(zip(own, base.logits(rows_of(chosen, [texts[i] for i in own]), chosen), strict=True))
    return [found[i] for i in range(len(adapters))]


def make_adapters(kind: str, base: Path, folder: Path) -> list[Path]:
    """Three label counts, ranks and scales, two of one layout, one of other targets."""
    return [
        make_adapter(base, folder / "plain", LABELS[0], seed=1),
        make_adapter(base, folder / "same", LABELS[1], seed=2),
        make_adapter(base, folder / "high", LABELS[2], seed=3, lora__r=8, lora__use_rslora=True),
        make_adapter(base, folder / "other", LABELS[1], seed=4, lora__target_modules=OTHER_TARGETS[kind]),
        make_adapter(base, folder / "top", LABELS[0], seed=5, lora__layers_to_transform=[1]),
    ]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_row_of_a_mixed_batch_answers_as_its_adapter_alone(kind: str, bases: Bases, tmp_path: Path) -> None:
    folders = make_adapters(kind, bases(kind), tmp_path)
    base = open_base(bases(kind))
    loaded = [base.load(folder) for folder in folders]
    order = [0, 3, 1, 2, 0, 4, 1, 3, 4, 2, 0, 1]
    texts = [TEXTS[i % len(TEXTS)] for i in range(len(order))]
    found = mixed(base, [loaded[i] for i in order], texts)
    alone = [raylora.load(folder) for folder in folders]
    answers = set()
    for row, (i, text) in enumerate(zip(order, texts, strict=True)):
        expected = alone[i].logits([text])[0]
        assert found[row].shape == expected.shape
        assert np.abs(softmax(found[row][None]) - softmax(expected[None])).max() < 1e-5
        answers.add(tuple(np.round(expected, 3)))
    assert len(answers) == len(set(zip(order, texts, strict=True)))  # each adapter says something else of each text


def test_pairs_of_texts_mix_too(bases: Bases, tmp_path: Path) -> None:
    folders = make_adapters("bert", bases("bert"), tmp_path)[:3]
    base = open_base(bases("bert"))
    pairs: list[Text] = [("Is it good?", "It is."), ("Was it late?", "No, a day early."), ("Broken?", "Yes")]
    found = mixed(base, [base.load(folder) for folder in folders], pairs)
    for folder, pair, logits in zip(folders, pairs, found, strict=True):
        assert np.abs(logits - raylora.load(folder).logits([pair])[0]).max() < 1e-5


@pytest.mark.parametrize(
    "changes", [{"lora__use_dora": True}, {"lora__bias": "all"}, {}], ids=["dora", "bias", "merged"]
)
def test_an_adapter_that_shares_no_base_is_served_by_a_model_of_its_own(
    changes: dict[str, object], bases: Bases, tmp_path: Path
) -> None:
    own = make_adapter(bases("bert"), tmp_path / "own", LABELS[1], seed=6, **changes)
    plain = make_adapter(bases("bert"), tmp_path / "plain", LABELS[0], seed=7)
    base = open_base(bases("bert"))
    adapters = [base.load(own, merged=not changes), base.load(plain)]
    assert adapters[0].whole is not None
    found = mixed(base, [*adapters, adapters[0]], TEXTS[:3])
    for i, folder in enumerate((own, plain, own)):
        assert np.abs(found[i] - raylora.load(folder).logits([TEXTS[i]])[0]).max() < 1e-5


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_numbers_in_their_own_unit_keep_their_digits_in_bfloat16(kind: str, bases: Bases, tmp_path: Path) -> None:
    folder = make_adapter(bases(kind), tmp_path / "year", ("year",), facts={"problem_type": "regression"})
    weights = load_file(folder / "adapter_model.safetensors")
    last = [name for name in weights if "lora_" not in name and name.endswith((".weight", ".bias"))][-2:]
    for name in last:  # as `fold` leaves a head: numbers of about 2000 that differ by ones, not by eights
        weights[name] = weights[name] * 0.1 + 2000.0 if name.endswith("bias") else weights[name] * 20
    save_file(weights, folder / "adapter_model.safetensors")
    base = ServedBase(ModelSection(base_model=str(bases(kind))), torch.bfloat16, torch.device("cpu"))
    adapter = base.load(folder, merged=True)
    found = np.concatenate(mixed(base, [adapter] * len(TEXTS), TEXTS))
    expected = raylora.load(folder).logits(TEXTS)[:, 0]
    assert np.abs(found - expected).max() < 0.1 * np.ptp(expected)
    assert len(set(found)) == len(TEXTS) and (found != found.round()).all()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_base_in_int8_is_smaller_and_nearly_says_the_same(kind: str, bases: Bases, tmp_path: Path) -> None:
    folders = make_adapters(kind, bases(kind), tmp_path)
    exact, coarse = open_base(bases(kind)), open_base(bases(kind), int8=True)
    for folder, merged in [(folders[0], True), *((folder, False) for folder in folders[1:4])]:
        before, after = (base.load(folder, merged) for base in (exact, coarse))
        expected, found = (mixed(base, [own] * 4, TEXTS) for base, own in ((exact, before), (coarse, after)))
        off = np.abs(softmax(np.stack(found)) - softmax(np.stack(expected))).mean()
        assert 0 < off < 0.1  # these bases are random; what int8 does to a real one is measured by `tell_change`
        assert not merged or after.size_bytes < before.size_bytes


def test_int8_is_refused_beside_bfloat16(bases: Bases) -> None:
    with pytest.raises(ModelError, match="runs on CPUs, beside float32"):
        ServedBase(ModelSection(base_model=str(bases("bert"))), torch.bfloat16, torch.device("cpu"), int8=True)


def test_an_adapter_takes_its_own_bytes_and_no_more(bases: Bases, tmp_path: Path) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "a", LABELS[0])
    weights = sum(t.numel() * 4 for t in load_file(folder / "adapter_model.safetensors").values())
    assert open_base(bases("bert")).load(folder).size_bytes == weights


def test_adapters_with_one_tokenizer_share_it(bases: Bases, tmp_path: Path) -> None:
    base = open_base(bases("bert"))
    first, second = (base.load(make_adapter(bases("bert"), tmp_path / str(i), LABELS[0], seed=i)) for i in range(2))
    assert first.spec is second.spec
    assert first.layout is second.layout


def break_nothing(folder: Path) -> None:
    save_base("bert", folder.parent / "other", num_hidden_layers=1)


def break_file(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"not safetensors")


def break_values(folder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    name = next(iter(state))
    save_file({**state, name: torch.full_like(state[name], float("nan"))}, folder / "adapter_model.safetensors")


def break_shape(folder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in state if "lora_A" in name)
    save_file({**state, name: state[name][:, :3].contiguous()}, folder / "adapter_model.safetensors")


def break_head(folder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    save_file({k: v for k, v in state.items() if "classifier" not in k}, folder / "adapter_model.safetensors")


def break_digest(folder: Path) -> None:
    manifest = json.loads((folder / "raylora.json").read_text())
    (folder / "raylora.json").write_text(json.dumps({**manifest, "base_digest": "0" * 64}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_file, "is broken"),
        (break_values, "not numbers"),
        (break_shape, "does not fit the base"),
        (break_head, "it brings no head"),
        (break_digest, "One endpoint serves one base model"),
    ],
)
def test_a_broken_adapter_is_refused_with_its_reason(
    spoil: Callable[[Path], None], message: str, bases: Bases, tmp_path: Path
) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "a", LABELS[0])
    before = folder_digest(folder)
    spoil(folder)
    assert folder_digest(folder) != before
    with pytest.raises(ModelError, match=message):
        open_base(bases("bert")).load(folder)


@pytest.fixture
def engine(bases: Bases) -> Iterator[Engine]:
    own = Engine(open_base(bases("bert")), Limits(256, 4096, 64), threads=1)
    yield own
    own.close()


def test_concurrent_requests_of_many_adapters_get_their_own_answers(
    engine: Engine, bases: Bases, tmp_path: Path
) -> None:
    folders = make_adapters("bert", bases("bert"), tmp_path)
    loaded, alone = [engine.base.load(f) for f in folders], [raylora.load(f) for f in folders]
    batches: list[Batch] = []
    engine.observe = batches.append

    async def ask(number: int) -> tuple[int, list[str], np.ndarray]:
        which, texts = number % len(loaded), [TEXTS[(number + i) % 4] for i in range(1 + number % 3)]
        return which, texts, await engine.logits(loaded[which], encode(texts, loaded[which].spec))

    async def ask_all() -> list[tuple[int, list[str], np.ndarray]]:
        return await asyncio.gather(*(ask(i) for i in range(40)))

    for which, texts, logits in asyncio.run(ask_all()):
        assert np.abs(logits - alone[which].logits(texts)).max() < 1e-5
    assert sum(batch.rows for batch in batches) == sum(1 + i % 3 for i in range(40))
    assert max(batch.adapters for batch in batches) > 1
    assert all(batch.padded_tokens <= 256 or batch.rows == 1 for batch in batches)
    assert engine.load.requests == engine.load.tokens == 0


def test_a_broken_adapter_fails_only_its_own_requests(engine: Engine, bases: Bases, tmp_path: Path) -> None:
    good = engine.base.load(make_adapter(bases("bert"), tmp_path / "good", LABELS[0], seed=1))
    bad = engine.base.load(make_adapter(bases("bert"), tmp_path / "bad", LABELS[0], seed=2))
    object.__setattr__(bad, "heads", {path: torch.nn.Linear(7, 2) for path in bad.heads})

    async def both() -> list[object]:
        calls = [engine.logits(adapter, encode(TEXTS[:1], adapter.spec)) for adapter in (good, bad, good, bad)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(both())
    assert [isinstance(answer, np.ndarray) for answer in answers] == [True, False, True, False]
    assert engine.alive


def test_more_than_may_wait_is_refused_and_leaves_nothing(engine: Engine, bases: Bases, tmp_path: Path) -> None:
    adapter = engine.base.load(make_adapter(bases("bert"), tmp_path / "a", LABELS[0]))
    encoded = encode(TEXTS, adapter.spec)

    async def flood() -> list[object]:
        return await asyncio.gather(*(engine.logits(adapter, encoded) for _ in range(100)), return_exceptions=True)

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if isinstance(answer, OverloadError)]
    assert len(refused) >= 36
    assert len(refused) + sum(isinstance(answer, np.ndarray) for answer in answers) == 100
    assert engine.load.requests == engine.load.tokens == 0


def test_a_caller_that_leaves_takes_its_waiting_rows_along(engine: Engine, bases: Bases, tmp_path: Path) -> None:
    adapter = engine.base.load(make_adapter(bases("bert"), tmp_path / "a", LABELS[0]))
    batches: list[Batch] = []
    engine.observe = batches.append

    async def leave() -> np.ndarray:
        long = [asyncio.ensure_future(engine.logits(adapter, encode(TEXTS * 10, adapter.spec))) for _ in range(3)]
        await asyncio.sleep(0)
        for call in long[1:]:
            call.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        return await engine.logits(adapter, encode(TEXTS[:1], adapter.spec))

    assert asyncio.run(leave()).shape == (1, 2)
    assert sum(batch.rows for batch in batches) < 121
    assert engine.load.requests == engine.load.tokens == 0
