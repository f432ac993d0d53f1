"""Text to token ids, and rows of ids to padded batches: one code for training, prediction and serving.

Imports no torch model code: Ray Data's tasks load it in milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

if TYPE_CHECKING:
    import torch

Text = str | tuple[str, str]


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer that travels by value.

    `state` is `tokenizers`' JSON with truncation set; `pad_id` fills a batch; `pad_left` as the base was trained;
    `type_ids` where the base tells the texts of a pair apart.
    """

    state: str
    pad_id: int
    pad_left: bool
    type_ids: bool


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many rows, in the Arrow chunks they came in; nothing is copied.

    `rows[i]` is the place of row i in all chunks laid end to end; `label_ids[i]` and `lengths[i]` belong to it.
    """

    chunks: Sequence[pa.Table]
    rows: np.ndarray
    label_ids: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@lru_cache(maxsize=4)
def _tokenizer(state: str) -> Tokenizer:
    return Tokenizer.from_str(state)


def tokenizer_spec(tokenizer: Any, max_length: int) -> TokenizerSpec:
    """The spec of a fast `transformers` tokenizer that keeps `max_length` tokens of a row, special ones included."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(max_length)
    backend.no_padding()
    return TokenizerSpec(
        state=backend.to_str(),
        pad_id=tokenizer.pad_token_id,
        pad_left=tokenizer.padding_side == "left",
        type_ids="token_type_ids" in tokenizer.model_input_names,
    )


def encode(texts: Sequence[Text], spec: TokenizerSpec) -> pa.Table:
    """Columns `input_ids` list<int32>, and `token_type_ids` list<int8> for pairs where the base uses them."""
    encodings = _tokenizer(spec.state).encode_batch_fast(list(texts))
    columns: dict[str, pa.Array] = {"input_ids": _lists([e.ids for e in encodings], pa.int32())}
    if spec.type_ids and texts and isinstance(texts[0], tuple):
        columns["token_type_ids"] = _lists([e.type_ids for e in encodings], pa.int8())
    return pa.table(columns)


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
        names = [n for n in ("input_ids", "token_type_ids") if table.chunks and n in table.chunks[0].column_names]
        self.columns = {name: [_ragged(chunk[name]) for chunk in table.chunks] for name in names}

    def __call__(self, indices: np.ndarray) -> "dict[str, torch.Tensor]":
        """Rows `indices` of the table.

        Returns:
            input_ids [B, T] int64, attention_mask [B, T] int64 (1 = real token), labels [B] int64, and
            token_type_ids [B, T] int64 where rows are pairs.
        """
        import torch

        width = int(self.table.lengths[indices].max())
        batch = {name: np.full((len(indices), width), fill, dtype=np.int64) for name, fill in self._fills().items()}
        for i, index in enumerate(indices):
            length = int(self.table.lengths[index])
            span = slice(width - length, width) if self.spec.pad_left else slice(0, length)
            batch["attention_mask"][i, span] = 1
            for name in self.columns:
                batch[name][i, span] = self._cells(name, int(self.table.rows[index]))
        return {
            **{name: torch.from_numpy(values) for name, values in batch.items()},
            "labels": torch.from_numpy(self.table.label_ids[indices].astype(np.int64)),
        }

    def _fills(self) -> dict[str, int]:
        return {"attention_mask": 0, **{name: self.spec.pad_id * (name == "input_ids") for name in self.columns}}

    def _cells(self, name: str, row: int) -> np.ndarray:
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        values, offsets = self.columns[name][chunk]
        at = row - self.starts[chunk]
        return values[offsets[at] : offsets[at + 1]]


def _ragged(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array.values.to_numpy(), array.offsets.to_numpy()
