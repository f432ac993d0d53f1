"""A disk without room is named as such, before a run starts and while it runs, and no other try is made or advised."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raylora.cli import main
from raylora.cluster.storage.filesystem import is_full
from raylora.cluster.storage.run_folder import CONFIG, RunFolder
from raylora.cluster.train.for_good import StopForGood
from raylora.config import Job
from raylora.errors import (
    ConfigError,
    DataError,
    DivergedError,
    FullDiskError,
    ModelError,
    RayLoraError,
    TrainingError,
)


class Usage(NamedTuple):
    """As `shutil.disk_usage` gives it."""

    total: int
    used: int
    free: int


def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(Job().replace({"storage_path": str(tmp_path / "runs"), "run_name": "x"}))


def test_a_write_to_a_full_disk_says_so(tmp_path: Path) -> None:
    run = folder(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    for name in (f"{CONFIG}.part", "history.jsonl"):
        (tmp_path / "runs" / "x" / name).symlink_to("/dev/full")
    for write in (lambda: run.write_text(CONFIG, "a"), lambda: run.append_text("history.jsonl", "a")):
        with pytest.raises(FullDiskError, match=r"`storage_path` .*/runs is full: .*Make room"):
            write()


def test_only_a_full_disk_is_one() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("a file could not be written")
    wrapped.__cause__ = full
    assert is_full(full) and is_full(wrapped)
    assert is_full(OSError(errno.EDQUOT, "")) and is_full(
        RuntimeError("I/O error: No space left on device (os error 28)")
    )
    assert not is_full(OSError(errno.EACCES, "")) and not is_full(ValueError("no space")) and not is_full(None)


def test_a_run_does_not_start_where_its_checkpoints_have_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path)
    asked: list[str] = []

    def usage(path: str) -> Usage:
        assert Path(path).is_dir()
        asked.append(path)
        return Usage(10**9, 10**9 - 10**6, 10**6)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    run.check_room(10**6 - 1)
    with pytest.raises(FullDiskError, match=r"`storage_path` .*/runs has room for 1 MB, .* need about 50 MB"):
        run.check_room(50 * 10**6)
    assert set(asked) == {str(tmp_path)}, "the folder is not made for it"


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        (FullDiskError("full"), True),
        (ModelError("other weights"), True),
        (DataError("gone"), True),
        (ConfigError("`storage_path` cannot be written to: a hiccup"), False),
        (OSError("connection lost"), False),
        (TrainingError("lost"), False),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_would_end_so_again_ends_a_run_for_good(reason: Exception, ends: bool, wrapped: bool) -> None:
    class WrappedError(Exception):
        """As Ray Train hands on what a worker raised."""

        def __init__(self, error: Exception) -> None:
            self._base_exc = error

    raised: dict[int, Exception] = {0: ValueError("collateral"), 1: WrappedError(reason) if wrapped else reason}
    call: Any = StopForGood().after_exception
    if ends:
        with pytest.raises(RayLoraError) as told:
            call(run_context=None, worker_exceptions=raised)
        assert told.value is reason
    else:
        call(run_context=None, worker_exceptions=raised)


def test_going_on_is_advised_only_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, code, advised in (
        (TrainingError("worker 1 was lost"), 1, True),
        (DivergedError("the run diverged. Lower `train.learning_rate`"), 1, False),
        (FullDiskError("full"), 2, False),
    ):

        def run(options: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("raylora.cli.train.run", run)
        assert main(["train"]) == code
        assert ("goes on from the last checkpoint" in capsys.readouterr().err) is advised
