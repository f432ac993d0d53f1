"""Which projections of DeBERTa's attention are fed the table of relative positions, which has no rows."""

from torch import nn


def is_fed_positions(parent: nn.Module, leaf: str) -> bool:
    """Whether this module of DeBERTa's attention is fed the table in a forward."""
    shared = getattr(parent, "share_att_key", None)
    return shared is not None and (leaf.startswith("pos_") or (shared and leaf in ("query_proj", "key_proj")))


def calls_with_rows(parent: nn.Module, leaf: str) -> int | None:
    """How many calls of a module in a forward are fed the batch's rows, before those that are fed the table; None: all.

    By the module, not by the input: a table is [1, L, hidden], as one row is.
    """
    if not is_fed_positions(parent, leaf):
        return None
    return 0 if leaf.startswith("pos_") else 1
