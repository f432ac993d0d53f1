"""Which trackers can be used here. Loads none of them."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from raylora.cluster.events.trackers.tracker import Ids, Tracker
from raylora.cluster.session import environ
from raylora.cluster.storage.run_folder import RunFolder
from raylora.errors import ConfigError

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
OFFLINE = ("offline", "disabled", "dryrun")


def check_trackers(names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raises:
    ConfigError: a package is missing, or a key, which is asked for nowhere else.
    """
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"`train.report_to` names {name}, and the package {PACKAGES[name]} is not installed where this command "
                f"runs: pip install 'raylora[{name}]'."
            )
    if "wandb" in names and not environ.get("WANDB_API_KEY") and environ.get("WANDB_MODE") not in OFFLINE:
        raise ConfigError(
            "`train.report_to` names wandb: set WANDB_API_KEY in the environment, or WANDB_MODE=offline to keep its "
            "files in the run's folder."
        )


def open_tracker(name: str, folder: RunFolder, ids: Ids, is_sweep: bool, last_step: int) -> Callable[[], Tracker]:
    """What makes it; each loads its library there and then, in a thread of its own."""

    def tensorboard() -> Tracker:
        from raylora.cluster.events.trackers.tensorboard import TensorBoard

        return TensorBoard(folder, last_step)

    def mlflow() -> Tracker:
        from raylora.cluster.events.trackers.mlflow import MLflow

        return MLflow(folder.name, ids, environ())

    def wandb() -> Tracker:
        from raylora.cluster.events.trackers.wandb import WandB

        return WandB(folder, ids, environ(), is_sweep)

    return {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}[name]
