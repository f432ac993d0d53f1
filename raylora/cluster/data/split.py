"""Which split a row is in, by what it says: the same for any file, block or worker order."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raylora.config import DataSection
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


def divide_train(
    data: DataSection, hashes: np.ndarray, order_ids: np.ndarray, strata: np.ndarray, labels: list[str] | None
) -> Division:
    """What becomes of the rows of `data.train`, or of `data.max_samples` of them; no validation row where
    `data.validation` names others.

    Args, Raises: as of `divide`.
    """
    order = canonical_order(hashes, order_ids)
    rows = sample(order, strata, data.max_samples) if data.max_samples else order
    if data.validation is not None:
        return Division(train=rows, validation=rows[:0])
    parts = divide(hashes[rows], order_ids[rows], strata[rows], labels, data.validation_fraction)
    return Division(train=rows[parts.train], validation=rows[parts.validation])


def fingerprint(splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """Of the texts and labels of all splits: of each the hashes and the targets, in order."""
    digest = hashlib.sha256()
    for hashes, targets in splits:
        digest.update(hashes.tobytes() + targets.tobytes())
    return digest.hexdigest()


def divide(
    hashes: np.ndarray, order_ids: np.ndarray, strata: np.ndarray, labels: list[str] | None, fraction: float
) -> Division:
    """Split off `fraction` of each stratum's rows; equal texts never straddle.

    A distinct text belongs to the lowest stratum it is in; within one the texts with the lowest hashes go to validation
    until it holds `fraction` of the rows, at least one text, and never all. A stratum of a single text stays in train.

    Args:
        hashes: [N] uint64 of `text_hash`.
        order_ids: [N] int64 that order rows of equal texts.
        strata: [N] int64.
        labels: where strata are label ids: their names, each of which must be in both splits.

    Raises:
        DataError: labels have fewer than two different texts; names each.
    """
    order = canonical_order(hashes, order_ids)
    ordered, found = hashes[order], strata[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rows_of_text = np.diff(np.r_[first, len(ordered)])
    stratum = np.minimum.reduceat(found, first)
    in_validation = np.zeros(len(first), dtype=bool)
    if labels is not None:
        _check_enough(stratum, strata, labels)
    for each in np.unique(stratum):
        texts = np.flatnonzero(stratum == each)
        if len(texts) < 2:
            continue
        rows = np.cumsum(rows_of_text[texts])
        taken = int(np.searchsorted(rows, fraction * rows[-1] + 0.5, side="right"))
        in_validation[texts[: min(max(taken, 1), len(texts) - 1)]] = True
    chosen = np.repeat(in_validation, rows_of_text)
    return Division(train=order[~chosen], validation=order[chosen])


def _check_enough(stratum: np.ndarray, strata: np.ndarray, labels: list[str]) -> None:
    """Args:
    stratum: [texts], strata: [N] label ids.
    """
    texts, rows = (np.bincount(ids, minlength=len(labels)) for ids in (stratum, strata))
    rare = {label: int(rows[i]) for i, label in enumerate(labels) if texts[i] < 2}
    if rare:
        raise DataError(_too_few(rare))


def sample(order: np.ndarray, strata: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of `order`, with each stratum keeping its share (largest remainders, at least one row)."""
    if count >= len(order):
        return order
    ids = strata[order]
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
