"""`raylora runs rm` and `prune`: what goes, what stays, and that nothing goes where a job is at work."""

import os
import time
from pathlib import Path

import pytest

from raylora.cli.main import main
from raylora.cli.removal import seconds_of, size_in_words
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import FINISHED, TRIALS_TABLE, RunFolder
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError

DAY = 86_400


def begin(root: Path, name: str, days: int = 0) -> RunFolder:
    """A run that was last written to so many days ago."""
    job = Job().replace({"run_name": name, "storage_path": str(root)})
    folder = RunFolder(job)
    folder.write_text("config.yaml", jobfile.dump(job))
    folder.write_text("checkpoint_001/model", "x" * 10_000)
    for path in (folder.path, *Path(folder.path).iterdir()):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def sweep(root: Path, name: str, ranks: list[str]) -> RunFolder:
    folder = begin(root, name)
    folder.write_text(TRIALS_TABLE, "rank,trial\n" + "".join(f"{i},{each}\n" for i, each in enumerate(ranks, 1)))
    for trial in ranks:
        folder.write_text(f"trials/{trial}/checkpoint_000001/trial.json", "x" * 1000)
    folder.write_text(f"train/{ranks[-1]}/config.yaml", "x" * 1000)
    folder.write_text("adapter/adapter_config.json", "{}")
    folder.write_json(FINISHED, {"validation": None, "test": None, "trials": {"finished": len(ranks)}})
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rm_removes_what_is_named_and_says_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        begin(tmp_path, name)
    assert main(["runs", "rm", "a", "c", str(tmp_path)]) == 0
    assert names(tmp_path) == ["b"]
    removed, _, freed = capsys.readouterr().out.splitlines()
    assert removed.startswith(f"removed {tmp_path}/a  (1") and removed.endswith(" kB)") and freed.startswith("freed 2")


def test_a_dry_run_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, "a")
    assert main(["runs", "rm", "a", str(tmp_path), "--dry-run"]) == 0
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["checkpoint_001", "config.yaml"]
    assert capsys.readouterr().out.startswith(f"would remove {tmp_path}/a")


def test_a_wrong_name_removes_none_of_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, "first")
    assert main(["runs", "rm", "first", "frist", str(tmp_path)]) == 2
    assert names(tmp_path) == ["first"]
    assert "did you mean 'first'?" in capsys.readouterr().err


def test_a_run_at_work_stays_and_the_others_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "works"):
        begin(tmp_path, name, days=40)
    with hold(RunFolder(Job().replace({"run_name": "works", "storage_path": str(tmp_path)})), print):
        old = time.time() - 40 * DAY
        os.utime(tmp_path / "works/lock.json", (old, old))
        assert main(["runs", "prune", "--older-than", "30d", str(tmp_path)]) == 2
        assert names(tmp_path) == ["works"] and "checkpoint_001" in names(tmp_path / "works")
    assert "works is at work" in capsys.readouterr().err


def test_an_endpoint_is_left_to_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(Job().replace({"run_name": "serve", "storage_path": str(tmp_path)})).write_text("adapters.json", "{}")
    assert main(["runs", "rm", "serve", str(tmp_path)]) == 2
    assert "is an endpoint's folder" in capsys.readouterr().err and names(tmp_path) == ["serve"]


def test_prune_by_age_takes_what_is_older(tmp_path: Path) -> None:
    begin(tmp_path, "old", days=31)
    begin(tmp_path, "young", days=29)
    assert main(["runs", "prune", "--older-than", "30d", str(tmp_path)]) == 0
    assert names(tmp_path) == ["young"]


def test_prune_by_rank_keeps_the_best_trials_and_all_else_of_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(sweep(tmp_path, "sweep", ["t3", "t1", "t2", "t4"]).path)
    begin(tmp_path, "run")
    assert main(["runs", "prune", "--keep", "2", str(tmp_path)]) == 0
    assert names(folder / "trials") == ["t1", "t3"] and names(folder / "train") == []
    assert {"adapter", TRIALS_TABLE, FINISHED, "config.yaml"} <= {*names(folder)}
    assert capsys.readouterr().out == f"removed 2 trials of {folder}  (3.0 kB)\nfreed 3.0 kB\n"
    assert main(["runs", "prune", "--keep", "2", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "freed 0 B\n"
    assert names(tmp_path) == ["run", "sweep"]


@pytest.mark.parametrize(
    "words",
    [
        ["rm"],
        ["prune"],
        ["prune", "--keep", "0"],
        ["prune", "--keep", "1", "--older-than", "1d"],
        ["prune", "x", "--keep", "1"],
    ],
)
def test_what_cannot_be_meant_removes_nothing(words: list[str]) -> None:
    assert main(["runs", *words]) == 2


def test_ages_and_sizes() -> None:
    assert [seconds_of(age) for age in ("45min", "12h", "30d", "4w")] == [2700, 43_200, 2_592_000, 2_419_200]
    with pytest.raises(ConfigError, match="30d"):
        seconds_of("30")
    assert [size_in_words(size) for size in (999, 1500, 2_500_000, 3e9)] == ["999 B", "1.5 kB", "2.5 MB", "3.0 GB"]
