"""Going on with a killed sweep, where Ray Tune itself need not run."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune import RunConfig, Tuner

from raylora.cluster.storage.run_folder import TRIALS, RunFolder
from raylora.cluster.tune.restore import can_go_on, restore
from raylora.config import Job
from raylora.errors import TrainingError


def trial(config: dict[str, Any]) -> None:
    """Never called."""


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    """A sweep killed as soon as it had begun."""
    folder = RunFolder(Job().replace({"storage_path": str(tmp_path), "run_name": "cut"}))
    assert not can_go_on(folder)
    Tuner(trial, run_config=RunConfig(name=TRIALS, storage_path=folder.path))
    return folder


def test_a_sweep_killed_before_ray_tunes_first_state_starts_anew(begun: RunFolder) -> None:
    assert Tuner.can_restore(f"{begun.path}/{TRIALS}"), "Ray Tune would try"
    assert not can_go_on(begun)


@pytest.mark.parametrize("state", ["", '{"trial_data": ['])
def test_a_state_that_was_cut_short_is_an_error_in_words(begun: RunFolder, state: str) -> None:
    Path(begun.path, TRIALS, "experiment_state-2026-01-01_00-00-00.json").write_text(state)
    assert can_go_on(begun)
    with pytest.raises(TrainingError, match=r"cut/trials cannot be read: .* starts anew under another `run_name`"):
        restore(begun, trial)
