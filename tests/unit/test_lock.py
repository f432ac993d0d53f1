"""One job a run folder, and one writer of a file, wherever it lies. No Ray is started."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem

from raylora.cluster.data.same import changes, check_same_rows
from raylora.cluster.resolve import check_folder
from raylora.cluster.storage import exclusive, lock
from raylora.cluster.storage.exclusive import create_if_absent
from raylora.cluster.storage.filesystem import Location, locate
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import CONFIG, LOCK, RunFolder
from raylora.config import Job
from raylora.config.file import dump, name_run
from raylora.errors import ConfigError, DataError

HOLD = """
import sys, time
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import RunFolder
from raylora.config import Job
with hold(RunFolder(Job().replace({"storage_path": sys.argv[1], "run_name": "first"})), print):
    print("held", flush=True)
    time.sleep(60)
"""


def run_of(storage: str | Path) -> RunFolder:
    return RunFolder(Job().replace({"storage_path": str(storage), "run_name": "first"}))


def one_wins(location: Location) -> bool:
    """Of eight that write a file at once; the winner's content stands there, and nobody writes it after."""
    contents = [f"writer {i}".encode() for i in range(8)]
    barrier = threading.Barrier(8)

    def write(content: bytes) -> bool:
        barrier.wait()
        return create_if_absent(location, content)

    with ThreadPoolExecutor(8) as pool:
        won = [content for content, done in zip(contents, pool.map(write, contents), strict=True) if done]
    assert not create_if_absent(location, b"later")
    return [location.read_text().encode()] == won


def test_one_of_many_writers_of_a_local_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(one_wins(locate(str(tmp_path / f"deep{i}" / "file"))) for i in range(20))
    assert [path.name for path in tmp_path.glob("*/*")] == ["file"] * 20

    def no_links(*_: Any) -> None:
        raise PermissionError("a filesystem without hard links")

    monkeypatch.setattr(os, "link", no_links)
    assert one_wins(locate(str(tmp_path / "file")))


def test_one_of_many_writers_of_an_s3_object_wins(s3_address: Callable[[str], str]) -> None:
    assert all(one_wins(locate(s3_address("bucket/runs")).inside(f"object{i}")) for i in range(3))


def test_where_a_store_knows_no_condition_the_last_of_those_at_once_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    monkeypatch.setattr(exclusive, "SETTLE_S", 0.5)
    assert one_wins(Location("x://a/file", PyFileSystem(FSSpecHandler(memory)), "/a/file"))


@pytest.mark.parametrize("remote", [False, True])
def test_a_folder_at_work_is_refused_with_who_holds_it(
    remote: bool, tmp_path: Path, s3_address: Callable[[str], str]
) -> None:
    storage = s3_address("bucket/runs") if remote else tmp_path / "runs"
    lines: list[str] = []
    with hold(run_of(storage), lines.append):
        with (
            pytest.raises(
                ConfigError, match=rf"first.* is at work: .* on .*, process {os.getpid()}, since 20"
            ) as error,
            hold(run_of(storage), lines.append),
        ):
            pytest.fail("held twice")
        assert "another `run_name`" in str(error.value)
        assert run_of(storage).has(LOCK)
    with hold(run_of(storage), lines.append):
        assert lines == []
    assert not run_of(storage).has(LOCK)


def test_a_lock_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with hold(run_of(tmp_path / "deep" / "runs"), print):
        assert (tmp_path / "deep" / "runs" / "first" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with hold(run_of(tmp_path), print):
        run_of(tmp_path).write_text(CONFIG, "")
    assert [path.name for path in (tmp_path / "first").iterdir()] == [CONFIG]


def test_a_storage_path_that_cannot_be_written_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for storage in (tmp_path / "file", "/proc/runs"):
        with (
            pytest.raises(ConfigError, match=rf"`storage_path` {storage} cannot be written to: "),
            hold(run_of(storage), print),
        ):
            pytest.fail("held")


def test_the_lock_of_a_killed_job_is_taken_over_at_once_and_that_of_a_stopped_one_is_gone(tmp_path: Path) -> None:
    for number, left in ((signal.SIGKILL, True), (signal.SIGINT, False)):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            process.send_signal(number)
            process.wait()
        assert run_of(tmp_path).has(LOCK) == left
        lines: list[str] = []
        with hold(run_of(tmp_path), lines.append):
            assert [f"process {process.pid}, since" in line for line in lines] == [True] * left


def test_a_job_of_another_machine_is_gone_when_it_gives_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "GONE_S", 4.0)  # a sign of life has seconds
    monkeypatch.setattr(lock, "LOOK_S", 0.05)
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock, "_machine", lambda host: f"{host} {threading.get_ident()}")
    lines: list[str] = []
    with hold(run_of(tmp_path), lines.append), ThreadPoolExecutor(1) as pool:
        refused = pool.submit(lambda: hold(run_of(tmp_path), lines.append).__enter__()).exception()
        assert isinstance(refused, ConfigError) and "is at work" in str(refused)
    text = json.dumps(json.loads((lock._me()).dump()) | {"machine": "another"})
    run_of(tmp_path).write_text(LOCK, text)
    with hold(run_of(tmp_path), lines.append):
        assert lines[-1].endswith(", which is gone: taken over")


def test_a_lock_that_cannot_be_read_is_taken_over_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "GONE_S", 0.1)
    monkeypatch.setattr(lock, "LOOK_S", 0.05)
    run_of(tmp_path).write_text(LOCK, '{"half": ')
    with hold(run_of(tmp_path), print):
        assert "token" in run_of(tmp_path).read_text(LOCK)


def test_a_job_whose_lock_was_taken_over_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    lines: list[str] = []
    try:
        with hold(run_of(tmp_path), lines.append):
            run_of(tmp_path).write_text(LOCK, lock._me().dump())
            assert ended.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "has taken this run over: this one ends here" in lines[0]
    assert run_of(tmp_path).has(LOCK), "it is the other one's"


def test_generated_names_of_one_second_differ() -> None:
    assert len({name_run(Job(), "train").run_name for _ in range(100)}) == 100
    assert name_run(Job().replace({"run_name": "mine"}), "train").run_name == "mine"


def test_a_run_that_goes_on_may_be_given_checkpoints_within_its_epochs(tmp_path: Path) -> None:
    """They decide nothing of what it yields, and a run that was preempted needs them."""
    folder, job = run_of(tmp_path), Job().replace({"train.bf16": False})
    folder.write_text(CONFIG, dump(job))
    asked = job.replace({"train.save_steps": 20, "train.save_minutes": 10})
    assert check_folder(folder, asked) == asked
    with pytest.raises(ConfigError, match=r"with its own:\n  seed: 42 -> 1\n"):
        check_folder(folder, asked.replace({"seed": 1}))


FACTS = {"files": ["a.csv"], "rows": {"train": {"no": 40, "yes": 40}, "validation": {"no": 10, "yes": 10}}}


def test_a_run_goes_on_only_with_the_rows_it_began_with(tmp_path: Path) -> None:
    folder = run_of(tmp_path)
    check_same_rows(FACTS | {"fingerprint": "1"}, folder)
    check_same_rows(FACTS | {"fingerprint": "1", "files": ["elsewhere/a.csv"]}, folder)
    more = {"files": ["a.csv", "b.csv"], "rows": {**FACTS["rows"], "train": {"no": 40, "yes": 44, "?": 1}}}  # type: ignore[dict-item]
    with pytest.raises(DataError) as error:
        check_same_rows(more | {"fingerprint": "2"}, folder)
    assert str(error.value).splitlines()[1:-1] == [
        "  file b.csv is new",
        "  train: 40 -> 44 rows of 'yes'",
        "  train: 0 -> 1 rows of '?'",
    ]
    assert "another `run_name`" in str(error.value)
    renamed = {split: {"bad": rows["no"], "good": rows["yes"]} for split, rows in FACTS["rows"].items()}  # type: ignore[attr-defined]
    with pytest.raises(
        DataError, match=r"train: 40 -> 0 rows of 'no'\n  train: 40 -> 0 rows of 'yes'\n  train: 0 -> 40"
    ):
        check_same_rows(FACTS | {"rows": renamed, "fingerprint": "1"}, folder)
    assert changes(FACTS, FACTS) == ["as many rows of each label, but other texts, or labels that changed places"]
