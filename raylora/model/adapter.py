"""A LoRA adapter on a base model: attach, save as a plain PEFT folder with its card, load again."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.config import LoraSection, ModelSection
from raylora.errors import ConfigError, ModelError
from raylora.floor import BASELINES, WORDS
from raylora.model.find import BaseFolder

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

CARD = "raylora.json"

# Query and value projections by architecture (Hu et al. 2021, sec. 4.2: adapting these two does best per parameter).
# PEFT's own table has no DistilBERT, and takes ModernBERT's and DeBERTa's fused or renamed layers differently.
QUERY_VALUE = {
    "distilbert": ["q_lin", "v_lin"],
    "modernbert": ["Wqkv"],
    "deberta-v2": ["query_proj", "value_proj"],
}
USUAL_NAMES = (["query", "value"], ["q_proj", "v_proj"], ["Wqkv"], ["query_key_value"], ["c_attn"])


@dataclass(frozen=True)
class Card:
    """What is saved beside the weights: all that serving needs. `labels` are in id order."""

    labels: tuple[str, ...]
    base_model: str
    revision: str | None
    base_digest: str
    max_length: int
    problem_type: str = "single_label_classification"
    pooling: str = "auto"
    metrics: dict[str, Any] = field(default_factory=dict)
    floor: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def lora_config(lora: LoraSection, model: "PreTrainedModel", new_modules: tuple[str, ...] = ()) -> "LoraConfig":
    """PEFT's config for this base; `auto` targets are resolved.

    Args:
        new_modules: of `load_base`, saved whole beside `lora.modules_to_save`. PEFT by itself knows only a head named
            `classifier` or `score`, and would lose ModernBERT's `head` and DeBERTa's `pooler`.

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
    settings["modules_to_save"] = sorted({*(lora.modules_to_save or []), *new_modules}) or None
    if settings["target_modules"] == "all-linear":
        settings["exclude_modules"] = _own_head(model, new_modules) or None
    _check_layers(lora, model)
    return LoraConfig(task_type=TaskType.SEQ_CLS, **settings)


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
    from transformers.pytorch_utils import Conv1D

    return (nn.Linear, Conv1D, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


def _own_head(model: "PreTrainedModel", new_modules: tuple[str, ...]) -> list[str]:
    """Linear modules of a head that came with the base: PEFT's `all-linear` leaves out only the last one, and of
    DistilBERT's it would then save whole (`modules_to_save`) what it has just adapted."""
    from torch import nn

    known = (f"{model.base_model_prefix}.", *(f"{name}." for name in new_modules))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in names if not f"{name}.".startswith(known)]


def linear_names(model: "PreTrainedModel") -> list[str]:
    """Last names of the base's linear modules, head left out, each once."""
    from torch import nn

    inside = model.base_model
    return sorted({name.rpartition(".")[2] for name, module in inside.named_modules() if isinstance(module, nn.Linear)})


def _check_layers(lora: LoraSection, model: "PreTrainedModel") -> None:
    count = int(getattr(model.config, "num_hidden_layers", None) or model.config.n_layers)
    wrong = [layer for layer in lora.layers_to_transform or [] if not 0 <= layer < count]
    if wrong:
        raise ConfigError(f"`lora.layers_to_transform` must be within 0..{count - 1}, got {wrong}.")


def attach(model: "PreTrainedModel", config: "LoraConfig") -> "PeftModel":
    """The base frozen, with new LoRA matrices and its head trainable; both are fp32 whatever the base is held in."""
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer
    from torch import nn

    from raylora.model.dropout import MaskedDropout

    peft_model = get_peft_model(model, config)
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):  # PEFT draws in fp32, and rounds to the base's bf16 on the way
            module.reset_lora_parameters("default", True)
            if isinstance(dropout := module.lora_dropout["default"], nn.Dropout):
                module.lora_dropout["default"] = MaskedDropout(dropout.p)
    assert model.accepts_loss_kwargs is False, "the base must come from load_base, or the loss grows with world size"
    return peft_model  # pyright: ignore[reportReturnType]


def trainable_state(model: "PeftModel") -> "dict[str, Tensor]":
    """A copy on the CPU of every trainable weight, by parameter name."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def set_trainable_state(model: "PeftModel", state: "dict[str, Tensor]") -> None:
    """Write a `trainable_state` back.

    Raises:
        ModelError: the names differ: the state is of another adapter.
    """
    import torch

    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if own.keys() != state.keys():
        raise ModelError(f"the saved adapter has other weights: {sorted(own.keys() ^ state.keys())[:4]}.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def save(model: "PeftModel", tokenizer: Any, base: BaseFolder, card: Card, folder: Path) -> None:
    """Write the adapter as PEFT does, with the tokenizer, `raylora.json` and a model card.

    `base_model_name_or_path` is what plain PEFT can load at this moment: the hub id where the base came from the hub
    or its cache, else the folder it was loaded from. `raylora.json` always holds the id and the weights' digest.
    """
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = base.id if base.origin.startswith("hub") else base.path
    config.revision = base.revision
    shutil.rmtree(folder, ignore_errors=True)
    # False: LoRA leaves the embeddings alone, and PEFT's "auto" asks the hub whether they changed
    model.save_pretrained(str(folder), save_embedding_layers=False)
    tokenizer.save_pretrained(str(folder))
    pooled = getattr(model.get_base_model().config, "classifier_pooling", None)
    (folder / "README.md").write_text(_readme(card, config, pooled), encoding="utf-8")
    (folder / CARD).write_text(json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def base_of(card: Card, trust_remote_code: bool = False) -> ModelSection:
    """The base that an adapter names; whether its code may run is the reader's to say, never the card's."""
    asked = {"base_model": card.base_model, "revision": card.revision, "pooling": card.pooling}
    return ModelSection.model_validate({**asked, "trust_remote_code": trust_remote_code})


def read_card(folder: Path) -> Card:
    """The card of a saved adapter.

    Raises:
        ModelError: the folder is not an adapter of raylora's; says what is missing.
    """
    if not folder.is_dir():
        raise ModelError(f"adapter {folder} is not there. It is the folder `adapter` inside a run's folder.")
    missing = [n for n in (CARD, "adapter_config.json", "adapter_model.safetensors") if not (folder / n).is_file()]
    if missing:
        inside = " Did you mean its `adapter` folder?" if (folder / "adapter" / CARD).is_file() else ""
        raise ModelError(f"{folder} is not an adapter saved by raylora: {', '.join(missing)} missing.{inside}")
    try:
        fields: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        fields["labels"] = tuple(fields["labels"])
        return Card(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder / CARD} is broken: {error}") from None


def load_weights(model: "PreTrainedModel", folder: Path) -> "PeftModel":
    """The base with a saved adapter on it, for prediction.

    Raises:
        ModelError: the weights are unreadable, do not fit the base, or are not LoRA's.
    """
    from peft import PeftModel

    read_card(folder)  # PEFT would take adapter_model.bin, a pickle, where there are no safetensors
    _check_lora(folder)
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise ModelError(f"adapter {folder} does not load on {model.config.model_type}: {error}") from None
    except Exception as error:  # noqa: BLE001 - safetensors raises its own type for a broken file
        raise ModelError(f"{folder}/adapter_model.safetensors is broken: {error}") from None


def _check_lora(folder: Path) -> None:
    """Other kinds of PEFT's may name more folders and repositories to load from."""
    try:
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}/adapter_config.json is broken: {error}") from None
    if kind != "LORA":
        raise ModelError(f"adapter {folder} is of PEFT's kind {kind}; raylora loads LORA.")


def _floor_rows(floor: dict[str, Any]) -> str:
    """What baselines without an adapter reach, as more rows of the card's table."""
    return "".join(
        f"| {split}, {WORDS[baseline]} | {scores['accuracy']:.4f} | {scores['f1']:.4f} | | {floor[split]['rows']} |\n"
        for split in ("validation", "test")
        if split in floor
        for baseline in BASELINES
        if (scores := floor[split][baseline])
    )


def _readme(card: Card, config: "LoraConfig", own_pooling: str | None) -> str:
    rows = "".join(
        f"| {split} | {scores['accuracy']:.4f} | {scores['f1']:.4f} | {scores['loss']:.4f} | {scores['rows']} |\n"
        for split, scores in card.metrics.items()
    )
    id2label = dict(enumerate(card.labels))
    pooling = f', classifier_pooling="{own_pooling}"' if card.pooling != "auto" else ""
    floor = _floor_rows(card.floor)
    adapted = sorted(
        {name.rpartition(".")[2] for name in config.target_modules or []}
    )  # `all-linear` is by whole paths
    return f"""---
base_model: {card.base_model}
library_name: peft
pipeline_tag: text-classification
tags: [lora, raylora]
---
# LoRA adapter for {card.base_model}

Sorts texts into {len(card.labels)} labels: {", ".join(f"`{label}`" for label in card.labels[:30])}.
Rank {config.r}, alpha {config.lora_alpha}, on {", ".join(adapted)}; texts are cut at
{card.max_length} tokens. Trained with [raylora](https://pypi.org/project/raylora/).

| split | accuracy | F1 (macro) | loss | rows |
|---|---|---|---|---|
{rows}{floor}
```python
import raylora
raylora.load("adapter").predict(["a text"])
```
or without raylora (where `adapter_config.json` names a folder, `base_model_name_or_path` must be there too):
```python
from peft import AutoPeftModelForSequenceClassification
id2label = {id2label}
model = AutoPeftModelForSequenceClassification.from_pretrained(
    "adapter", num_labels={len(card.labels)}, id2label=id2label, label2id={{v: k for k, v in id2label.items()}}{pooling}
)
```
"""
