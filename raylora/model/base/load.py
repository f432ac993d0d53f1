"""The frozen network of a base model: its config, its tokenizer, its weights, and a new head."""

import json
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raylora.errors import ConfigError, ModelError
from raylora.model.base.find import BaseFolder
from raylora.tasks import ProblemType

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# how an architecture of Transformers calls each pooling, by its `classifier_pooling`
POOLINGS = {"modernbert": {"cls": "cls", "mean": "mean"}, "eurobert": {"cls": "bos", "mean": "mean"}}
# heads that see the first token, and nothing else
FIRST_TOKEN = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "albert",
)


def read_config(
    base: BaseFolder, labels: tuple[str, ...], dropout: bool, problem_type: ProblemType = "single_label_classification"
) -> Any:
    """The base's `transformers` config for these labels; `dropout` False sets every dropout of its own to 0.

    Raises:
        ModelError: the config cannot be read.
        ConfigError: the architecture cannot pool as `model.pooling` says.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            base.path,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            trust_remote_code=base.trust_remote_code,
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{base.path}/config.json cannot be used: {error}") from None
    config.problem_type = problem_type
    if base.pooling != "auto":
        _set_pooling(config, base.pooling)
    if not dropout:
        for name, value in config.to_dict().items():
            if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float):
                setattr(config, name, 0.0)
    return config


def _set_pooling(config: Any, pooling: str) -> None:
    """By the architecture's own setting, so that plain PEFT and Transformers load the very same adapter."""
    kind = config.model_type
    if kind in POOLINGS:
        config.classifier_pooling = POOLINGS[kind][pooling]
    elif pooling != "cls" or kind not in FIRST_TOKEN:
        raise ConfigError(
            f"`model.pooling: {pooling}`: Transformers' classifier of {kind} does not pool so, and an adapter that "
            f"does would not load with plain PEFT. Set auto; {' and '.join(POOLINGS)} have both."
        )


def pooling_of(base: BaseFolder) -> str:
    """What a reader of the adapter must set: `auto` where the architecture has no choice."""
    kind = json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8")).get("model_type")
    return base.pooling if kind in POOLINGS else "auto"


def load_tokenizer(path: str) -> "PreTrainedTokenizerBase":
    """The fast tokenizer in a folder, with a padding token. It is data; code that comes with it is never run.

    Raises:
        ModelError: there is none, or no token can serve as padding.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"no tokenizer can be loaded from {path}: {error}") from None
    if not tokenizer.is_fast:
        raise ModelError(f"{path} has no fast tokenizer (tokenizer.json), which raylora needs.")
    if tokenizer.pad_token_id is None:  # decoders are trained without padding
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer in {path} has neither a padding nor an end token.")
    return tokenizer


def check_vocabulary(base: BaseFolder, model: "PreTrainedModel") -> None:
    """Raises:
    ModelError: the tokenizer has an id that the embedding has no row for; a text with it would end any run.
    """
    highest = _highest_id(base.path)
    embedding: Any = model.get_input_embeddings()
    rows = len(embedding.weight)
    if highest >= rows:
        raise ModelError(
            f"base model {base.id}: its tokenizer has ids up to {highest}, its embedding {rows} rows. Take the "
            "tokenizer that belongs to it, or, once: model.resize_token_embeddings(len(tokenizer)), and save both."
        )


@lru_cache(maxsize=8)
def _highest_id(path: str) -> int:
    """That a tokenizer can make of any text; a sweep asks for each of its samples."""
    return max(load_tokenizer(path).get_vocab().values())


@dataclass(frozen=True)
class LoadedBase:
    """A base with its head. `new_modules` hold weights the base's files do not have, or have for other labels: drawn at
    random, so they must be trained and saved with the adapter, or a reloaded adapter predicts something else. The model
    has them too, as an attribute of that name, and `other_labels`: whether the base's own head was for others."""

    model: "PreTrainedModel"
    new_modules: tuple[str, ...]


def load_base(
    base: BaseFolder,
    config: Any,
    pad_token_id: int,
    dtype: torch.dtype = torch.float32,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> LoadedBase:
    """The base in `dtype` with a new fp32 head of `config.num_labels` outputs, every weight trainable.

    The head is drawn from torch's global generator: the same bits for any `dtype`, from disk or from `weights`.

    Args:
        pad_token_id: the tokenizer's, which fills batches.
        weights: the base's tensors by name (`base_weights`), used in place of its files. They are not copied where
            they are of `dtype`: memory shared by several processes stays shared, and must not be written to.

    Raises:
        ModelError: the weights cannot be loaded, or the architecture has no classification head.
    """
    from transformers import AutoModelForSequenceClassification

    if config.pad_token_id is None:
        config.pad_token_id = pad_token_id
    options: dict[str, Any] = {"config": config, "dtype": dtype, "output_loading_info": True, "use_safetensors": True}
    options["ignore_mismatched_sizes"] = True  # a head for other labels; below, nothing else may differ
    state = torch.get_rng_state()
    try:
        with _quiet():
            if weights is None:
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    base.path, trust_remote_code=base.trust_remote_code, **options
                )
            else:
                kind: Any = type(empty_base(base, config))
                model, report = kind.from_pretrained(None, state_dict=dict(weights), **options)
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"base model {base.id} cannot be loaded from {base.path}: {error}") from None
    other_sizes = sorted(name for name, *_ in report["mismatched_keys"])
    for name, held, wanted in report["mismatched_keys"]:
        is_head = wanted[0] == config.num_labels and held[1:] == wanted[1:]
        if not is_head or name.startswith(f"{model.base_model_prefix}."):
            raise ModelError(f"base model {base.id}: {name} in {base.path} has another shape than config.json says.")
    new: set[str] = {*report["missing_keys"], *other_sizes}
    model.new_modules = _modules_of(new, model.base_model_prefix)
    if other_sizes:  # what else is in such a module was trained for other labels, too
        heads = tuple(f"{module}." for module in model.new_modules)
        new |= {name for name, _ in model.named_parameters() if name.startswith(heads)}
    if dtype != torch.float32 or other_sizes:
        _redraw(model, new, state)
    model.other_labels = bool(other_sizes)
    set_padding(model, pad_token_id)
    # without this the loss and its gradient grow with accumulation and world size (transformers#47688)
    model.accepts_loss_kwargs = False
    return LoadedBase(model, model.new_modules)


@contextmanager
def _quiet() -> Generator[None]:
    """The head is new by design; transformers' report says so at length."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def set_padding(model: "PreTrainedModel", pad_token_id: int) -> None:
    """Tell a decoder's head what fills a batch: it pools at the last token that is not that one.

    The config's own may be another than the tokenizer's. Set on a model that is made already: what RoBERTa's positions
    begin at is taken from the config's own, before.
    """
    own: Any = model.config
    for config in (own, own.get_text_config()):
        config.pad_token_id = pad_token_id


def _redraw(model: Any, names: Iterable[str], state: torch.Tensor) -> None:
    """Draw new weights again, in fp32: drawn in bf16, they are the same numbers rounded to 8 bits."""
    torch.set_rng_state(state)
    for name in names:
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, leaf, torch.nn.Parameter(torch.empty_like(getattr(module, leaf), dtype=torch.float32)))
        parts = path.split(".")
        for depth in range(len(parts) + 1):  # parents too: ModernBERT draws its head's weights from above
            model.get_submodule(".".join(parts[:depth]))._is_hf_initialized = False
    model.initialize_weights()


def base_weights(loaded: LoadedBase) -> dict[str, np.ndarray]:
    """The base's own tensors (no head) as arrays over the same memory, to share; bf16 travels as uint16."""
    new = tuple(f"{module}." for module in loaded.new_modules)
    state = loaded.model.state_dict()
    return {name: as_array(tensor) for name, tensor in state.items() if not name.startswith(new)}


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The same memory; numpy has no bf16, so its bits are uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """`as_array` undone. Torch warns once of memory that may not be written to, which shared memory may not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor


def _modules_of(names: Iterable[str], prefix: str) -> tuple[str, ...]:
    """The outermost modules that hold these weights: `classifier`, `head`; inside the base itself, `bert.pooler`."""
    parts = [name.split(".") for name in names]
    return tuple(sorted({".".join(path[: 2 if path[0] == prefix else 1]) for path in parts}))


def empty_base(base: BaseFolder, config: Any) -> "PreTrainedModel":
    """The base's modules without weights (meta device), to check a config against in milliseconds."""
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=base.trust_remote_code)
    except ValueError as error:
        kind = json.loads((Path(base.path) / "config.json").read_text()).get("model_type")
        raise ModelError(f"base model {base.id} ({kind}) has no sequence-classification head: {error}") from None
    model.accepts_loss_kwargs = False
    return model
