"""Text to token ids: one code for training, prediction and serving.

Imports no torch model code: Ray Data's tasks load it in milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from raylora.config.data import Truncation
from raylora.errors import DataError
from raylora.model.cut import Cut, check_stride, windows_of, without_middle

Text = str | tuple[str, str] | list[str]  # a text, or two: a pair


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer that travels by value.

    `state` is `tokenizers`' JSON with truncation set; `pad_id` fills a batch, on the left where `pad_left`;
    `type_ids` where the base tells the texts of a pair apart. `middle`: tokens kept of a text whose middle is cut;
    `max_windows`: of a text, where it is read in windows.
    """

    state: str
    pad_id: int
    pad_left: bool
    type_ids: bool
    middle: int | None = None
    max_windows: int | None = None


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many rows, in the Arrow chunks they came in; nothing is copied.

    `rows[i]` is the place of row i in all chunks laid end to end; `targets[i]` and `lengths[i]` belong to it,
    the latter its tokens, those of all windows together where it has several.
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


def spec_for(tokenizer: Any, cut: Cut) -> TokenizerSpec:
    """As `tokenizer_spec`, by a job's `data` or an adapter's manifest."""
    return tokenizer_spec(tokenizer, cut.max_length, cut.truncation, cut.stride, cut.max_windows)


def tokenizer_spec(
    tokenizer: Any, max_length: int, truncation: Truncation = "end", stride: int = 0, max_windows: int = 1
) -> TokenizerSpec:
    """The spec of a fast `transformers` tokenizer that keeps `max_length` tokens of a row, special ones included.

    Args:
        truncation, stride, max_windows: of `data`.

    Raises:
        ConfigError: `stride` leaves a window nothing of its own.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    side = "left" if truncation == "start" else tokenizer.truncation_side if truncation == "end" else "right"
    if truncation == "middle":
        backend.no_truncation()
    else:
        check_stride(tokenizer, max_length, stride)
        backend.enable_truncation(max_length, stride=stride, direction=side)
    return TokenizerSpec(
        state=backend.to_str(),
        pad_id=tokenizer.pad_token_id,
        # XLNet's head sees the last place. All others see the last token or the first, and of those that count places
        # from the left (GPT-2), padding there would move each row by the longest of its batch; `padding_side: left` is
        # for generation.
        pad_left="XLNet" in type(tokenizer).__name__,
        type_ids="token_type_ids" in tokenizer.model_input_names,
        middle=max_length if truncation == "middle" else None,
        max_windows=max_windows if truncation == "windows" else None,
    )


def encode(texts: Sequence[Text], spec: TokenizerSpec) -> pa.Table:
    """Columns `input_ids` list<int32>, `token_type_ids` list<int8> where there are pairs and the base uses them, and
    `windows` list<int32> where texts are read in windows: the tokens of each, whose ids stand end to end.

    Raises:
        DataError: a pair, where only single texts can be cut so.
    """
    return _table(texts, _tokenizer(spec.state).encode_batch_fast(list(texts)), spec)


def encode_measured(texts: Sequence[Text], spec: TokenizerSpec) -> pa.Table:
    """As `encode`, and a column `tokens` int32: how many the whole text has, special ones included, cut or not."""
    encodings = _tokenizer(spec.state).encode_batch_fast(list(texts))
    counts = _whole_lengths(texts, encodings, spec)
    return _table(texts, encodings, spec).append_column("tokens", pa.array(counts, pa.int32()))


def _table(texts: Sequence[Text], encodings: Sequence[Encoding], spec: TokenizerSpec) -> pa.Table:
    is_single = all(isinstance(text, str) for text in texts)
    if not is_single and (spec.middle or spec.max_windows):
        raise DataError("a pair of texts: `data.truncation: middle` and `windows` are of single texts.")
    if spec.max_windows:
        rows = [windows_of(e, spec.max_windows) for e in encodings]
        ids, counts = [[i for window in row for i in window] for row in rows], [list(map(len, row)) for row in rows]
        return pa.table({"input_ids": _lists(ids, pa.int32()), "windows": _lists(counts, pa.int32())})
    ids = [without_middle(e, spec.middle) for e in encodings] if spec.middle else [e.ids for e in encodings]
    columns: dict[str, pa.Array] = {"input_ids": _lists(ids, pa.int32())}
    if spec.type_ids and not is_single:
        columns["token_type_ids"] = _lists([e.type_ids for e in encodings], pa.int8())
    return pa.table(columns)


def _whole_lengths(texts: Sequence[Text], encodings: Sequence[Encoding], spec: TokenizerSpec) -> list[int]:
    truncation = _tokenizer(spec.state).truncation
    again = special_tokens(spec) + (truncation["stride"] if truncation else 0)
    counts = [len(e) + sum(len(part) - again for part in e.overflowing) for e in encodings]
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


def padded_lengths(encoded: pa.Table) -> np.ndarray:
    """[N] int32: the tokens that a row takes in a batch of its like; of windows, each as many as its longest."""
    if "windows" not in encoded.column_names:
        return table_of(encoded).lengths
    tokens, offsets = ragged(encoded["windows"])
    longest = np.maximum.reduceat(tokens, offsets[:-1]) if len(offsets) > 1 else tokens
    return (longest * np.diff(offsets)).astype(np.int32)


def ragged(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """All values end to end, and where each row's begin; the last offset is their number."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    offsets = array.offsets.to_numpy()
    return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0] if offsets[0] else offsets
