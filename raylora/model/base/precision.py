"""In which precision a model is held and stepped, and with which attention; decided by the device, never by timing."""

import copy
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from raylora.config import TrainSection
from raylora.model.base.find import BaseFolder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# the bf16 backward of CPU flash attention takes 56 % of a step of 8 x 25; at 8 x 512 it wins again
EAGER_WIDTH = 256
FP32_ONLY = ("deberta",)  # transformers 5.23 divides its queries by an fp32 root, and multiplies them with bf16 keys


def resolve_bf16(train: TrainSection, use_gpu: bool) -> bool:
    """What `train.bf16` means on this machine.

    `auto` is bf16 on GPUs that have it, and on CPUs with AMX: without AMX a CPU gains little by it.
    """
    if train.bf16 != "auto":
        return train.bf16
    return bf16_pays(use_gpu)


def needs_fp32(base: BaseFolder) -> bool:
    """Whether Transformers' code of this base cannot run in bf16."""
    return json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8")).get("model_type") in FP32_ONLY


def bf16_pays(use_gpu: bool) -> bool:
    """Whether this machine runs bf16 faster than fp32: GPUs that have it, and CPUs with AMX."""
    if use_gpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in cpu_flags()


def cpu_flags() -> frozenset[str]:
    """What the first core can do, as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def held_in(model: "PreTrainedModel") -> torch.dtype:
    """What the frozen base is held in; `model.dtype` is of the first parameter, in XLM-RoBERTa the head's."""
    embeddings: Any = model.get_input_embeddings()
    return embeddings.weight.dtype


def train_in_fp32(model: "PeftModel") -> None:
    """Hold every trained weight in fp32; modules that own one take fp32, and hand bf16 on where the base goes on.

    PEFT does so for its LoRA matrices by itself. Of the others, the head ends the network: its logits stay fp32.
    """
    from peft.utils import ModulesToSaveWrapper

    prefix: Any = model.get_base_model().base_model_prefix
    for name, module in list(model.named_modules()):
        own = list(module.parameters(recurse=False))
        goes_on = base_goes_on(name.removeprefix("base_model.model."), prefix)
        if isinstance(module, ModulesToSaveWrapper):  # PEFT's to switch, to another adapter's copy or the original
            wrapper: Any = module
            if goes_on and any(wrapper.original_module.children()):
                continue
            wrapper.original_module = copy.deepcopy(wrapper.original_module).float()
        elif ".lora_" in name or ".original_module" in name or not any(p.requires_grad for p in own):
            continue
        for parameter in own:
            parameter.data = parameter.data.float()
        module.register_forward_pre_hook(_to_fp32)
        if goes_on:
            module.register_forward_hook(_to_bf16)


def keep_head_in_fp32(model: "PreTrainedModel", paths: Iterable[str], dtype: torch.dtype) -> "PreTrainedModel":
    """The model in `dtype`, but for what ends the network, which takes fp32 and gives fp32: 8 bits of a number that the
    head gives in the labels' own unit (1950) would be steps of 8.

    Args:
        paths: of modules; those that the base goes on from become `dtype` too.
    """
    prefix: Any = model.base_model_prefix
    heads = {path: copy.deepcopy(model.get_submodule(path)) for path in paths if not base_goes_on(path, prefix)}
    whole: Any = model
    whole.to(dtype=dtype)
    for path, head in heads.items():
        above, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(above), leaf, head)
        for module in head.modules():
            module.register_forward_pre_hook(_to_fp32)
    return model


def base_goes_on(path: str, prefix: str) -> bool:
    """Whether other layers of the base take what this module makes: all of it but the head and a pooler."""
    return path.startswith(f"{prefix}.") and not path.startswith(f"{prefix}.pooler")


def _to_fp32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args)


def _to_bf16(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    return output.bfloat16()


def eager_when_short(model: "PreTrainedModel") -> None:
    """Attend by plain matrix products in CPU batches of up to 256 tokens' width, by SDPA above and on GPUs."""
    # a decoder's head and body hold a config each
    configs: dict[int, Any] = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    if configs[id(model.config)]._attn_implementation != "sdpa":  # DeBERTa has an attention of its own
        return
    model.register_forward_pre_hook(partial(_choose_attention, list(configs.values())), with_kwargs=True)


def _choose_attention(configs: list[Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ids: torch.Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
    short = ids.device.type == "cpu" and ids.shape[1] <= EAGER_WIDTH
    for config in configs:
        config._attn_implementation = "eager" if short else "sdpa"
