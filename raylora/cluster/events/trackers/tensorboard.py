"""Event files for TensorBoard in `<run folder>/tensorboard`, a folder in it for each trial."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from raylora.cluster.events.trackers.tracker import JOB, Outcome, Points
from raylora.cluster.storage.run_folder import TENSORBOARD, RunFolder

SELDOM_S = 30.0  # between two copies to object storage, which takes files whole


class TensorBoard:
    """On object storage the files are written here first, and copied there now and then.

    Args:
        last_step: of the checkpoint a run goes on from: TensorBoard forgets what an earlier attempt wrote beyond it.
    """

    takes_files = False

    def __init__(self, folder: RunFolder, last_step: int) -> None:
        self.place, self.last_step = folder.location.inside(TENSORBOARD), last_step
        self.scratch = None if self.place.is_local else tempfile.TemporaryDirectory(prefix="raylora-")
        self.root = Path(self.scratch.name if self.scratch else self.place.path)
        self.copied = monotonic()
        self.writers: dict[str, SummaryWriter] = {}

    def begin(self, run: str, params: Mapping[str, Any]) -> None:
        purge_step = self.last_step + 1 if self.last_step and run == JOB else None
        writer = self.writers[run] = SummaryWriter(logdir=str(self.root / run), purge_step=purge_step)
        rows = "\n".join(f"| {key} | {json.dumps(value)} |" for key, value in params.items())
        writer.add_text("params", f"| key | value |\n|---|---|\n{rows}")
        if run != JOB:
            shown = {key: v if isinstance(v, bool | int | float | str) else json.dumps(v) for key, v in params.items()}
            assert writer.file_writer, "it has one from its first text on"
            for summary in hparams(shown, {"eval/best": None}):
                writer.file_writer.add_summary(summary)

    def add(self, run: str, points: Points) -> None:
        for name, value in points.values.items():
            self.writers[run].add_scalar(name, value, points.step, points.at_s)

    def flush(self) -> None:
        for writer in self.writers.values():
            writer.flush()
        if monotonic() - self.copied >= SELDOM_S:
            self._copy()

    def _copy(self) -> None:
        if self.scratch:
            self.place.add_from(self.root)
        self.copied = monotonic()

    def files(self, folder: Path) -> None:
        """TensorBoard keeps none."""

    def end(self, run: str, outcome: Outcome, reason: str | None) -> None:
        self.writers[run].add_text("outcome", reason or outcome)
        self.writers[run].close()
        self._copy()
        del self.writers[run]
