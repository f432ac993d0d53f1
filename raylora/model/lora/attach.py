"""A new LoRA adapter on a base model, its config resolved against what the base has."""

from typing import TYPE_CHECKING

from raylora.config import LoraSection
from raylora.errors import ConfigError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel


# Query and value projections by architecture (Hu et al. 2021, sec. 4.2: adapting these two does best per parameter).
# PEFT's own table has no DistilBERT, and takes ModernBERT's and DeBERTa's fused or renamed layers differently.
QUERY_VALUE = {
    "distilbert": ["q_lin", "v_lin"],
    "modernbert": ["Wqkv"],
    "deberta-v2": ["query_proj", "value_proj"],
}
USUAL_NAMES = (["query", "value"], ["q_proj", "v_proj"], ["Wqkv"], ["query_key_value"], ["c_attn"])


def lora_config(lora: LoraSection, model: "PreTrainedModel", new_modules: tuple[str, ...] = ()) -> "LoraConfig":
    """PEFT's config for this base; `auto` targets are resolved.

    Args:
        new_modules: of `load_base`, saved whole beside `lora.modules_to_save` and the head. PEFT by itself knows only a
            head named `classifier` or `score`, and would lose ModernBERT's `head` and DeBERTa's `pooler`.

    Raises:
        ConfigError: the rank exceeds the hidden size, a target module or layer is not in the base.
    """
    from peft import LoraConfig, TaskType

    hidden = int(getattr(model.config, "hidden_size", None) or model.config.dim)
    if lora.r > hidden:
        raise ConfigError(
            f"`lora.r` must be at most {hidden} (hidden size of {model.config.model_type}), got {lora.r}. Lower it."
        )
    settings = lora.model_dump()
    settings["target_modules"] = target_modules(lora, model)
    settings["modules_to_save"] = sorted({*(lora.modules_to_save or []), *new_modules, *_heads(model)}) or None
    if settings["target_modules"] == "all-linear":
        settings["exclude_modules"] = _own_head(model, new_modules) or None
    settings["fan_in_fan_out"] = _is_transposed(model, settings["target_modules"])
    _check_layers(lora, model)
    return LoraConfig(task_type=TaskType.SEQ_CLS, **settings)


def _heads(model: "PreTrainedModel") -> list[str]:
    """What is on top of the base, new or its own: it is trained and saved, so that an adapter brings all of it."""
    children = model.named_children()
    return [n for n, child in children if n != model.base_model_prefix and next(child.parameters(), None) is not None]


def target_modules(lora: LoraSection, model: "PreTrainedModel") -> str | list[str]:
    """Names of the modules that get an adapter.

    Raises:
        ConfigError: a named module is not in the base; lists the ones that are.
    """
    known = linear_names(model)
    if lora.target_modules == "all-linear":
        if lora.layers_to_transform is None:
            return "all-linear"
        if not known:
            raise ConfigError(
                f"`lora.layers_to_transform` needs names in `lora.target_modules` here: {model.config.model_type} has "
                "no plain linear modules."
            )
        return known  # PEFT takes layers only beside names
    if isinstance(lora.target_modules, str):
        wished = QUERY_VALUE.get(model.config.model_type)
        for names in [wished] if wished else USUAL_NAMES:
            if set(names) <= set(known):
                return list(names)
        raise ConfigError(
            f"`lora.target_modules: auto` knows no query and value projections of {model.config.model_type}. "
            f"Name them; linear modules there: {', '.join(known)}."
        )
    for wanted in lora.target_modules:
        found = [module for name, module in model.named_modules() if f".{name}".endswith(f".{wanted}")]
        unfit = [type(module).__name__ for module in found if not isinstance(module, _adaptable())]
        if found and not unfit:
            continue
        kind = model.config.model_type
        wrong = (
            f"'{wanted}' of {kind} is a {unfit[0]}, which LoRA cannot adapt"
            if unfit
            else f"{kind} has no module '{wanted}'"
        )
        raise ConfigError(f"`lora.target_modules`: {wrong}. Linear modules there: {', '.join(known)}.")
    return lora.target_modules


def _adaptable() -> tuple[type, ...]:
    """What PEFT has LoRA layers for (`peft.tuners.lora.layer.dispatch_default`)."""
    from torch import nn

    return (*_linear(), nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


def _own_head(model: "PreTrainedModel", new_modules: tuple[str, ...]) -> list[str]:
    """Linear modules of a head that came with the base: PEFT's `all-linear` leaves out only the last one, and of
    DistilBERT's it would then save whole (`modules_to_save`) what it has just adapted."""
    known = (f"{model.base_model_prefix}.", *(f"{name}." for name in new_modules))
    names = [name for name, module in model.named_modules() if isinstance(module, _linear())]
    return [name for name in names if not f"{name}.".startswith(known)]


def linear_names(model: "PreTrainedModel") -> list[str]:
    """Last names of the base's linear modules, GPT-2's `Conv1D` among them, head left out, each once."""
    named = model.base_model.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in named if isinstance(module, _linear())})


def _linear() -> tuple[type, ...]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return nn.Linear, Conv1D


def _check_layers(lora: LoraSection, model: "PreTrainedModel") -> None:
    count = int(getattr(model.config, "num_hidden_layers", None) or model.config.n_layers)
    wrong = [layer for layer in lora.layers_to_transform or [] if not 0 <= layer < count]
    if wrong:
        raise ConfigError(f"`lora.layers_to_transform` must be within 0..{count - 1}, got {wrong}.")


def _is_transposed(model: "PreTrainedModel", targets: str | list[str]) -> bool:
    """Whether what is adapted keeps its weights as [in, out], as GPT-2 does; PEFT would find out with a warning."""
    from transformers.pytorch_utils import Conv1D

    wanted = targets if isinstance(targets, list) else linear_names(model)
    found = [m for n, m in model.base_model.named_modules() if any(f".{n}".endswith(f".{name}") for name in wanted)]
    return any(isinstance(module, Conv1D) for module in found)


def check_positions(model: "PreTrainedModel", max_length: int) -> None:
    """Raises:
    ConfigError: the base has a learned position for fewer tokens than a row may have.
    """
    from torch import nn

    for name, module in model.base_model.named_modules():
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and (leaf == "wpe" or ("position" in leaf and "relative" not in leaf)):
            # RoBERTa's begin after the padding's, OPT's and BART's after two that are not used
            unused = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            if max_length > module.num_embeddings - unused:
                raise ConfigError(
                    f"`data.max_length` must be at most {module.num_embeddings - unused} (positions of "
                    f"{model.config.model_type}), got {max_length}. Lower it."
                )


def attach_adapter(model: "PreTrainedModel", config: "LoraConfig") -> "PeftModel":
    """The base frozen, with new LoRA matrices and its head trainable; both are fp32 whatever the base is held in."""
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer
    from torch import nn

    from raylora.model.lora.dropout import DropoutContext, MaskedDropout
    from raylora.model.lora.fused import FusedLinear
    from raylora.model.lora.positions import calls_with_rows

    config._register_custom_module({nn.Linear: FusedLinear})  # pyright: ignore[reportPrivateUsage]
    peft_model = get_peft_model(model, config)
    context = DropoutContext()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):  # PEFT draws in fp32, and rounds to the base's bf16 on the way
            module.reset_lora_parameters("default", True)
            if isinstance(dropout := module.lora_dropout["default"], nn.Dropout):
                above, _, leaf = name.rpartition(".")
                rows = calls_with_rows(model.get_submodule(above), leaf)
                module.lora_dropout["default"] = MaskedDropout(dropout.p, name, context, rows)
    assert model.accepts_loss_kwargs is False, "the base must come from load_base, or the loss grows with world size"
    return peft_model  # pyright: ignore[reportReturnType]
