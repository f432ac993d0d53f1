"""The frozen states: what lies below the lowest trained layer is a constant of each row, computed once and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from raylora.model.base.load import as_array
from raylora.model.base.precision import held_in
from raylora.model.collator import Collator
from raylora.model.predict import run_batches
from raylora.model.tokens import TokenizerSpec, TokenTable

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Body(NamedTuple):
    """Where an architecture keeps its embeddings and its layers, each layer a function of the one below alone."""

    embeddings: str
    layers: str


NOT_FED = ("labels", "frozen_states", "windows")  # of a batch, to a forward that starts at the embeddings
_ENCODER, _DECODER = Body("embeddings", "encoder.layer"), Body("embed_tokens", "layers")
BODIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "deberta-v2"), _ENCODER),
    "distilbert": Body("embeddings", "transformer.layer"),
    "modernbert": Body("embeddings", "layers"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _DECODER),
}


def layers(model: "PreTrainedModel") -> nn.ModuleList | None:
    """The base's transformer layers, bottom first; None where the architecture is not one of `BODIES`."""
    body = _body(model)
    return model.base_model.get_submodule(body.layers) if body else None  # pyright: ignore[reportReturnType]


def _body(model: "PreTrainedModel") -> Body | None:
    own = type(model).__module__.startswith("transformers.models.")  # code that comes with a base may differ
    return BODIES.get(str(model.config.model_type)) if own else None


def constant_layers(model: "PeftModel") -> int:
    """How many of the lowest layers, embeddings included, give a row the same states at every step of a training.

    0 wherever that is not certain: something below is trained or random, or the architecture is not known.
    """
    base: PreTrainedModel = model.get_base_model()  # pyright: ignore[reportAssignmentType]
    body, found = _body(base), layers(base)
    if body is None or found is None or _drops(base) or getattr(base.config, "conv_kernel_size", 0):
        return 0
    trained = [name for name, p in base.base_model.named_parameters() if p.requires_grad]
    above = (f"{body.layers}.", "pooler.")
    if not all(name.startswith(above) for name in trained):
        return 0
    lowest = [int(name.removeprefix(above[0]).partition(".")[0]) for name in trained if name.startswith(above[0])]
    return min(lowest, default=len(found))


def _drops(base: "PreTrainedModel") -> bool:
    """Whether the base has a dropout of its own, as a module or, in a function, by its config."""
    values = base.config.to_dict().items()
    named = any("dropout" in name and isinstance(value, float) and value > 0 for name, value in values)
    modules = [m for name, m in base.named_modules() if isinstance(m, nn.Dropout) and ".lora_" not in name]
    return named or any(module.p > 0 for module in modules)


@dataclass
class _ForwardInput:
    """The frozen states of the forward under way; None where it starts at the embeddings."""

    states: torch.Tensor | None = None


def install(model: "PreTrainedModel", depth: int) -> None:
    """After this, `model(**batch, frozen_states=states)` starts at layer `depth` (at least 1) from `states` [B, T, H].

    Layers below, and the embeddings, are not run; without `frozen_states`, all is as before.
    """
    body, found = _body(model), layers(model)
    assert body and found and 1 <= depth <= len(found), "depth is of constant_layers"
    given = _ForwardInput()
    pair = model.config.model_type == "deberta-v2"  # its layers return (states, attention)
    _skip_when_given(model.base_model.get_submodule(body.embeddings), given, pair=False)
    for layer in found[:depth]:
        _skip_when_given(layer, given, pair)
    own: Any = model
    own.frozen_states_hook = model.register_forward_pre_hook(partial(_take, given), with_kwargs=True)


def uninstall(model: "PreTrainedModel") -> None:
    """Undo `install`, where it was: a finished model can be copied and pickled, and its copies run their own layers."""
    body, found, own = _body(model), layers(model), model.__dict__
    if body and found and (hook := own.pop("frozen_states_hook", None)):
        hook.remove()
        for module in (model.base_model.get_submodule(body.embeddings), *found):
            module.__dict__.pop("forward", None)


def _skip_when_given(module: nn.Module, given: _ForwardInput, pair: bool) -> None:
    forward = module.forward

    def skip(*args: Any, **kwargs: Any) -> Any:
        if given.states is None:
            return forward(*args, **kwargs)
        return (given.states, None) if pair else given.states

    module.forward = skip


def _take(given: _ForwardInput, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given.states = kwargs.pop("frozen_states", None)
    return args, kwargs


class _ReachedError(Exception):
    """Ends a forward whose rest is not wanted; carries the states."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


def compute(
    model: "PreTrainedModel", collator: Collator, depth: int, batch_rows: int, scratch: Path | None = None
) -> list[np.ndarray]:
    """States entering layer `depth` of every row of the collator's table; other rows of its chunks stay zero.

    Args:
        model: in the precision and on the device it trains in; bf16 is kept as uint16.
        scratch: a folder for memory-mapped files; None = in memory.

    Returns:
        per chunk of the table, [tokens in the chunk, H].
    """
    kept = _empty_states(collator, _width(model), as_array(torch.empty(0, dtype=held_in(model))).dtype, scratch)
    for indices, states in run_batches(collator, batch_rows, lambda batch: as_array(_states_at(model, batch, depth))):
        places = [place for index in indices for place in collator.places(index)]
        for sequence, place in zip(states, places, strict=True):
            kept[place.chunk][place.flat] = sequence[collator.span(place, states.shape[1])]
    return kept


def _states_at(model: "PreTrainedModel", batch: dict[str, torch.Tensor], depth: int) -> torch.Tensor:
    """[B, T, H] entering layer `depth`, of windows [W, T, H]; what lies above is not run."""
    found = layers(model)
    assert found, "depth is of constant_layers"
    inputs = {name: t.to(model.device) for name, t in batch.items() if name not in NOT_FED}
    handle = found[depth - 1].register_forward_hook(_stop)
    try:
        with torch.inference_mode():
            model(**inputs)
    except _ReachedError as reached:
        return reached.states.cpu()
    finally:
        handle.remove()
    raise AssertionError("the hook ends every forward")


def _stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    raise _ReachedError(output[0] if isinstance(output, tuple) else output)


def _empty_states(collator: Collator, width: int, kind: np.dtype[Any], scratch: Path | None) -> list[np.ndarray]:
    """Zeros for the tokens of each chunk; pages that stay zero take no memory and no disk."""
    shapes = [(int(offsets[-1]), width) for offsets in collator.offsets]
    if scratch is None:
        return [np.zeros(shape, kind) for shape in shapes]
    # an empty file cannot be mapped
    shapes = [(max(tokens, 1), width) for tokens, width in shapes]
    return [np.memmap(scratch / f"{i}.frozen_states", kind, "w+", shape=shape) for i, shape in enumerate(shapes)]


def _width(model: "PreTrainedModel") -> int:
    return int(getattr(model.config, "hidden_size", None) or model.config.dim)


def fill(
    tables: Sequence[TokenTable],
    spec: TokenizerSpec,
    model: "PreTrainedModel",
    depth: int,
    batch_rows: int,
    scratch: Path | None = None,
) -> list[TokenTable]:
    """The tables with their frozen states; chunks that several of them share are computed once, for the rows of all."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, table in enumerate(tables):
        groups.setdefault(tuple(map(id, table.chunks)), []).append(i)
    filled = list(tables)
    for number, members in enumerate(groups.values()):
        rows = np.concatenate([tables[i].rows for i in members])
        lengths = np.concatenate([tables[i].lengths for i in members])
        union = TokenTable(tables[members[0]].chunks, rows, np.zeros(len(rows), dtype=np.int64), lengths)
        folder = scratch / str(number) if scratch else None
        if folder:
            folder.mkdir(parents=True)
        states = compute(model, Collator(union, spec), depth, batch_rows, folder)
        for i in members:
            filled[i] = replace(tables[i], frozen_states=states)
    return filled


def frozen_states_bytes(tables: Sequence[TokenTable], model: "PreTrainedModel") -> int:
    """What `fill` will hold: 4 (bf16: 2) bytes x H for every token of every row."""
    return sum(int(table.lengths.sum()) for table in tables) * _width(model) * held_in(model).itemsize


def agrees(table: TokenTable, spec: TokenizerSpec, model: "PreTrainedModel", depth: int) -> bool:
    """Whether the table's states are those of this model at this depth, by its first row (bf16 rounds to 0.4 %)."""
    assert table.frozen_states is not None, "there are frozen states to compare"
    collator = Collator(table, spec)
    batch = collator(np.arange(1))
    tokens = batch["attention_mask"].bool()
    own, given = _states_at(model, batch, depth).float()[tokens], batch["frozen_states"].float()[tokens]
    return bool((own - given).norm() < 0.1 * given.norm())
