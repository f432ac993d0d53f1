"""Going on from a checkpoint under the job's own hyperparameters: it brings weights, moments and progress, no rates."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback


def schedule_at(step: int, optimizer: Optimizer, factors: Sequence[Callable[[int], float]]) -> LambdaLR:
    """A schedule as it stands after so many steps; the optimizer's rates are set by it.

    Args:
        factors: of each parameter group, on its `initial_lr`.
    """
    return LambdaLR(optimizer, list(factors), last_epoch=step - 1)


class OwnHyperparameters(TrainerCallback):
    """Puts back what `Trainer` takes from a checkpoint over the job's own: population based training changes it.

    Args:
        optimizer: of `Trainer.create_optimizer`, before the checkpoint is loaded.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.own = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.compute_steps(args, state.max_steps)  # how often it logs is in the checkpoint's state, too
        schedule: LambdaLR = kwargs["lr_scheduler"]
        for group, own in zip(schedule.optimizer.param_groups, self.own, strict=True):
            group.update(own, initial_lr=own["lr"])
        at = schedule_at(state.global_step, schedule.optimizer, schedule.lr_lambdas)
        schedule.load_state_dict(at.state_dict())
