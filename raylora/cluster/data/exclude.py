"""`data.exclude`: rows that a review found wrong, left out by what they say."""

from dataclasses import dataclass

import numpy as np

from raylora.cluster.data.labels import Names
from raylora.cluster.data.rows import Source
from raylora.cluster.data.sources import read_rows
from raylora.cluster.data.split import text_hash
from raylora.config import DataSection
from raylora.errors import DataError
from raylora.tasks import task_of

TEXT, PAIR, LABEL = "text", "text_pair", "label"  # columns of a review


@dataclass(frozen=True)
class Excluded:
    """What a review names: `written` labels of each text's hash."""

    written: dict[int, set[str]]
    address: str

    def among(self, hashes: np.ndarray, names: Names, data: DataSection) -> np.ndarray:
        """[N] bool: rows that are named, by their texts' hashes [N] uint64 and their labels."""
        task = task_of(data.problem_type)
        found = np.isin(hashes, self._hashes())
        for row in np.flatnonzero(found):
            found[row] = task.written(names.known[names.codes[row]]) in self.written[int(hashes[row])]
        return found

    def in_words(self, rows: int, hashes: np.ndarray) -> str:
        """What became of it, for a terminal."""
        unknown = int((~np.isin(self._hashes(), hashes)).sum())
        missing = f"; {unknown:,} of its texts stand in no file" if unknown else ""
        return f"{rows:,} rows that {self.address} names are left out{missing}"

    def _hashes(self) -> np.ndarray:
        return np.array(list(self.written), dtype=np.uint64)


def read_excluded(data: DataSection, seed: int) -> Excluded | None:
    """Raises:
    DataError: the file is not there, or no review.
    """
    if data.exclude is None:
        return None
    pair = PAIR if data.text_pair_column else None
    section = DataSection(train=data.exclude, text_column=TEXT, text_pair_column=pair, label_column=LABEL)
    written: dict[int, set[str]] = {}
    try:
        for row in read_rows(Source(data.exclude, "train", "csv"), section):
            if row.fault:
                raise DataError(f"{data.exclude}, line {row.place}: {row.fault}.")
            written.setdefault(text_hash(row.text, row.text_pair, seed), set()).add(row.label)
    except DataError as error:
        raise DataError(f"`data.exclude`: {error}") from None
    return Excluded(written, data.exclude)
