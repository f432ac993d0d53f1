"""Which errors end a run for good. Imports no model: Ray Train's controller opens it."""

from typing import Any

from ray.train import UserCallback

from raylora.errors import ConfigError, FullDiskError, RayLoraError


class StopForGood(UserCallback):
    """Ends a run at an error of a worker's that another try would end in, too.

    Ray Train takes up to `ray.max_failures` tries whatever it was, each with the start of all workers; what a callback
    raises ends the run at once.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for _, error in sorted(worker_exceptions.items()):
            reason = vars(error).get("_base_exc", error)  # Ray Train wraps what a worker raised, with its traceback
            if _is_final(reason):
                raise reason


def _is_final(error: Any) -> bool:
    """A ConfigError of a worker's is storage that failed, which may be a hiccup."""
    return isinstance(error, FullDiskError) or (isinstance(error, RayLoraError) and not isinstance(error, ConfigError))
