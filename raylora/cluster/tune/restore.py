"""A sweep that was killed: which checkpoint each of its trials goes on from.

Ray Tune deletes a trial's older checkpoint as soon as a newer one is there, and writes its own state some time after. A
sweep killed between the two has a state that names a checkpoint which is gone: Ray Tune would try that trial
`ray.max_failures` times and give it up.
"""

import re
from typing import Any

from ray.tune import Checkpoint, Tuner

from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import CHECKPOINT, TRIALS, RunFolder
from raylora.cluster.tune.checkpoints import Files, read_files
from raylora.cluster.tune.trial_progress import is_whole
from raylora.errors import TrainingError


def can_go_on(folder: RunFolder) -> bool:
    """False also for a sweep killed before Ray Tune's first state, when no trial had begun: a restored Tuner that finds
    no state starts anew, and fails, since it does not know the search space."""
    trials = folder.location.inside(TRIALS)
    if not Tuner.can_restore(trials.path, storage_filesystem=trials.filesystem):
        return False
    return any(name.startswith("experiment_state-") for name in trials.files())


def restore(folder: RunFolder, trainable: Any) -> Tuner:
    """The sweep in a run folder. Each trial finds the checkpoint that Ray Tune's state names, or an empty folder in
    its place, which Ray Tune takes: the trial then asks `newest_whole`.

    Raises:
        TrainingError: Ray Tune's state cannot be read.
    """
    trials = folder.location.inside(TRIALS)
    tuner = Tuner.restore(trials.path, trainable, resume_unfinished=True, storage_filesystem=trials.filesystem)
    try:
        results = tuner.get_results()
    except RuntimeError:  # Ray Tune's words say that it has not been run
        raise TrainingError(
            f"Ray Tune's state in {trials.address} cannot be read: a kill may have cut it short. Its trials' "
            f"checkpoints are still there; the sweep starts anew under another `run_name`."
        ) from None
    for checkpoint in [result.checkpoint for result in results]:
        if checkpoint and not _location(checkpoint).exists():
            _location(checkpoint).make_folder()
    return tuner


def newest_whole(checkpoint: Checkpoint) -> tuple[Files, bool]:
    """The files of a trial's checkpoint, or of a later one of the trial's where these are gone or cut short.

    Args:
        checkpoint: the one that Ray Tune's state names.

    Returns:
        The files, none where no checkpoint is whole; and whether Ray Tune knows of them.
    """
    files = _read(checkpoint)
    if is_whole(files):
        return files, True
    later = (_read(Checkpoint(path, checkpoint.filesystem)) for path in _later(_location(checkpoint)))
    return next(filter(is_whole, later), {}), False


def _later(checkpoint: Location) -> list[str]:
    """Paths of checkpoints of the same trial, newest first, down to the one after this."""
    trial = checkpoint.parent
    names = [each for each in trial.files() if re.fullmatch(rf"{CHECKPOINT}\d+", each) and each > checkpoint.name]
    return [trial.inside(each).path for each in sorted(names, reverse=True)]


def _location(checkpoint: Checkpoint) -> Location:
    assert checkpoint.filesystem, "Ray Tune sets it"
    return Location(checkpoint.path, checkpoint.filesystem, checkpoint.path)


def _read(checkpoint: Checkpoint) -> Files:
    with checkpoint.as_directory() as folder:
        return read_files(folder)
