"""A run at Weights & Biases, or in its files with WANDB_MODE=offline; a sweep's trials share its group."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import wandb

from raylora.cluster.events.trackers.tracker import JOB, Ids, Outcome, Points
from raylora.cluster.storage.run_folder import RunFolder

NAME = "wandb"
PROJECT = "raylora"


class WandB:
    """Args:
    environ: WANDB_PROJECT and WANDB_DIR win over `raylora` and the run's folder.
    """

    takes_files = True

    def __init__(self, folder: RunFolder, ids: Ids, environ: Mapping[str, str], is_sweep: bool) -> None:
        self.name, self.ids, self.is_sweep = folder.name, ids, is_sweep
        self.project = None if "WANDB_PROJECT" in environ else PROJECT
        self.dir = folder.path if folder.location.is_local and "WANDB_DIR" not in environ else None
        self.runs: dict[str, Any] = {}

    def begin(self, run: str, params: Mapping[str, Any]) -> None:
        id = self.ids.get(NAME, run) or uuid4().hex[:12]
        self.ids.keep(NAME, run, id)
        begun = self.runs[run] = wandb.init(
            project=self.project,
            dir=self.dir,
            id=id,
            resume="allow",
            name=f"{self.name}/{run}" if run else self.name,
            group=self.name if self.is_sweep else None,
            job_type="trial" if run else "sweep" if self.is_sweep else "train",
            config=dict(params),
            allow_val_change=True,  # a run that goes on may have other workers
            reinit="create_new",  # trials are open beside each other
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        begun.define_metric("step")
        begun.define_metric(
            "*", step_metric="step"
        )  # not wandb's own, which may not go back as a run that goes on does

    def add(self, run: str, points: Points) -> None:
        self.runs[run].log({**points.values, "step": points.step})

    def flush(self) -> None:
        """It sends as it comes."""

    def files(self, folder: Path) -> None:
        artifact = wandb.Artifact(f"{self.name}-adapter", type="model")
        artifact.add_dir(str(folder))
        self.runs[JOB].log_artifact(artifact)

    def end(self, run: str, outcome: Outcome, reason: str | None) -> None:
        ended = self.runs.pop(run)
        ended.summary["outcome"] = outcome
        if reason:
            ended.summary["failure"] = reason
        ended.finish(exit_code=0 if outcome == "finished" else 1)
