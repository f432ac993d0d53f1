"""A graph in ONNX Runtime, called as the model that it was made from."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from raylora.errors import ConfigError

NEEDED = ("onnx", "onnxruntime", "onnxscript")


def check_installed() -> None:
    """Raises:
    ConfigError: a package of the extra `export` is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--to onnx needs {', '.join(missing)}: pip install 'raylora[export]'.")


class OnnxModel:
    """Takes what a classifier of Transformers takes, gives its `logits`; on as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names: list[str] = [each.name for each in self.session.get_inputs()]

    def __call__(self, **batch: Tensor) -> SimpleNamespace:
        """A row of a single text has no `token_type_ids`: they are 0."""
        ids = batch["input_ids"]
        fed = {name: batch.get(name, torch.zeros_like(ids)).numpy() for name in self.names}
        return SimpleNamespace(logits=torch.from_numpy(self.session.run(["logits"], fed)[0]))


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Exporters speak of what they may be asked to do one day, and of packages that are not installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
