"""What an export tells of the adapter it was made from: in its config, in its mark, and on its card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylora.errors import ModelError
from raylora.model.base.find import BaseFolder, licence_of
from raylora.model.lora.card import Facts, base_name, body, front_matter
from raylora.model.lora.manifest import Manifest
from raylora.tasks.markdown import code
from raylora.version import __version__

MARK = "raylora_export.json"  # a folder that holds it is an export's, and may be written anew
TOLD = (
    "problem_type",
    "labels",
    "thresholds",
    "min_scores",
    "is_pair",
    "max_length",
    "truncation",
    "stride",
    "max_windows",
)


def told(manifest: Manifest) -> dict[str, Any]:
    """What a user of the exported model must know that Transformers' own config has no key for."""
    return {name: value for name, value in asdict(manifest).items() if name in TOLD}


def mark(manifest: Manifest, kind: str, measured: dict[str, Any]) -> str:
    """The mark's text.

    Args:
        measured: what was found when the export was checked.
    """
    of = {"base_model": manifest.base_model, "base_digest": manifest.base_digest, "metrics": manifest.metrics}
    return json.dumps({"kind": kind, "raylora": __version__, **told(manifest), **of, **measured}, indent=2) + "\n"


def lora_facts(folder: Path, base: BaseFolder) -> Facts:
    """Of a saved adapter, for a card.

    Raises:
        ModelError: its adapter_config.json is broken.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        targets = config["target_modules"] or []
        names = sorted({name.rpartition(".")[2] for name in ([targets] if isinstance(targets, str) else targets)})
        return Facts(config["r"], config["lora_alpha"], tuple(names), licence=licence_of(base))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}/adapter_config.json is broken: {error}") from None


def exported_card(manifest: Manifest, facts: Facts, library: str, title: str, use: str) -> str:
    """README.md of an export.

    Args:
        library: the hub's name of what loads it.
        title: what it is, before the base's name.
        use: a section of Markdown.
    """
    head = front_matter(manifest, facts.licence, library, ("raylora",))
    return f"{head}\n# {title} {code(base_name(manifest))}\n\n{body(manifest, facts)}\n## How to load it\n\n{use}"
