"""Many trials over one frozen base."""

from raylora.model.bank.bank import Bank
from raylora.model.bank.trial import EpochResult

__all__ = ["Bank", "EpochResult"]
