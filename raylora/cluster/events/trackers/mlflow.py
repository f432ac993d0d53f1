"""A run in MLflow, at the server that MLFLOW_TRACKING_URI names; trials are nested in it."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from raylora.cluster.events.trackers.tracker import JOB, Ids, Outcome, Points

NAME = "mlflow"
EXPERIMENT = "raylora"
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST_PARAMS, MOST_METRICS, MOST_LETTERS = 100, 1000, 6000  # of one call, and of a value: MLflow's own bounds


class MLflow:
    """Args:
    name: of the job's run.
    environ: MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID say where it stands, else it is experiment `raylora`.
    """

    takes_files = True

    def __init__(self, name: str, ids: Ids, environ: Mapping[str, str]) -> None:
        self.name, self.ids, self.environ = name, ids, environ
        self.client = MlflowClient()
        self.pending: dict[str, list[Metric]] = {}

    def begin(self, run: str, params: Mapping[str, Any]) -> None:
        earlier = self.ids.get(NAME, run)
        id = earlier or self._create(run)
        if earlier:
            self.client.update_run(id, status="RUNNING")
        held = self.client.get_run(id).data.params if earlier else {}  # MLflow takes no other value for a param
        new = [Param(key, _text(value)) for key, value in params.items() if key not in held]
        for part in _parts(new, MOST_PARAMS):
            self.client.log_batch(id, params=part)

    def _create(self, run: str) -> str:
        parent = self.ids.get(NAME, JOB)
        tags = {"mlflow.parentRunId": parent} if run != JOB and parent else {}
        created = self.client.create_run(self._experiment(), run_name=run or self.name, tags=tags)
        self.ids.keep(NAME, run, created.info.run_id)
        return created.info.run_id

    def _experiment(self) -> str:
        if id := self.environ.get("MLFLOW_EXPERIMENT_ID"):
            return id
        name = self.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self.client.get_experiment_by_name(name)
        return known.experiment_id if known else self.client.create_experiment(name)

    def add(self, run: str, points: Points) -> None:
        at_ms = round(1000 * points.at_s)
        metrics = [Metric(name, value, at_ms, points.step) for name, value in points.values.items()]
        self.pending.setdefault(run, []).extend(metrics)

    def flush(self) -> None:
        for run, metrics in self.pending.items():
            for part in _parts(metrics, MOST_METRICS):
                self.client.log_batch(self._id(run), metrics=part)
        self.pending = {}

    def files(self, folder: Path) -> None:
        self.client.log_artifacts(self._id(JOB), str(folder))

    def end(self, run: str, outcome: Outcome, reason: str | None) -> None:
        if reason:
            tag = RunTag("failure", reason[:MOST_LETTERS])
            self.client.log_batch(self._id(run), tags=[tag])
        self.client.set_terminated(self._id(run), STATUS[outcome], round(1000 * time.time()))

    def _id(self, run: str) -> str:
        id = self.ids.get(NAME, run)
        assert id, "a run is begun before it is told of"
        return id


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:MOST_LETTERS]


def _parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
