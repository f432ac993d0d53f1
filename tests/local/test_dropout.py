"""LoRA's dropout: a row's mask is decided by (seed, epoch, row, module), however the work is cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import save_base, tiny_job

from raylora.model.fit.build import build
from raylora.model.lora import dropout
from raylora.model.lora.dropout import BatchMasks, DropoutContext, MaskedDropout, dropout_context
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]
CPU = torch.device("cpu")


@pytest.fixture(params=["cpu", "gpu"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of drawing; that of GPUs runs on a CPU, too."""
    if request.param == "gpu":
        monkeypatch.setattr(dropout, "_bits", dropout._hashed_places)


def masks_of(rows: Any, epoch: int = 0, seed: int = 0, step: int = 0, pad_left: bool = False) -> BatchMasks:
    return BatchMasks(np.asarray(rows), seed, epoch, step, pad_left)


def drawn(masks: BatchMasks, *shape: int, rate: float = 0.5, module: str = "layer.0.query") -> torch.Tensor:
    return masks.draw(module, shape, rate, torch.float32, CPU)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_mask_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    mask = drawn(masks_of(range(1000)), 1000, 7, 143, rate=rate)
    kept, dropped = mask.max().item(), mask.min().item()
    assert dropped == 0 and kept == pytest.approx(1 / (1 - rate), rel=1e-4)
    deviation = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=5 * deviation)
    assert mask.mean().item() == pytest.approx(1, abs=5 * deviation / (1 - rate))
    for over in ((1, 2), (0, 1)):  # no row or column is favoured
        share = (mask == 0).float().mean(over)
        assert share.std().item() == pytest.approx((rate * (1 - rate) / (mask.numel() / len(share))) ** 0.5, rel=0.2)


@pytest.mark.usefixtures("way")
def test_rows_modules_epochs_seeds_and_calls_draw_masks_of_their_own() -> None:
    count = 200_000
    first = drawn(masks_of([3]), 1, count)
    twice = masks_of([3])
    drawn(twice, 1, count)
    others = [
        drawn(masks_of([4]), 1, count),
        drawn(masks_of([3]), 1, count, module="layer.0.value"),
        drawn(masks_of([3], epoch=1), 1, count),
        drawn(masks_of([3], seed=1), 1, count),
        drawn(twice, 1, count),
    ]
    assert torch.equal(first, drawn(masks_of([3]), 1, count))
    for i, one in enumerate([first, *others]):
        for other in [first, *others][i + 1 :]:
            assert (one == other).float().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / count**0.5)


@pytest.mark.usefixtures("way")
def test_a_rows_mask_is_the_same_in_any_batch_and_under_any_padding() -> None:
    whole = drawn(masks_of([7, 2, 9, 4]), 4, 6, 5)
    assert torch.equal(drawn(masks_of([9, 7]), 2, 6, 5), whole[[2, 0]])
    assert torch.equal(drawn(masks_of([2]), 1, 4, 5), whole[[1], :4])
    left = drawn(masks_of([7, 2, 9, 4], pad_left=True), 4, 6, 5)
    assert torch.equal(drawn(masks_of([2], pad_left=True), 1, 4, 5), left[[1], 2:])


def test_what_is_no_row_of_the_batch_has_one_mask_a_step() -> None:
    table = drawn(masks_of([1, 2, 3]), 9, 5)
    assert torch.equal(table, drawn(masks_of([4, 5]), 9, 5))
    assert not torch.equal(table, drawn(masks_of([1, 2, 3], step=1), 9, 5))


@pytest.mark.parametrize(("rate", "kept"), [(1.0, 0.0), (1e-7, 1.0)])
def test_everything_may_be_dropped_and_everything_kept(rate: float, kept: float) -> None:
    assert torch.equal(drawn(masks_of(range(3)), 3, 5, rate=rate), torch.full((3, 5), kept))


def test_a_model_that_leaves_the_fit_drops_by_torchs_generator() -> None:
    """Its owner's batches are not the fit's rows."""
    context = DropoutContext()
    module = MaskedDropout(0.5, "layer", context)
    ones = torch.ones(7, 33)
    with context.of(masks_of(range(7))):
        inside = module(ones)
    torch.manual_seed(3)
    first, second = module(ones), module(ones)
    assert not torch.equal(first, second) and not torch.equal(first, inside)
    torch.manual_seed(3)
    assert torch.equal(module(ones), first)
    assert torch.equal(module.eval()(ones), ones)


CUTS = {"pairs": [[0, 1], [2, 3]], "rows": [[0], [1], [2], [3]]}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "deberta-v2", "shared positions", "llama"])
def test_gradients_do_not_depend_on_how_a_batch_is_cut(bases: Bases, tmp_path: Path, kind: str, cut: str) -> None:
    """As workers, or steps of accumulation, cut it; rows of unlike length are padded otherwise."""
    if kind == "shared positions":  # the same projections are fed the rows, and then the table of positions
        save_base("deberta-v2", tmp_path, share_att_key=True)
    base = tmp_path if kind == "shared positions" else bases(kind)
    job = tiny_job(base, lora__lora_dropout=0.3, lora__target_modules="all-linear", train__bf16=False)
    torch.manual_seed(0)
    model = build(resolve_job(job), ("a", "b"), 0).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(5, 200, (4, 12), generator=torch.Generator().manual_seed(1))
    lengths = [5, 6, 11, 12]
    left = kind == "llama"

    def gradients(parts: list[list[int]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for part in parts:
            width = max(lengths[i] for i in part)
            attention = torch.zeros(len(part), width, dtype=torch.long)
            tokens = torch.zeros(len(part), width, dtype=torch.long)
            for row, i in enumerate(part):
                span = slice(width - lengths[i], width) if left else slice(0, lengths[i])
                attention[row, span], tokens[row, span] = 1, ids[i, : lengths[i]]
            with dropout_context(model).of(masks_of(part, pad_left=left)):
                labels = torch.tensor([i % 2 for i in part])
                loss = model(input_ids=tokens, attention_mask=attention, labels=labels).loss
            (loss * len(part) / 4).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    together, apart = gradients([[0, 1, 2, 3]]), gradients(CUTS[cut])
    assert together.keys() == apart.keys()
    for name, gradient in together.items():
        assert torch.allclose(apart[name], gradient, atol=1e-6 + 1e-4 * float(gradient.abs().max())), name
