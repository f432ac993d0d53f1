"""A sweep that was killed: which checkpoint each of its trials goes on from.

Ray Tune deletes a trial's older checkpoint as soon as a newer one is there, and writes its own state some time after. A
sweep killed between the two has a state that names a checkpoint which is gone: Ray Tune would try that trial
`ray.max_failures` times and give it up.
"""

import re
from typing import Any

import pyarrow.fs
from ray.tune import Checkpoint, Tuner

from raylora.cluster.storage import RunFolder
from raylora.cluster.tune.files import Files, read_files
from raylora.cluster.tune.progress import is_whole
from raylora.errors import TrainingError

TRIALS = "trials"  # Ray Tune's own folder inside the run folder


def can_go_on(folder: RunFolder) -> bool:
    return Tuner.can_restore(f"{folder.path}/{TRIALS}", storage_filesystem=folder.filesystem)


def restore(folder: RunFolder, trainable: Any) -> Tuner:
    """The sweep in a run folder. Each trial finds the checkpoint that Ray Tune's state names, or an empty folder in
    its place, which Ray Tune takes: the trial then asks `newest_whole`.

    Raises:
        TrainingError: Ray Tune's state cannot be read.
    """
    path = f"{folder.path}/{TRIALS}"

    def read() -> Tuner:
        return Tuner.restore(path, trainable, resume_unfinished=True, storage_filesystem=folder.filesystem)

    try:
        results = read().get_results()
    except (ValueError, EOFError, RuntimeError) as error:
        raise TrainingError(
            f"Ray Tune's state in {folder.uri}/{TRIALS} cannot be read ({error}): a kill may have cut it short. Its "
            f"trials' checkpoints are still there; the sweep starts anew under another `run_name`."
        ) from None
    for checkpoint in [result.checkpoint for result in results]:
        if checkpoint and folder.filesystem.get_file_info(checkpoint.path).type == pyarrow.fs.FileType.NotFound:
            folder.filesystem.create_dir(checkpoint.path)
    return read()


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
    later = (_read(Checkpoint(path, checkpoint.filesystem)) for path in _later(checkpoint))
    return next(filter(is_whole, later), {}), False


def _later(checkpoint: Checkpoint) -> list[str]:
    """Checkpoints of the same trial, newest first, down to the one after this."""
    parent, _, name = checkpoint.path.rpartition("/")
    assert checkpoint.filesystem, "Ray Tune sets it"
    found = checkpoint.filesystem.get_file_info(pyarrow.fs.FileSelector(parent))
    paths = [each.path for each in found if re.fullmatch(r"checkpoint_\d+", each.base_name) and each.base_name > name]
    return sorted(paths, reverse=True)


def _read(checkpoint: Checkpoint) -> Files:
    with checkpoint.as_directory() as folder:
        return read_files(folder)
