"""An adapter as a plain PEFT folder: saved with its manifest, its tokenizer and a model card, loaded again."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.errors import ModelError
from raylora.model.base.find import BaseFolder, licence_of
from raylora.model.base.load import load_tokenizer
from raylora.model.lora.card import Facts, adapter_card
from raylora.model.lora.manifest import MANIFEST, Manifest, read_manifest

CARD = "README.md"

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


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


def save_adapter(model: "PeftModel", base: BaseFolder, manifest: Manifest, folder: Path) -> None:
    """Write the adapter as PEFT does, with the base's tokenizer, `raylora.json` and a model card.

    `base_model_name_or_path` is what plain PEFT can load at this moment: the hub id where the base came from the hub
    or its cache, else the folder it was loaded from. `raylora.json` always holds the id and the weights' digest. An
    adapter that is in the folder is replaced.

    Raises:
        ModelError: something else is there, which is left alone.
    """
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path = base.id if base.origin.startswith("hub") else base.path
    config.revision = base.revision
    _make_room(folder)
    # False: LoRA leaves the embeddings alone, and PEFT's "auto" asks the hub whether they changed
    model.save_pretrained(str(folder), save_embedding_layers=False)
    tokenizer = load_tokenizer(base.path)
    tokenizer.save_pretrained(str(folder))
    card = adapter_card(manifest, _card_facts(model, base, manifest, tokenizer.pad_token_id))
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _card_facts(model: "PeftModel", base: BaseFolder, manifest: Manifest, pad_token_id: Any) -> Facts:
    config: Any = model.peft_config["default"]
    # `all-linear` is by whole paths
    adapted = sorted({name.rpartition(".")[2] for name in config.target_modules or []})
    settings = _own_settings(model, base, manifest, pad_token_id)
    return Facts(config.r, config.lora_alpha, tuple(adapted), settings, licence_of(base))


def _make_room(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds other files than an adapter; they are not deleted. Name a folder of its own.")
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file, not a folder for an adapter.")
    shutil.rmtree(folder, ignore_errors=True)


def _own_settings(model: "PeftModel", base: BaseFolder, manifest: Manifest, pad_token_id: Any) -> dict[str, Any]:
    """What plain Transformers must be told that the base's config does not say."""
    settings: dict[str, Any] = {}
    if manifest.pooling != "auto":
        settings["classifier_pooling"] = getattr(model.get_base_model().config, "classifier_pooling", None)
    config = json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8"))
    if config.get("pad_token_id") != pad_token_id:
        settings["pad_token_id"] = pad_token_id
    if getattr(model.get_base_model(), "other_labels", False):
        settings["ignore_mismatched_sizes"] = True
    return settings


def load_adapter(model: "PreTrainedModel", folder: Path) -> "PeftModel":
    """The base with a saved adapter on it, for prediction.

    Raises:
        ModelError: the weights are unreadable, do not fit the base, or are not LoRA's.
    """
    from peft import PeftModel

    read_manifest(folder)  # PEFT would take adapter_model.bin, a pickle, where there are no safetensors
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
