"""Tiny random base models of every supported layout, and token tables to fit them on."""

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, set_seed

from raylora.cluster.data.split import divide, text_hash
from raylora.config import Job
from raylora.demo import REVIEWS
from raylora.model.base.find import resolve, weights_digest
from raylora.model.base.load import load_base, load_tokenizer, read_config
from raylora.model.collator import Collator
from raylora.model.fit.splits import Splits
from raylora.model.lora.attach import attach_adapter, lora_config
from raylora.model.lora.manifest import Manifest
from raylora.model.lora.save import save_adapter
from raylora.model.tokens import TokenTable, encode, table_of, tokenizer_spec
from raylora.tasks import task_of

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
LAYOUTS: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "roberta": SHAPE | {"max_position_embeddings": 160},
    "xlm-roberta": SHAPE | {"max_position_embeddings": 160},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "modernbert": SHAPE | {"global_attn_every_n_layers": 2, "local_attention": 16},
    "deberta-v2": SHAPE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "llama": SHAPE | {"num_key_value_heads": 1},
}
# not packed and not mixed with others: its layers keep their weights the other way round
OTHERS: dict[str, dict[str, Any]] = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 64}}


@lru_cache(maxsize=4)
def wordpiece(size: int) -> Tokenizer:
    """A lower-case WordPiece tokenizer of the demo reviews' letters and commonest words.

    `tokenizers`' own trainer breaks ties by a hash of the process, so that no two sessions would test the same base.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    texts = [json.loads(line)["text"] for line in REVIEWS.read_text(encoding="utf-8").splitlines()]
    counts = Counter(w for text in texts for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces[:size])}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def save_tokenizer(folder: Path, vocabulary: int, inputs: list[str]) -> int:
    """Write the tokenizer; returns the size of its vocabulary."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece(vocabulary),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=inputs,
    )
    fast.save_pretrained(str(folder))
    return len(fast)


def save_base(kind: str, folder: Path, vocabulary: int = 800, **changes: Any) -> None:
    """A random base model with its tokenizer, as `from_pretrained` reads it."""
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "bert" else [])
    size = save_tokenizer(folder, vocabulary, inputs)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    settings = {"vocab_size": size} | special | (LAYOUTS | OTHERS)[kind] | changes
    set_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings))
    with torch.no_grad():  # the usual init of 0.02 leaves so small a network nearly constant
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    model.save_pretrained(str(folder))


def tiny_job(base: Path, **changes: Any) -> Job:
    """Everything random off, and in fp32 on every machine, so that only the maths is left."""
    settings = {
        "model.base_model": str(base),
        "lora.lora_dropout": 0.0,
        "lora.target_modules": "auto",
        "lora.r": 4,
        "train.bf16": False,
        "train.floor": False,
        "train.num_train_epochs": 1,
        "train.per_device_train_batch_size": 8,
        "train.learning_rate": 0.01,
        "data.max_length": 64,
    }
    return Job().replace(settings | {key.replace("__", "."): value for key, value in changes.items()})


def make_adapter(
    base: Path,
    folder: Path,
    labels: tuple[str, ...],
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """An adapter of random weights on a base, saved as a run saves it; `changes` as of `tiny_job`.

    Args:
        facts: of the manifest: problem_type, is_pair, thresholds, min_scores.
    """
    job = tiny_job(base, **changes)
    source = resolve(job.model)
    tokenizer = load_tokenizer(str(base))
    set_seed(seed)
    loaded = load_base(source, read_config(source, labels, dropout=False), tokenizer.pad_token_id)
    model = attach_adapter(loaded.model, lora_config(job.lora, loaded.model, loaded.new_modules))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:  # large enough that each adapter says something else
                parameter.copy_(torch.randn_like(parameter) * (0.3 if "lora_" in name else 0.5))
    manifest = Manifest(labels, str(base), None, weights_digest(source), job.data.max_length, **facts or {})
    save_adapter(model, source, manifest, folder)
    return folder


def demo_splits(job: Job, base: Path, rows: int) -> Splits:
    """The first `rows` demo reviews, split as a job splits them."""
    reviews = [json.loads(line) for line in REVIEWS.read_text(encoding="utf-8").splitlines()[:rows]]
    labels = ("negative", "positive")
    texts = [review["text"] for review in reviews]
    ids = np.array([labels.index(review["label"]) for review in reviews])
    hashes = np.array([text_hash(text, None, job.split_seed) for text in texts], dtype=np.uint64)
    parts = divide(hashes, ids, ids, list(labels), job.data.validation_fraction)
    spec = tokenizer_spec(load_tokenizer(str(base)), job.data.max_length)
    encoded = encode(texts, spec)
    lengths = table_of(encoded).lengths

    def table(rows: np.ndarray) -> TokenTable:
        return TokenTable([encoded], rows, ids[rows], lengths[rows])

    return Splits(table(parts.train), table(parts.validation), None, labels, spec, {})


WORDS = ("the", "and", "movie", "was", "with", "very", "good", "bad", "story", "acting", "food", "place")


def task_splits(job: Job, base: Path, rows: int = 120, numbers: int = 1) -> Splits:
    """Rows of made-up texts for the job's problem type; the last fifth is the test split, the one before validation.

    A row carries the label of each of three words that it holds; its numbers, of mean 20, tell how much more often it
    holds one of them than the next. One label a row: one in a hundred is rare, and holds a word that one in twenty of
    the others holds, too.
    """
    random = np.random.default_rng(3)
    words = random.choice(WORDS[:6], (rows, 6)).astype(object)
    planted = random.random((rows, 3)) < 0.4
    is_rare = np.arange(rows) % 100 == 7
    task = task_of(job.data.problem_type)
    if task.problem_type == "single_label_classification":
        planted, labels, targets = (is_rare | (random.random(rows) < 0.05))[:, None], ("common", "rare"), is_rare + 0
    elif task.problem_type == "regression":
        labels = tuple(f"number_{i}" for i in range(numbers))
        targets = (20 + 10 * (planted[:, :numbers] * 2.0 - planted[:, 1 : numbers + 1])).astype(np.float32)
    else:
        labels, targets = WORDS[6:9], planted.astype(np.float32)
    for i, mark in enumerate(planted.T):
        words[mark, i] = WORDS[6 + i]
    spec = tokenizer_spec(load_tokenizer(str(base)), job.data.max_length)
    encoded = encode([" ".join(random.permutation(text)) for text in words], spec)
    lengths = table_of(encoded).lengths

    def table(start: int, end: int) -> TokenTable:
        places = np.arange(start * rows // 5, end * rows // 5)
        return TokenTable([encoded], places, targets[places], lengths[places])

    return Splits(table(0, 3), table(3, 4), table(4, 5), labels, spec, {"made": "up"}, task=task)


def task_texts(splits: Splits, table: TokenTable) -> list[str]:
    """Texts that tokenize to the rows of a table of `task_splits`."""
    tokenizer = Tokenizer.from_str(splits.tokenizer.state)
    return [tokenizer.decode(ids.tolist()).replace(" ##", "") for ids in Collator(table, splits.tokenizer).tokens()]


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The way between two adapters, in terms of how far their matrices B, which start at zero, have gone."""
    difference = sum(float((one[name].cpu() - other[name].cpu()).square().sum()) for name in other)
    gone = sum(float(tensor.square().sum()) for name, tensor in other.items() if "lora_B" in name)
    return (difference / gone) ** 0.5


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Of any one weight between two states of the same adapter."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
