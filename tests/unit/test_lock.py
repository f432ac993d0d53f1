"""One job a run folder, and one writer of a file, wherever it lies. No Ray is started."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
from raylora.errors import ConfigError, DataError, LockError

HOLD = """
import sys, time
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import RunFolder
from raylora.config import Job
with hold(RunFolder(Job().replace({"storage_path": sys.argv[1], "run_name": "first"})), print):
    print("held", flush=True)
    time.sleep(60)
"""
ROUNDS = """
import sys, time
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import RunFolder
from raylora.config import Job
from raylora.errors import ConfigError
print("ready", flush=True)
for line in sys.stdin:
    storage, begin = line.split()
    while time.time() < float(begin):
        pass
    try:
        with hold(RunFolder(Job().replace({"storage_path": storage, "run_name": "first"})), lambda line: None):
            print("held", flush=True)
            sys.stdin.readline()
    except ConfigError as error:
        print("refused" if "is at work" in str(error) else error, flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
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


@contextmanager
def running(script: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """A process that has said its first line."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            while said(process) not in ("held", "ready"):
                pass
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "it has ended"
    return line.strip()


def tell(processes: list[subprocess.Popen[str]], line: str) -> list[str]:
    """What each says to this line."""
    for process in processes:
        assert process.stdin
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return [said(process) for process in processes]


def lock_files(folder: RunFolder) -> list[str]:
    return sorted(name for name in folder.location.files() if name.startswith(LOCK))


@pytest.mark.parametrize(("remote", "rounds"), [(False, 20), (True, 4)])
def test_of_many_processes_at_a_killed_jobs_lock_one_takes_it_over(
    remote: bool, rounds: int, tmp_path: Path, s3_address: Callable[[str], str]
) -> None:
    left: list[dict[str, str]] = []  # by a killed job; by that and one that took over from it and was killed, too
    for _ in range(2):
        with running(HOLD, str(tmp_path / "killed")):
            pass
        killed = run_of(tmp_path / "killed")
        left.append({name: killed.read_text(name) for name in lock_files(killed)})
    assert [len(files) for files in left] == [1, 2]
    with ExitStack() as stack:
        processes = [stack.enter_context(running(ROUNDS)) for _ in range(4)]
        for i in range(rounds):
            storage = s3_address(f"bucket/round{i}") if remote else str(tmp_path / f"round{i}")
            for name, text in left[i % 2].items():
                run_of(storage).write_text(name, text)
            assert sorted(tell(processes, f"{storage} {time.time() + 0.1}")) == ["held", *["refused"] * 3]
            tell(processes, "end")
            assert lock_files(run_of(storage)) == []


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
    with (
        hold(run_of(tmp_path), print),
        pytest.raises(ConfigError, match="is at work"),
        hold(run_of(tmp_path), print),
    ):
        pytest.fail("held twice")
    assert list(tmp_path.glob("first/*")) == []


def test_two_machines_at_a_lock_without_a_sign_of_life_and_one_takes_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "GONE_S", 4.0)
    monkeypatch.setattr(lock, "LOOK_S", 0.05)
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock, "_machine", lambda host: f"{host} {threading.get_ident()}")
    run_of(tmp_path).write_text(LOCK, json.dumps(json.loads(lock._me().dump()) | {"machine": "another"}))
    refused = threading.Event()

    def work(_: int) -> str:
        try:
            with hold(run_of(tmp_path), print):
                refused.wait(30)
                return "held"
        except ConfigError:
            refused.set()
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(work, range(2))) == ["held", "refused"]
    assert list(tmp_path.glob("first/*")) == []


def take_over(folder: RunFolder) -> None:
    folder.write_text(LOCK, lock._me().dump())


def remove(folder: RunFolder) -> None:
    """By hand; or by a job that took over from one that slept, and has ended since."""
    folder.location.inside(LOCK).delete()


@pytest.mark.parametrize(
    ("lose", "why", "left"), [(take_over, "has taken this run over", [LOCK]), (remove, "lock.json is gone", [])]
)
def test_a_job_that_lost_its_lock_ends_and_may_not_finish_the_run(
    lose: Callable[[RunFolder], None], why: str, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    ended, folder = threading.Event(), run_of(tmp_path)
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    lines: list[str] = []
    try:
        with hold(folder, lines.append) as held:
            while len(lock_files(folder)) < 2:  # until its first sign of life
                time.sleep(0.01)
            held.check()
            lose(folder)
            with pytest.raises(LockError, match=rf"{why}.* nothing was written"):
                held.check()
            assert ended.wait(30)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert why in lines[0]
    assert lines[0].endswith(": this one ends here")
    assert lock_files(folder) == left, "what is left is the other one's"


def test_what_earlier_takers_left_beside_a_lock_goes_with_it(tmp_path: Path) -> None:
    for kind in ("taken", "alive", "alive.part"):
        run_of(tmp_path).write_text(f"{LOCK}.{'a' * 32}.{kind}", "")
    with hold(run_of(tmp_path), print):
        pass
    assert list(tmp_path.glob("first/*")) == []


def test_generated_names_of_one_second_differ() -> None:
    assert len({name_run(Job(), "train").run_name for _ in range(100)}) == 100
    assert name_run(Job().replace({"run_name": "mine"}), "train").run_name == "mine"


def test_a_run_that_goes_on_may_be_given_checkpoints_within_its_epochs(tmp_path: Path) -> None:
    """They decide nothing of what it yields, and a run that was preempted needs them."""
    one_label = {"data.problem_type": "single_label_classification"}
    folder, job = run_of(tmp_path), Job().replace({"train.bf16": False, **one_label})
    folder.write_text(CONFIG, dump(job))
    asked = job.replace({"train.save_steps": 20, "train.save_minutes": 10})
    assert check_folder(folder, asked) == asked
    with pytest.raises(ConfigError, match=r"with its own:\n  seed: 42 -> 1\n"):
        check_folder(folder, asked.replace({"seed": 1}))


def test_a_run_goes_on_with_the_problem_type_that_was_taken_of_its_rows(tmp_path: Path) -> None:
    folder, asked = run_of(tmp_path), Job().replace({"train.bf16": False})
    for taken in ("regression", "multi_label_classification"):
        folder.write_text(CONFIG, dump(asked.replace({"data.problem_type": taken})))
        assert check_folder(folder, asked).data.problem_type == taken
    with pytest.raises(ConfigError, match=r"data.problem_type: multi_label_classification -> regression"):
        check_folder(folder, asked.replace({"data.problem_type": "regression"}))


def test_a_run_of_before_there_were_several_kinds_goes_on_with_one_label_a_row(tmp_path: Path) -> None:
    folder, asked = run_of(tmp_path), Job().replace({"train.bf16": False})
    folder.write_text(CONFIG, dump(asked))
    for kind in (None, "single_label_classification"):
        found = check_folder(folder, asked.replace({"data.problem_type": kind}))
        assert found.data.problem_type == "single_label_classification"


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
    assert changes(FACTS, FACTS) == [
        "as many rows of each label, but other texts, other numbers, or labels that changed places"
    ]
