"""A labelled text file to an autoscaling endpoint of LoRA adapters, on a laptop or a Ray cluster."""

from os import PathLike, fspath
from typing import TYPE_CHECKING

from raylora.version import __version__

if TYPE_CHECKING:
    from raylora.model.predictor import Predictor

__all__ = ["__version__", "load"]


def load(
    path: str | PathLike[str], trust_remote_code: bool = False, base_model: str | PathLike[str] | None = None
) -> "Predictor":
    """The adapter in a folder, or of a run (`runs/x`), here or on object storage (s3://, gs://), ready to predict.

    Args:
        trust_remote_code: run Python code that comes with the base model.
        base_model: a local folder or hub id in place of the one that the adapter names; its weights must be the same.

    Raises:
        raylora.errors.ModelError: the folder is not an adapter or cannot be read, or its base model cannot be found.
    """
    from raylora.cluster.serve import adapter_folders as folders
    from raylora.cluster.storage.filesystem import is_remote, plain
    from raylora.errors import ModelError
    from raylora.model.predictor import Predictor

    address, named = plain(fspath(path)), None if base_model is None else fspath(base_model)
    try:
        place = folders.adapter_in(address)
        if place is None and not is_remote(address) and not folders.is_run(address):
            place = folders.AdapterLocation(address, "")  # the reader says what is missing
        with folders.local(folders.there(address, place)) as folder:
            return Predictor(folder, trust_remote_code, named)
    except OSError as error:
        raise ModelError(f"adapter {address} cannot be read: {error}") from None
