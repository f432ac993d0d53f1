"""Rows of token ids as padded batches: one code for training, prediction and serving."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raylora.model.tokens import TokenizerSpec, TokenTable, ragged

if TYPE_CHECKING:
    import torch

WINDOW = 1 << 40  # numbers of rows stay below: a sequence's number is its row's plus so much for each window before it


class Place(NamedTuple):
    """A sequence in a table: its chunk, and its tokens among all of that chunk."""

    chunk: int
    flat: slice

    @property
    def tokens(self) -> int:
        return int(self.flat.stop - self.flat.start)


class Collator:
    """Batches of a `TokenTable`, padded to their longest sequence: a row, or one of its windows.

    `windows` [N] is how many each row of the table has; None where rows are not read in windows.
    """

    def __init__(self, table: TokenTable, spec: TokenizerSpec) -> None:
        self.table, self.spec = table, spec
        self.starts = np.cumsum([0] + [chunk.num_rows for chunk in table.chunks])
        ids = [ragged(chunk["input_ids"]) for chunk in table.chunks]
        self.offsets = [offsets for _, offsets in ids]
        self.columns = {"input_ids": [values for values, _ in ids]}
        has_types = ["token_type_ids" in chunk.column_names for chunk in table.chunks]
        if any(has_types):  # a chunk of single texts, or of no rows, has none
            self.columns["token_type_ids"] = [
                ragged(chunk["token_type_ids"])[0] if has else np.zeros_like(values)
                for chunk, has, (values, _) in zip(table.chunks, has_types, ids, strict=True)
            ]
        self.windows: np.ndarray | None = None
        if any("windows" in chunk.column_names for chunk in table.chunks):
            self._find_windows()

    def _find_windows(self) -> None:
        found = [ragged(chunk["windows"]) for chunk in self.table.chunks]
        self.first_windows = [offsets for _, offsets in found]
        self.window_offsets = [np.concatenate([[0], np.cumsum(tokens)]) for tokens, _ in found]
        self.windows = np.concatenate([np.diff(offsets) for offsets in self.first_windows])[self.table.rows]

    def __call__(self, indices: np.ndarray) -> "dict[str, torch.Tensor]":
        """Rows `indices` of the table.

        Returns:
            input_ids [B, T] int64, attention_mask [B, T] int64 (1 = real token), labels [B] int64 (of other tasks than
            single label [B, C] float32), token_type_ids [B, T] int64 where rows are pairs, and frozen_states [B, T, H]
            (zero at padding) where the table has one.
            Of rows in windows, all but labels are [W, T]: the windows of one row after those of another; windows [B]
            int64 says how many each row has.
        """
        import torch

        places = [place for index in indices for place in self.places(index)]
        width = max(place.tokens for place in places)
        batch = {name: np.full((len(places), width), fill, dtype=np.int64) for name, fill in self._fills().items()}
        for i, place in enumerate(places):
            span = self.span(place, width)
            batch["attention_mask"][i, span] = 1
            for name, column in self.columns.items():
                batch[name][i, span] = column[place.chunk][place.flat]
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        if self.table.frozen_states is not None:
            tensors["frozen_states"] = self._states(places, width, self.table.frozen_states)
        if self.windows is not None:
            tensors["windows"] = torch.from_numpy(self.windows[indices].astype(np.int64))
        return {**tensors, "labels": torch.from_numpy(self.table.targets[indices])}

    def tokens(self) -> list[np.ndarray]:
        """Token ids of every row of the table, of all of its windows."""
        ids = self.columns["input_ids"]
        found = ([ids[p.chunk][p.flat] for p in self.places(index)] for index in range(len(self.table)))
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found]

    def numbers(self, indices: np.ndarray) -> np.ndarray:
        """[B or W] int64, one for each sequence of a batch, whatever batch it is in: its row's place in the table, and
        above it the window."""
        if self.windows is None:
            return indices
        counts = self.windows[indices]
        window = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(indices, counts) + WINDOW * window

    def _states(self, places: Sequence[Place], width: int, frozen_states: Sequence[np.ndarray]) -> "torch.Tensor":
        import torch

        states = np.zeros((len(places), width, frozen_states[0].shape[1]), dtype=frozen_states[0].dtype)
        for i, place in enumerate(places):
            states[i, self.span(place, width)] = frozen_states[place.chunk][place.flat]
        tensor = torch.from_numpy(states)
        return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor

    def span(self, place: Place, width: int) -> slice:
        """Where a sequence lies in a batch row of `width`."""
        return slice(width - place.tokens, width) if self.spec.pad_left else slice(0, place.tokens)

    def places(self, index: int) -> list[Place]:
        """Where row `index` of the table is, or each of its windows."""
        row = int(self.table.rows[index])
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        at = row - self.starts[chunk]
        if self.windows is None:
            return [Place(chunk, slice(*self.offsets[chunk][at : at + 2]))]
        first, last = self.first_windows[chunk][at : at + 2]
        ends = self.window_offsets[chunk][first : last + 1]
        return [Place(chunk, slice(start, end)) for start, end in pairwise(ends)]

    def _fills(self) -> dict[str, int]:
        return {"attention_mask": 0, **{name: self.spec.pad_id * (name == "input_ids") for name in self.columns}}
