"""The base in bf16: what is held in it and what is not, the same start as in fp32, and the attention for short rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny import LAYOUTS, demo_splits, tiny_job
from transformers import set_seed

from raylora.config import Job, TrainSection
from raylora.model.base import precision
from raylora.model.base.find import resolve
from raylora.model.base.load import as_tensor, base_weights, load_base, read_config
from raylora.model.base.precision import EAGER_WIDTH, cpu_flags, eager_when_short, resolve_bf16
from raylora.model.fit.build import build
from raylora.model.fit.fit import fit
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]


def made(job: Job, **options: Any) -> PeftModel:
    set_seed(job.seed)
    return build(resolve_job(job), ("negative", "positive"), 0, **options)


def test_auto_is_bf16_on_cpus_with_amx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("amx_bf16" in cpu_flags()) == ("amx_bf16" in Path("/proc/cpuinfo").read_text())
    for flags, expected in ((("avx512_bf16", "amx_tile"), False), (("avx512_bf16", "amx_bf16"), True), ((), False)):
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert resolve_bf16(TrainSection(), use_gpu=False) is expected
        assert resolve_bf16(TrainSection(bf16=not expected), use_gpu=False) is not expected


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_base_is_held_in_bf16_and_all_that_is_trained_in_fp32(bases: Bases, kind: str) -> None:
    model = made(tiny_job(bases(kind), train__bf16=True))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    body = model.get_base_model().base_model
    assert {p.dtype for p in body.parameters() if not p.requires_grad} == {torch.bfloat16}
    found = model(input_ids=torch.tensor([[2, 7, 8, 3]]), labels=torch.tensor([1]))
    assert found.loss.dtype == found.logits.dtype == torch.float32


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_same_seed_draws_the_same_trained_weights_however_the_base_is_held_and_read(
    bases: Bases, kind: str
) -> None:
    job = tiny_job(bases(kind), train__bf16=False)
    half = job.replace({"train.bf16": True})
    base = resolve(job.model)
    config = read_config(base, ("negative", "positive"), dropout=False)
    shared = {dtype: base_weights(load_base(base, config, 0, dtype)) for dtype in (torch.float32, torch.bfloat16)}
    in_memory = {dtype: {n: as_tensor(a) for n, a in arrays.items()} for dtype, arrays in shared.items()}
    states: list[dict[str, torch.Tensor]] = []
    draws: list[torch.Tensor] = []
    for settings, weights in (
        (job, None),
        (half, None),
        (job, in_memory[torch.float32]),
        (half, in_memory[torch.bfloat16]),
    ):
        states.append(trainable_state(made(settings, weights=weights)))
        draws.append(torch.rand(1))
    for state, draw in zip(states[1:], draws[1:], strict=True):
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)
        assert draw == draws[0], "what is drawn next is the same too"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_in_memory_are_used_where_they_are(bases: Bases, dtype: torch.dtype) -> None:
    base = resolve(tiny_job(bases("bert")).model)
    config = read_config(base, ("a", "b"), dropout=False)
    arrays = base_weights(load_base(base, config, 0, dtype))
    assert not any(name.startswith("classifier") for name in arrays)
    for array in arrays.values():
        array.setflags(write=False)  # as Ray's object store gives them
    loaded = load_base(base, config, 0, dtype, {name: as_tensor(array) for name, array in arrays.items()})
    own = loaded.model.state_dict()
    assert all(own[name].data_ptr() == array.ctypes.data for name, array in arrays.items())
    assert loaded.new_modules == ("classifier",)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_fit_in_bf16_learns_what_one_in_fp32_learns(bases: Bases, kind: str) -> None:
    # a probe on features as small as a random tiny base's has weights that blow rounding up
    job = tiny_job(bases(kind), train__bf16=False, train__head_init="random")
    splits = demo_splits(job, bases(kind), 40)
    half = fit(resolve_job(job.replace({"train.bf16": True})), splits)
    whole = fit(resolve_job(job), splits)
    assert (half.dtype, whole.dtype) == ("bfloat16", "float32")
    assert half.validation.loss == pytest.approx(whole.validation.loss, rel=0.15)
    assert half.validation.loss != whole.validation.loss


@pytest.mark.parametrize(
    "lora", [{"lora.bias": "all"}, {"lora.modules_to_save": ["LayerNorm"]}, {"lora.use_dora": True}]
)
def test_what_else_is_trained_inside_a_bf16_base_is_fp32(bases: Bases, lora: dict[str, Any]) -> None:
    job = tiny_job(bases("bert"), train__bf16=True).replace(lora)
    splits = demo_splits(job, bases("bert"), 40)
    start = trainable_state(made(job))
    end = trainable_state(fit(resolve_job(job), splits).model)
    assert {tensor.dtype for tensor in end.values()} == {torch.float32}
    moved = [name for name in end if not torch.equal(start[name], end[name])]
    assert len(moved) > 0.9 * len(end), "every trained weight but those before a softmax takes part"


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "deberta-v2"])
def test_short_batches_attend_eagerly_and_long_ones_by_sdpa_with_equal_logits(bases: Bases, kind: str) -> None:
    job = tiny_job(bases(kind), train__bf16=False)
    usual, chosen = made(job), made(job)
    eager_when_short(chosen.get_base_model())
    config: Any = chosen.get_base_model().base_model.config
    for width, expected in ((100, "eager"), (EAGER_WIDTH, "eager"), (EAGER_WIDTH + 1, "sdpa"), (12, "eager")):
        if width > usual.config.max_position_embeddings - 8:
            continue
        ids = torch.randint(5, 400, (3, width), generator=torch.Generator().manual_seed(width))
        mask = torch.ones_like(ids)
        ids[0, width // 2 :], mask[0, width // 2 :] = 0, 0
        with torch.inference_mode():
            expected_logits = usual(input_ids=ids, attention_mask=mask).logits
            logits = chosen(input_ids=ids, attention_mask=mask).logits
        assert config._attn_implementation == expected
        torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)


def test_records_and_card_say_the_precision_of_their_scores(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"), train__bf16=True)
    records: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    fit(
        resolve_job(job),
        demo_splits(job, bases("bert"), 40),
        log=records.append,
        report=lambda metrics, folder: reports.append(metrics),
        save_to=tmp_path / "adapter",
    )
    assert [r["dtype"] for r in records if r["kind"] == "evaluation"] == ["bfloat16"]
    assert reports[0]["dtype"] == "bfloat16"
    manifest = json.loads((tmp_path / "adapter" / "raylora.json").read_text())
    assert manifest["metrics"]["validation"]["dtype"] == "bfloat16"
    assert manifest["config"]["train"]["bf16"] is True
