"""A labelled text file to an autoscaling endpoint of LoRA adapters, on a laptop or a Ray cluster."""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raylora.model.predictor import Predictor

__version__ = "0.1.0"


def load(path: str | PathLike[str], trust_remote_code: bool = False) -> "Predictor":
    """The adapter in a folder (`runs/x/adapter`), ready to predict.

    Args:
        trust_remote_code: run Python code that comes with the base model.

    Raises:
        raylora.errors.ModelError: the folder is not an adapter, or its base model cannot be found.
    """
    from raylora.model.predictor import Predictor

    return Predictor(Path(path), trust_remote_code)
