"""Many trials over one frozen base."""

from raylora.model.bank.bank import Bank
from raylora.model.bank.trial import Outcome

__all__ = ["Bank", "Outcome"]
