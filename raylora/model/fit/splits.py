"""The rows of a run, tokenized, and the process that trains on them."""

from dataclasses import dataclass
from typing import Any

from raylora.model.fit.start import Start
from raylora.model.tokens import TokenizerSpec, TokenTable
from raylora.tasks import TASKS, Task


@dataclass(frozen=True)
class Splits:
    """Token tables of a run; `labels` in id order; `start` where it was made beforehand, for the trials of a sweep."""

    train: TokenTable
    validation: TokenTable
    test: TokenTable | None
    labels: tuple[str, ...]
    tokenizer: TokenizerSpec
    facts: dict[str, Any]
    start: Start | None = None
    task: Task = TASKS["single_label_classification"]

    def scored(self) -> dict[str, TokenTable]:
        """The splits that scores are reported on."""
        return {"validation": self.validation, **({"test": self.test} if self.test else {})}


@dataclass(frozen=True)
class Worker:
    """This process among all of the run; `global_batch_size` are rows of one optimizer step over all of them."""

    rank: int = 0
    world_size: int = 1
    global_batch_size: int | None = None
    threads: int | None = None
    use_gpu: bool = False


ALONE = Worker()
