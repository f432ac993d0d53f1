"""What `raylora runs` tells of a storage path, from folders that the jobs' own writers made."""

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylora.cli.main import main
from raylora.cli.runs import ago, commands, words
from raylora.cluster.serve.table import Table
from raylora.cluster.serve.table_start import configure
from raylora.cluster.storage import listing as runs
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.listing import list_runs, show_run
from raylora.cluster.storage.run_folder import FINISHED, RunFolder
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.metrics import Scores

SCORES = Scores({"accuracy": 0.75, "f1": 0.7, "f1_macro": 0.6, "loss": 0.5}, 18).as_dict()


def begin(root: Path, name: str, **changes: Any) -> RunFolder:
    """As train and tune do, once the data is read."""
    job = Job().replace({"run_name": name, "storage_path": str(root), **changes})
    folder = RunFolder(job)
    folder.write_text("config.yaml", jobfile.dump(job))
    return folder


def train_for(folder: RunFolder, epochs: int) -> None:
    """As `stream.follow` does with what a fit logs."""
    lines = list[dict[str, Any]]()
    for epoch in range(1, epochs + 1):
        lines.append({"kind": "loss", "step": epoch * 5, "epoch": epoch, "loss": 1 / epoch})
        scores = {f"eval_{name}": value for name, value in {**SCORES, "accuracy": 0.5 + epoch / 10}.items()}
        lines.append({"kind": "evaluation", "step": epoch * 5, "epoch": float(epoch), **scores})
    folder.write_text("history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def sweep_for(folder: RunFolder, trials: int, pad: str = "") -> None:
    """As `SweepEvents` does with what trials report."""
    lines = list[dict[str, Any]]()
    for epoch in (1, 2):
        for trial in range(trials):
            best = {f"best_{name}": value for name, value in {**SCORES, "accuracy": 0.5 + trial / 1000}.items()}
            report = {"trial": f"t{trial}", "words": f"r={trial}{pad}", "epoch": epoch, "failure": None}
            lines.append({**report, "score": best["best_accuracy"], **best})
    folder.write_text("history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    Path(folder.path, "trials").mkdir()  # Ray Tune makes it


def finish(folder: RunFolder, **more: Any) -> None:
    folder.write_json(FINISHED, {"validation": SCORES, "test": {**SCORES, "accuracy": 0.25}, **more})


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One of each."""
    root = tmp_path / "my runs"
    first = begin(root, "first", **{"lora.r": 16})
    train_for(first, 3)
    finish(first, best_epoch=2)
    train_for(begin(root, "half", **{"data.train": "it's mine.csv"}), 2)
    begin(root, "early")
    sweep = begin(root, "sweep", **{"tune.space": {"lora.r": {"choice": [4, 8]}}})
    sweep_for(sweep, 20)
    finish(sweep, trials={"finished": 18, "stopped": 1, "failed": 1})
    sweep_for(begin(root, "search"), 4)
    RunFolder(Job().replace({"run_name": "serve", "storage_path": str(root)})).write_text(
        "adapters.json", configure(Table(), {"reviews": "/a/b"}, {"reviews": "d"}, None).put("other", "/c", "e").dump()
    )
    broken = begin(root, "broken")
    broken.write_text(FINISHED, "{half")
    (root / "notes").mkdir()
    return root


def test_every_job_is_listed_with_its_kind_state_and_scores(root: Path) -> None:
    found = {each.name: each for each in list_runs(str(root))}
    told = {n: (e.kind, e.state, e.reached) for n, e in found.items()}
    assert told == {
        "first": ("run", "finished", "best epoch 2"),
        "half": ("run", "unfinished", "epoch 2"),
        "early": ("unknown", "unfinished", ""),
        "sweep": ("sweep", "finished", "20 trials"),
        "search": ("sweep", "unfinished", "4 trials"),
        "serve": ("endpoint", None, "2 adapters"),
        "broken": ("run", "unreadable", ""),
    }
    assert found["first"].validation == SCORES
    assert found["first"].test and found["first"].test["accuracy"] == 0.25
    assert found["half"].validation and found["half"].validation["accuracy"] == pytest.approx(0.7)
    assert found["search"].validation and found["search"].validation["accuracy"] == pytest.approx(0.503)


def test_the_last_written_comes_first_with_its_age(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (root / "half", *(root / "half").iterdir()):
        os.utime(path, (time.time() - 3 * 86_400,) * 2)
    assert main(["runs", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "kind", "state", "validation", "test", "written", "size", "reached"]
    *told, size, unit, epoch, number = lines[-1].split()
    assert told == ["half", "run", "unfinished", "0.7000", "accuracy", "-", "3", "d"] and (epoch, number) == (
        "epoch",
        "2",
    )
    assert unit == "kB" and float(size) * 1000 == pytest.approx(written(root / "half"), abs=50)
    assert ago(59) == "59 s" and ago(60) == "1 min" and ago(7300) == "2 h"


def test_one_run_is_shown_with_config_epochs_files_and_what_serves_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", "first", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "lora.r: 16" in shown and "model.base_model: sentence-transformers" in shown
    assert "3      0.8000    0.7000    0.6000    0.5000    0.3333" in shown
    assert "metrics.json  " in shown
    assert shlex.split(shown.splitlines()[-1])[1:] == ["raylora", "serve", f"serve.adapters.first={root}/first/adapter"]


@pytest.mark.parametrize(("name", "command"), [("half", "train"), ("search", "tune")])
def test_the_command_that_goes_on_is_the_same_job(root: Path, name: str, command: str) -> None:
    shown = show_run(str(root), name)
    first, second, *rest = shlex.split(commands(shown)["continue"])
    assert (first, second) == ("raylora", command)
    job = jobfile.read(rest, {})
    assert job == shown.job
    place = {"run_name": name, "storage_path": str(root)}
    assert jobfile.read(words(job), {}).replace(place) == job, "what is shown for object storage"


def test_an_endpoint_shows_its_table_and_starts_again_with_its_config(root: Path) -> None:
    shown = show_run(str(root), "serve")
    assert shown.adapters == {"reviews": "/a/b", "other": "/c"}
    assert "serve.adapters.reviews=/a/b" in commands(shown)["continue"]
    assert "other" not in commands(shown)["continue"], "put over HTTP: it stays in the table"


def test_json_is_whole(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json", str(root)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == 7 and all(each["written"].endswith("+00:00") for each in listed)
    assert main(["runs", "show", "sweep", str(root), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["tune"]["space"] == {"lora.r": {"choice": [4, 8]}}
    assert len(shown["history"]) == 20 and {each["epoch"] for each in shown["history"]} == {2}
    assert set(shown["commands"]) == {"serve"} and shown["files"]["trials"] is None


def test_a_run_whose_driver_died_as_it_wrote_is_read_without_its_last_line(root: Path) -> None:
    history = root / "half" / "history.jsonl"
    history.write_text(history.read_text()[:-20])
    (half,) = [each for each in list_runs(str(root)) if each.name == "half"]
    assert (half.state, half.reached) == ("unfinished", "epoch 1")
    assert [each["epoch"] for each in show_run(str(root), "half").history] == [1]


def test_an_epoch_that_was_trained_again_is_shown_as_it_was_last(root: Path) -> None:
    for name, record in {
        "half": {"kind": "evaluation", "step": 5, "epoch": 1.0, "eval_accuracy": 0.1},
        "search": {"kind": "trial", "trial": "t3", "words": "", "epoch": 2, "score": 0.1},
    }.items():
        folder = RunFolder(Job().replace({"run_name": name, "storage_path": str(root)}))
        folder.append_text("history.jsonl", json.dumps(record) + "\n")
    folder.append_text("history.jsonl", json.dumps({"kind": "failure", "trial": "t3", "failure": "lost"}) + "\n")
    assert [each["eval_accuracy"] for each in show_run(str(root), "half").history] == [0.1, 0.7]
    assert [each["score"] for each in show_run(str(root), "search").history] == [0.5, 0.501, 0.502, 0.1]


def test_a_list_reads_only_the_end_of_a_long_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_for(begin(tmp_path, "long"), 3000, pad="x" * 100)
    assert Path(tmp_path, "long", "history.jsonl").stat().st_size > 4 * runs.TAIL
    read: list[int] = []
    whole = Location.read_text
    monkeypatch.setattr(Location, "read_text", lambda *given: (text := whole(*given), read.append(len(text)))[0])
    (summary,) = list_runs(str(tmp_path))
    assert sum(read) <= runs.TAIL
    assert summary.reached.endswith("+ trials") and summary.validation


def test_hundreds_of_runs_take_at_most_a_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(300):
        finish(begin(tmp_path, f"r{i}"), best_epoch=1)
    read: list[str] = []
    whole = Location.read_text
    monkeypatch.setattr(Location, "read_text", lambda file, *most: (read.append(file.path), whole(file, *most))[1])
    assert len(list_runs(str(tmp_path))) == 300
    assert sorted(read) == sorted(f"{tmp_path}/r{i}/{FINISHED}" for i in range(300))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["runs", "{root}s"], "is not there; did you mean 'my runs'?"),
        (["runs", "show", "frist", "{root}"], "holds no run 'frist'; did you mean 'first'?"),
        (["runs", "show", "notes", "{root}"], "holds no run 'notes'"),
        (["runs", "{root}/first"], "is a run, not a folder of runs. Try: raylora runs show first"),
        (["runs", "{root}/first/config.yaml/"], "is a file"),
        (["runs", "ftp9://x/y"], "cannot be used"),
        (["runs", "s3://k:secret@bucket/runs"], "holds a password"),
        (["runs", "show"], "takes NAME [STORAGE_PATH]"),
        (["runs", "a", "b"], "takes [STORAGE_PATH]"),
    ],
)
def test_what_cannot_be_shown_is_one_clear_error(
    given: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(root=root) for word in given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "secret" not in error


def test_no_argument_means_runs_here_and_a_config_means_its_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "job.yaml").write_text("storage_path: my runs\n")
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no runs in runs\n"
    assert main(["runs", "job.yaml"]) == 0
    assert "first" in capsys.readouterr().out


def test_a_run_on_s3_is_listed_and_continued_by_its_address(s3_address: Callable[[str], str]) -> None:
    place = s3_address("bucket/runs")
    job = Job().replace({"run_name": "far", "storage_path": place, "lora.r": 16})
    folder = RunFolder(job)
    folder.write_text("config.yaml", jobfile.dump(job))
    train_for(folder, 2)
    (summary,) = list_runs(place)
    assert (summary.kind, summary.state, summary.reached) == ("run", "unfinished", "epoch 2")
    command = shlex.split(commands(show_run(place, "far"))["continue"])
    assert jobfile.read(command[2:], {}) == job
