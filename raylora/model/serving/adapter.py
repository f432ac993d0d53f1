"""A saved adapter as it is held to serve: one flat tensor of all its low-rank matrices, and its head."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raylora.errors import ModelError
from raylora.model.base.precision import base_goes_on, held_in
from raylora.model.lora.manifest import MANIFEST, Manifest, read_manifest
from raylora.model.serving.int8 import Int8Linear
from raylora.model.tokens import TokenizerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class LoraSlice:
    """Where one projection's matrices lie in the flat tensor: a [r, inputs] from `start`, then b [outputs, r]."""

    path: str
    r: int
    inputs: int
    outputs: int
    start: int

    def a(self, flat: Tensor) -> Tensor:
        """[n, r, inputs] of flat [n, P]."""
        end = self.start + self.r * self.inputs
        return flat[:, self.start : end].unflatten(1, (self.r, self.inputs))

    def b(self, flat: Tensor) -> Tensor:
        """[n, outputs, r] of flat [n, P]; alpha / r is in it already."""
        start = self.start + self.r * self.inputs
        return flat[:, start : start + self.r * self.outputs].unflatten(1, (self.outputs, self.r))


@dataclass(frozen=True, eq=False)
class LoraLayout:
    """Where all matrices of an adapter lie; adapters of one layout share this object (`ServedBase.load`)."""

    places: Mapping[str, LoraSlice]


@dataclass(frozen=True, eq=False)
class ServedAdapter:
    """An adapter in memory. Those of one `layout` can be stacked; `whole` is a model of its own, where it shares none.

    `digest` is that of its files (`folder_digest`).
    """

    digest: str
    manifest: Manifest
    spec: TokenizerSpec
    layout: LoraLayout
    flat: Tensor
    heads: Mapping[str, nn.Module]
    size_bytes: int
    whole: "PreTrainedModel | None" = None

    @property
    def labels(self) -> tuple[str, ...]:
        return self.manifest.labels


@dataclass(frozen=True)
class Files:
    """An adapter's files, read once: what is checked is what is used."""

    folder: Path
    manifest: Manifest
    config: dict[str, Any]
    weights: bytes
    digest: str


def read_files(folder: Path) -> Files:
    """Raises:
    ModelError: the folder is not an adapter of raylora's, or a file in it is broken.
    """
    manifest = read_manifest(folder)
    try:
        weights = (folder / WEIGHTS).read_bytes()
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"adapter {folder} cannot be read: {error}") from None
    return Files(folder, manifest, config, weights, folder_digest(folder, weights))


def folder_digest(folder: Path, weights: bytes | None = None) -> str:
    """sha256 of everything that decides an answer: weights, LoRA settings, manifest, tokenizer."""
    total = hashlib.sha256(weights if weights is not None else (folder / WEIGHTS).read_bytes())
    for name in (CONFIG, MANIFEST, *TOKENIZER):
        if (folder / name).is_file():
            total.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return total.hexdigest()


def why_alone(config: Mapping[str, Any], model: "PreTrainedModel") -> str | None:
    """What keeps an adapter with this `adapter_config.json` from sharing the base `model` with others, if anything."""
    if config.get("peft_type") != "LORA":
        return f"{config.get('peft_type')} is not LoRA"
    if config.get("bias", "none") != "none":
        return f"it trains biases (bias: {config['bias']})"
    kinds = ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "target_parameters", "layer_replication")
    if found := next((f"{kind} is set" for kind in kinds if config.get(kind)), None):
        return found
    for path, module in _whole_modules(config, model):
        inner = getattr(module, "original", module)
        if base_goes_on(path, model.base_model_prefix) and not _is_fed_states(inner):
            return f"it brings {path}, a {type(inner).__name__}, whole"
    return None


def _is_fed_states(module: nn.Module) -> bool:
    """Whether a module takes hidden states and nothing else, so that each row can pass through a copy of its own. Not a
    linear one: others adapt that."""
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def _whole_modules(config: Mapping[str, Any], model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What an adapter brings of the base whole, by path."""
    names: Sequence[str] = config.get("modules_to_save") or []
    modules = {path: m for path, m in model.named_modules() if ".original" not in path}
    return [(p, m) for p, m in modules.items() if any(p == name or p.endswith(f".{name}") for name in names)]


def read_shared(
    files: Files, model: "PreTrainedModel", spec: TokenizerSpec, layouts: dict[tuple[LoraSlice, ...], LoraLayout]
) -> ServedAdapter:
    """The adapter beside others on `model`, which is only looked at; its layout is put among `layouts`, or found there.

    Raises:
        ModelError: its weights are broken or do not fit the base.
    """
    state = read_state(files)
    low_rank = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    rest = {name: tensor for name, tensor in state.items() if name not in low_rank}
    places, parts = _lay_out(files, low_rank, model)
    flat = torch.cat([part.reshape(-1).float() for part in parts]).to(model.device, held_in(model))
    heads = _heads(files, rest, model)
    head_bytes = sum(p.numel() * p.element_size() for head in heads.values() for p in head.parameters())
    size = flat.numel() * flat.element_size() + head_bytes
    layout = layouts.setdefault(places, LoraLayout({place.path: place for place in places}))
    return ServedAdapter(files.digest, files.manifest, spec, layout, flat, heads, size)


def read_state(files: Files) -> dict[str, Tensor]:
    """The weights by name.

    Raises:
        ModelError: they are broken, or hold what is no number.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = {name.removeprefix("base_model.model."): tensor for name, tensor in load(files.weights).items()}
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{files.folder / WEIGHTS} is broken: {error}") from None
    bad = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ModelError(f"{files.folder / WEIGHTS} holds values that are not numbers, in {bad[0]}.")
    return state


def _lay_out(
    files: Files, low_rank: Mapping[str, Tensor], model: "PreTrainedModel"
) -> tuple[tuple[LoraSlice, ...], list[Tensor]]:
    """Places in the order of their paths, and the matrices that fill them."""
    modules = dict(model.named_modules())
    places: list[LoraSlice] = []
    parts: list[Tensor] = []
    start = 0
    for path in sorted({name.partition(".lora_")[0] for name in low_rank}):
        linear = _linear(modules.get(path))
        try:
            a, b = (low_rank[f"{path}.lora_{side}.weight"] for side in "AB")
        except KeyError as error:
            raise ModelError(f"{files.folder / WEIGHTS} lacks {error.args[0]}.") from None
        fits = linear is not None and a.shape == (b.shape[1], linear.in_features) and b.shape[0] == linear.out_features
        if not fits:
            raise ModelError(
                f"adapter {files.folder} does not fit the base: {path} is {linear or 'not there'}, "
                f"its matrices are {tuple(a.shape)} and {tuple(b.shape)}."
            )
        r = len(a)
        alpha = float(files.config["lora_alpha"])
        scale = alpha / (r**0.5 if files.config.get("use_rslora") else r)
        places.append(LoraSlice(path, r, a.shape[1], b.shape[0], start))
        parts += [a, b * scale]
        start += a.numel() + b.numel()
    if not places:
        raise ModelError(f"{files.folder / WEIGHTS} holds no LoRA matrices.")
    return tuple(places), parts


def _linear(module: nn.Module | None) -> nn.Linear | Int8Linear | None:
    """A linear layer of the base, whatever holds it now."""
    inner = getattr(module, "linear", module)
    return inner if isinstance(inner, nn.Linear | Int8Linear) else None


def _heads(files: Files, rest: Mapping[str, Tensor], model: "PreTrainedModel") -> dict[str, nn.Module]:
    """The modules that the adapter brings whole, in fp32, by their path in the base."""
    heads: dict[str, nn.Module] = {}
    left = dict(rest)
    for top, module in _whole_modules(files.config, model):
        own = {name.removeprefix(f"{top}."): left.pop(name) for name in rest if name.startswith(f"{top}.")}
        if own:
            heads[top] = _filled(getattr(module, "original", module), own, f"adapter {files.folder}, {top}")
    if left or not heads:
        raise ModelError(
            f"adapter {files.folder} does not fit the base: "
            + (f"{next(iter(left))} has no place there." if left else "it brings no head.")
        )
    return heads


def _filled(module: nn.Module, state: Mapping[str, Tensor], place: str) -> nn.Module:
    """A copy of a module with these weights; the number of outputs may differ."""
    filled = copy.deepcopy(module).to("meta")
    if filled.state_dict().keys() != state.keys():
        raise ModelError(f"{place}: the base has {sorted(filled.state_dict())}, the file {sorted(state)}.")
    device = next(module.parameters()).device
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        owner = filled.get_submodule(path)
        old = getattr(owner, leaf)
        if old.shape[1:] != tensor.shape[1:]:
            raise ModelError(f"{place}: {name} is {tuple(tensor.shape)} where the base has {tuple(old.shape)}.")
        value = tensor.float().to(device)
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False) if isinstance(old, nn.Parameter) else value)
    return filled.eval()
