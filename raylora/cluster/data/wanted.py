"""Whether the rows have what a job wants of them: known before a worker starts, not after the first epoch."""

from collections.abc import Iterable

import numpy as np

from raylora.cluster.data.dataset import Dataset
from raylora.config import Job
from raylora.errors import ConfigError


def check_wanted(jobs: Iterable[Job], dataset: Dataset) -> None:
    """Of a run's job, or of a sweep's trials.

    Raises:
        ConfigError: `train.class_weights` names a label that is not there, or the metric that chooses an epoch cannot
            be told of the validation rows.
    """
    metrics: set[str] = set()
    for job in jobs:
        job.train.check_weighed(dataset.labels)
        metrics.add(job.metric)
    for metric in metrics:
        _check_metric(metric, dataset)


def _check_metric(metric: str, dataset: Dataset) -> None:
    """By scores of outputs that are all equal: which metrics there are does not depend on them."""
    task, targets = dataset.task, dataset.splits["validation"].targets
    if why := task.untold(metric, targets):
        raise ConfigError(
            f"`{metric}` cannot choose an epoch: of the validation rows {why}. Add rows, give others in "
            "`data.validation`, or choose by another metric (`train.metric_for_best_model`: mse, mae)."
        )
    if metric in (*task.decided, "loss"):
        return
    known = task.score(np.zeros((len(targets), len(dataset.labels))), targets)
    if metric not in known:
        raise ConfigError(
            f"`{metric}` cannot choose an epoch: of the {len(targets):,} validation rows it is not known, as each "
            "label is carried by all of them or by none, or as they are too many to sort for each label. Choose by "
            f"another metric ({', '.join(known)}), or give `data.validation` other rows."
        )
