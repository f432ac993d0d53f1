"""An adapter, or the model merged from it, to a repository on the Hugging Face hub."""

import json
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.cluster.export.folder import written
from raylora.cluster.export.job import COPIES, Wanted, adapter_of, predictor_of, sizes, weights_bytes, write
from raylora.errors import ConfigError, HubError
from raylora.model.lora.manifest import MANIFEST
from raylora.model.lora.save import CARD
from raylora.model.predictor import Predictor
from raylora.records import Say

ADVICE = "The token is HF_TOKEN's, or that of `hf auth login`; it must be one that may write."
PATHS = ("data.train", "data.validation", "data.test", "storage_path")  # of a manifest's config: of this machine


@dataclass(frozen=True)
class Repository:
    """Args:
    id: `owner/name`.
    private: whether nobody else sees it, where it is new; None = as the owner's settings say.
    """

    id: str
    private: bool | None = None


def push(wanted: Wanted, to: Repository, merged: bool, dry_run: bool, say: Say) -> None:
    """Upload the adapter, or the model merged from it and checked.

    Args:
        dry_run: say what would be uploaded, and ask no network.

    Raises:
        RayLoraError: it cannot be made, or the hub refuses.
    """
    _check_id(to.id)
    with staged(wanted, merged, say) as folder:
        for name, size in sizes(folder).items():
            say(f"file       {size:>13,}  {name}")
        say(f"{'dry run' if dry_run else 'upload':<11}{sum(sizes(folder).values()) / 1e6:,.1f} MB to {to.id}")
        if not dry_run:
            say(f"output     {_upload(folder, to)}")


@contextmanager
def staged(wanted: Wanted, merged: bool, say: Say) -> Generator[Path]:
    """What is to be uploaded, in a folder of its own."""
    with adapter_of(wanted) as (folder, place), tempfile.TemporaryDirectory(prefix="raylora-export-") as scratch:
        predictor = predictor_of(folder, wanted)
        say(f"adapter    {place}  ({predictor.task.problem_type}, base {predictor.base.id})")
        target = Path(scratch) / "files"
        needed = round(COPIES["merged"] * weights_bytes(predictor)) if merged else sum(sizes(folder).values())
        with written(target, needed) as part:
            if merged:
                write("merged", predictor, part, None, say)
            else:
                _copy_adapter(predictor, part, wanted.base_model)
        yield target


def _copy_adapter(predictor: Predictor, folder: Path, base_model: str | None) -> None:
    """The adapter's files, naming a base that others can get, and without this machine's paths.

    Raises:
        ConfigError: the base is a folder, which nobody else has.
    """
    base = base_model or predictor.manifest.base_model
    if Path(base).is_absolute() or Path(base).is_dir():
        raise ConfigError(
            f"the adapter's base model is a folder of this machine, {base}, which nobody else has. Upload the whole "
            "model by --merged, or name the hub's id of the very same weights by --base-model."
        )
    for path in predictor.folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, folder / path.name)
    _change(folder / "adapter_config.json", {"base_model_name_or_path": base})
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    _change(folder / MANIFEST, {"base_model": base, "config": _without_paths(manifest.get("config", {}))})
    _name_base(folder / CARD, base)


def _name_base(card: Path, base: str) -> None:
    """In its metadata."""
    from huggingface_hub import ModelCard

    if card.is_file():
        held: Any = ModelCard.load(card)
        held.data.base_model = base
        held.save(card)


def _change(file: Path, values: dict[str, Any]) -> None:
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(held | values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A job's config with names of files in place of whole paths."""
    shown = json.loads(json.dumps(config))
    for key in PATHS:
        section, _, name = key.rpartition(".")
        tree = shown.get(section, {}) if section else shown
        if tree.get(name):
            tree[name] = _last(tree[name])
    if Path(str(shown.get("model", {}).get("base_model", ""))).is_absolute():
        shown["model"]["base_model"] = _last(shown["model"]["base_model"])
    return shown


def _last(value: str | list[str]) -> str | list[str]:
    return [Path(each).name for each in value] if isinstance(value, list) else Path(value).name


def _check_id(name: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--repo-id must be OWNER/NAME on the hub: {error}") from None


def _upload(folder: Path, to: Repository) -> str:
    """Returns:
    the address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="raylora")
    try:
        repo = api.create_repo(to.id, private=to.private, exist_ok=True)
        found: Any = api.upload_folder(
            repo_id=repo.repo_id, folder_path=folder, commit_message="Upload by raylora export"
        )
    except Exception as error:  # noqa: BLE001 - the hub client raises many types, of its own and of its HTTP library
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise HubError(f"the hub did not take {to.id}: {told[0]} {ADVICE}") from None
    return str(found.commit_url)
