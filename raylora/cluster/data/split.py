"""Which split a row is in, by what it says: the same for any file, block or worker order."""

import hashlib
from dataclasses import dataclass

import numpy as np

from raylora.errors import DataError

SHOWN = 20  # labels in a message


@dataclass(frozen=True)
class Division:
    """Row indices of two splits, each in the order of the rows' hashes."""

    train: np.ndarray
    validation: np.ndarray


def text_hash(text: str, text_pair: str | None, seed: int) -> int:
    """64 bits of BLAKE2b over a row's text, keyed by the seed; a pair hashes as one text."""
    whole = text if text_pair is None else f"{text}\0{text_pair}"
    digest = hashlib.blake2b(whole.encode(), digest_size=8, key=seed.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little")


def canonical_order(hashes: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    """Indices that sort rows by hash, then label: rows that still tie are equal."""
    return np.lexsort((label_ids, hashes))


def divide(hashes: np.ndarray, label_ids: np.ndarray, labels: list[str], fraction: float) -> Division:
    """Split off `fraction` of each label's rows; equal texts never straddle.

    A distinct text belongs to the lowest label id it carries; within a label the texts with the lowest hashes go to
    validation until it holds `fraction` of the rows, at least one text, and never all.

    Args:
        hashes: [N] uint64 of `text_hash`.
        label_ids: [N] in [0, len(labels)).

    Raises:
        DataError: labels have fewer than two different texts; names each.
    """
    order = canonical_order(hashes, label_ids)
    ordered, ids = hashes[order], label_ids[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rows_of_text = np.diff(np.r_[first, len(ordered)])
    stratum = ids[first]
    in_validation = np.zeros(len(first), dtype=bool)
    texts_of_label = [np.flatnonzero(stratum == label_id) for label_id in range(len(labels))]
    counts = np.bincount(label_ids, minlength=len(labels))
    rare = {labels[i]: int(counts[i]) for i, texts in enumerate(texts_of_label) if len(texts) < 2}
    if rare:
        raise DataError(_too_few(rare))
    for texts in texts_of_label:
        rows = np.cumsum(rows_of_text[texts])
        taken = int(np.searchsorted(rows, fraction * rows[-1] + 0.5, side="right"))
        in_validation[texts[: min(max(taken, 1), len(texts) - 1)]] = True
    chosen = np.repeat(in_validation, rows_of_text)
    return Division(train=order[~chosen], validation=order[chosen])


def sample(order: np.ndarray, label_ids: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of `order`, with each label keeping its share (largest remainders, at least one row)."""
    if count >= len(order):
        return order
    ids = label_ids[order]
    present, rows = np.unique(ids, return_counts=True)
    exact = rows * count / len(order)
    quota = np.maximum(np.floor(exact).astype(int), 1)
    for i in np.argsort(quota - exact, kind="stable")[: max(count - quota.sum(), 0)]:
        quota[i] += 1
    keep = np.concatenate([np.flatnonzero(ids == label)[:n] for label, n in zip(present, quota, strict=True)])
    return order[np.sort(keep)]


def _too_few(rare: dict[str, int]) -> str:
    """Args:
    rare: rows of each label that cannot be split.
    """
    found = [
        f"{rows} row{'s' * (rows != 1)}" if rows < 2 else f"{rows} rows that all hold the same text"
        for rows in rare.values()
    ]
    if len(rare) == 1:
        what = f"label '{next(iter(rare))}' has {found[0]}"
    else:
        shown = ", ".join(f"'{label}' {rows}" for label, rows in list(zip(rare, found, strict=True))[:SHOWN])
        more = f", and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
        what = f"{len(rare)} labels have too few: {shown}{more}"
    return (
        f"{what}; a split needs two different texts of each label, one to train on and one to "
        "validate on. Add rows, drop the label, or give a `data.validation` file."
    )
