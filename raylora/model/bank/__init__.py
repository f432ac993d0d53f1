"""Many trials over one frozen base."""

from raylora.model.bank.bank import Bank, Fold
from raylora.model.bank.trial import EpochResult

__all__ = ["Bank", "EpochResult", "Fold"]
