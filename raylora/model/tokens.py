"""Text to token ids, and rows of ids to padded batches: one code for training, prediction and serving.

Imports no torch model code: Ray Data's tasks load it in milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

if TYPE_CHECKING:
    import torch

Text = str | tuple[str, str] | list[str]  # a text, or two: a pair


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer that travels by value.

    `state` is `tokenizers`' JSON with truncation set; `pad_id` fills a batch, on the left where `pad_left`;
    `type_ids` where the base tells the texts of a pair apart.
    """

    state: str
    pad_id: int
    pad_left: bool
    type_ids: bool


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many rows, in the Arrow chunks they came in; nothing is copied.

    `rows[i]` is the place of row i in all chunks laid end to end; `targets[i]` and `lengths[i]` belong to it.
    `frozen_states`, where there are any, holds per chunk the hidden states [tokens in the chunk, H] that enter the
    lowest layer that is not frozen (`frozen_states.compute`); uint16 stands for bf16.
    """

    chunks: Sequence[pa.Table]
    rows: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray
    frozen_states: Sequence[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> "TokenTable":
        """Some rows of the table."""
        return replace(self, rows=self.rows[places], targets=self.targets[places], lengths=self.lengths[places])


@lru_cache(maxsize=4)
def _tokenizer(state: str) -> Tokenizer:
    return Tokenizer.from_str(state)


def tokenizer_spec(tokenizer: Any, max_length: int) -> TokenizerSpec:
    """The spec of a fast `transformers` tokenizer that keeps `max_length` tokens of a row, special ones included."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    backend.no_padding()
    return TokenizerSpec(
        state=backend.to_str(),
        pad_id=tokenizer.pad_token_id,
        # XLNet's head sees the last place. All others see the last token or the first, and of those that count places
        # from the left (GPT-2), padding there would move each row by the longest of its batch; `padding_side: left` is
        # for generation.
        pad_left="XLNet" in type(tokenizer).__name__,
        type_ids="token_type_ids" in tokenizer.model_input_names,
    )


def encode(texts: Sequence[Text], spec: TokenizerSpec) -> pa.Table:
    """Columns `input_ids` list<int32>, and `token_type_ids` list<int8> where there are pairs and the base uses them."""
    return _table(texts, _tokenizer(spec.state).encode_batch_fast(list(texts)), spec)


def encode_measured(texts: Sequence[Text], spec: TokenizerSpec) -> pa.Table:
    """As `encode`, and a column `tokens` int32: how many the whole text has, special ones included, cut or not."""
    encodings = _tokenizer(spec.state).encode_batch_fast(list(texts))
    counts = _whole_lengths(texts, encodings, spec)
    return _table(texts, encodings, spec).append_column("tokens", pa.array(counts, pa.int32()))


def _table(texts: Sequence[Text], encodings: Sequence[Encoding], spec: TokenizerSpec) -> pa.Table:
    columns: dict[str, pa.Array] = {"input_ids": _lists([e.ids for e in encodings], pa.int32())}
    if spec.type_ids and not all(isinstance(text, str) for text in texts):
        columns["token_type_ids"] = _lists([e.type_ids for e in encodings], pa.int8())
    return pa.table(columns)


def _whole_lengths(texts: Sequence[Text], encodings: Sequence[Encoding], spec: TokenizerSpec) -> list[int]:
    special = special_tokens(spec)
    counts = [len(e) + sum(len(part) - special for part in e.overflowing) for e in encodings]
    cut = [i for i, e in enumerate(encodings) if e.overflowing and not isinstance(texts[i], str)]
    if cut:  # what is left of a pair comes in every combination of its parts
        tokenizer = Tokenizer.from_str(spec.state)
        tokenizer.no_truncation()
        for i, whole in zip(cut, tokenizer.encode_batch_fast([texts[i] for i in cut]), strict=True):
            counts[i] = len(whole)
    return counts


def special_tokens(spec: TokenizerSpec, pair: bool = False) -> int:
    """How many the tokenizer adds to each text, or pair."""
    return _tokenizer(spec.state).num_special_tokens_to_add(pair)


def vocabulary(spec: TokenizerSpec) -> list[str]:
    """Every piece of the tokenizer as text."""
    tokenizer = _tokenizer(spec.state)
    return tokenizer.decode_batch([[i] for i in range(tokenizer.get_vocab_size())])


def _lists(rows: list[list[int]], kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    flat = np.fromiter((i for row in rows for i in row), dtype=kind.to_pandas_dtype(), count=int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def table_of(encoded: pa.Table) -> TokenTable:
    """Rows to predict: every row of `encoded`, in order, with label id 0."""
    lengths = encoded["input_ids"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    count = len(lengths)
    return TokenTable([encoded], np.arange(count), np.zeros(count, dtype=np.int64), lengths.astype(np.int32))


class Collator:
    """Batches of a `TokenTable`, padded to their longest row."""

    def __init__(self, table: TokenTable, spec: TokenizerSpec) -> None:
        self.table, self.spec = table, spec
        self.starts = np.cumsum([0] + [chunk.num_rows for chunk in table.chunks])
        ids = [_ragged(chunk["input_ids"]) for chunk in table.chunks]
        self.offsets = [offsets for _, offsets in ids]
        self.columns = {"input_ids": [values for values, _ in ids]}
        has_types = ["token_type_ids" in chunk.column_names for chunk in table.chunks]
        if any(has_types):  # a chunk of single texts, or of no rows, has none
            self.columns["token_type_ids"] = [
                _ragged(chunk["token_type_ids"])[0] if has else np.zeros_like(values)
                for chunk, has, (values, _) in zip(table.chunks, has_types, ids, strict=True)
            ]

    def __call__(self, indices: np.ndarray) -> "dict[str, torch.Tensor]":
        """Rows `indices` of the table.

        Returns:
            input_ids [B, T] int64, attention_mask [B, T] int64 (1 = real token), labels [B] int64 (of other tasks than
            single label [B, C] float32), token_type_ids
            [B, T] int64 where rows are pairs, and frozen_states [B, T, H] (zero at padding) where the table has one.
        """
        import torch

        width = int(self.table.lengths[indices].max())
        batch = {name: np.full((len(indices), width), fill, dtype=np.int64) for name, fill in self._fills().items()}
        for i, index in enumerate(indices):
            span = self.span(index, width)
            chunk, flat = self.place(index)
            batch["attention_mask"][i, span] = 1
            for name, column in self.columns.items():
                batch[name][i, span] = column[chunk][flat]
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        if self.table.frozen_states is not None:
            tensors["frozen_states"] = self._states(indices, width, self.table.frozen_states)
        return {**tensors, "labels": torch.from_numpy(self.table.targets[indices])}

    def tokens(self) -> list[np.ndarray]:
        """Token ids of every row of the table."""
        places = (self.place(index) for index in range(len(self.table)))
        return [self.columns["input_ids"][chunk][flat] for chunk, flat in places]

    def _states(self, indices: np.ndarray, width: int, frozen_states: Sequence[np.ndarray]) -> "torch.Tensor":
        import torch

        states = np.zeros((len(indices), width, frozen_states[0].shape[1]), dtype=frozen_states[0].dtype)
        for i, index in enumerate(indices):
            chunk, flat = self.place(index)
            states[i, self.span(index, width)] = frozen_states[chunk][flat]
        tensor = torch.from_numpy(states)
        return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor

    def span(self, index: int, width: int) -> slice:
        """Where row `index` of the table lies in a batch row of `width`."""
        length = int(self.table.lengths[index])
        return slice(width - length, width) if self.spec.pad_left else slice(0, length)

    def place(self, index: int) -> tuple[int, slice]:
        """The chunk of row `index` of the table, and its tokens among all of that chunk."""
        row = int(self.table.rows[index])
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        at = row - self.starts[chunk]
        return chunk, slice(*self.offsets[chunk][at : at + 2])

    def _fills(self) -> dict[str, int]:
        return {"attention_mask": 0, **{name: self.spec.pad_id * (name == "input_ids") for name in self.columns}}


def _ragged(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """All values end to end, and where each row's begin; the last offset is their number."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    offsets = array.offsets.to_numpy()
    return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0] if offsets[0] else offsets
