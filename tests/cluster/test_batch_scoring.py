"""Ray Data's pool scores each part of a table once, whatever is lost on the way; what is there is not scored again."""

import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from commands import ROOT, command
from tiny import make_adapter

import raylora
from raylora.cluster.predict.inputs import list_texts
from raylora.cluster.predict.job import Scored, score
from raylora.config import Job
from raylora.errors import ConfigError, DataError

pytestmark = pytest.mark.cluster

Bases = Callable[[str], Path]
KILLS = int(os.environ.get("RAYLORA_KILLS", "3"))
WORDS = ["the", "film", "was", "long", "and", "nobody", "asked", "for", "it", "but", "everybody", "loved", "her"]
TEXTS = [" ".join(WORDS[i % 7 : 8 + i % 5]) + f" {i}" for i in range(120)]


@pytest.fixture(scope="module")
def adapter(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(bases("bert"), tmp_path_factory.mktemp("adapter") / "label", ("no", "yes"), seed=1)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of some twelve parts."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def job_of(rows: Path, adapter: Path, output: Path, **changes: Any) -> Job:
    own = {"data": str(rows), "adapter": str(adapter), "output": str(output), "part_bytes": 800, **changes}
    return Job().replace({key if "." in key else f"predict.{key}": value for key, value in own.items()})


def run(job: Job) -> tuple[Scored, list[str]]:
    said: list[str] = []
    return score(job, list_texts(job, said.append), said.append), said


def parts_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("part-*"))}


def test_a_table_is_scored_once_and_goes_on_with_what_is_missing(
    local_ray: None, adapter: Path, rows: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    scored, _ = run(job_of(rows, adapter, output))
    found, whole = pq.read_table(output).to_pylist(), parts_of(output)
    own = raylora.load(adapter).predict(TEXTS)
    assert [(row["id"], row["text"], row["label"]) for row in found] == [
        (i, text, each.label) for i, (text, each) in enumerate(zip(TEXTS, own, strict=True))
    ]
    assert [row["score"] for row in found] == pytest.approx([each.score for each in own], abs=1e-5)
    assert (scored.rows, scored.bad, scored.parts) == (120, 0, len(whole))
    assert json.loads((output / "_SUCCESS").read_text())["counts"] == scored.counts
    assert {path.name for path in (output / "_raylora").iterdir()} == {"predict.json", "done"}

    again, _ = run(job_of(rows, adapter, output))
    assert again == scored, "nothing was to be done"

    missing = list(whole)[2:5]
    for name in missing:
        (output / "_raylora" / "done" / f"{name}.json").unlink()
    (output / missing[0]).unlink()
    (output / "_SUCCESS").unlink()
    _, said = run(job_of(rows, adapter, output))
    assert f"resuming   {len(whole) - 3} of {len(whole)} parts are there" in said
    assert parts_of(output) == whole

    for changes, what in (
        ({"all_scores": True}, "predict.all_scores: False -> True"),
        ({"data.encoding": "latin-1"}, "data.encoding: None -> latin-1"),
    ):
        with pytest.raises(ConfigError, match=what):
            run(job_of(rows, adapter, output, **changes))
    rows.write_text(rows.read_text().replace("film", "book"))
    with pytest.raises(ConfigError, match=r"was begun with something else:\n  file rows\.jsonl has another content"):
        run(job_of(rows, adapter, output))
    assert parts_of(output) == whole


def test_rows_that_cannot_be_scored_end_a_job_before_it_starts_or_are_listed(
    local_ray: None, adapter: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"{text},x\n" for text in TEXTS) + " ,x\n")
    output = tmp_path / "out"
    with pytest.raises(DataError, match=r"1 of 121 rows cannot be scored:\n  .*rows\.csv, line 122: 'text' is blank"):
        run(job_of(rows, adapter, output))
    with pytest.raises(ConfigError, match="columns that the predictions also have: 'label'"):
        run(job_of(rows, adapter, output, **{"data.on_bad_row": "skip"}))
    assert not output.exists() or not list(output.glob("part-*"))
    scored, _ = run(job_of(rows, adapter, output, prefix="said_", format="csv", **{"data.on_bad_row": "skip"}))
    assert (scored.rows, scored.bad) == (120, 1)
    (bad,) = [json.loads(line) for line in Path(scored.bad_rows_uri).read_text().splitlines()]
    assert bad == {"place": f"{rows}, line 122", "reason": "'text' is blank"}
    assert sum(content.count(b"\n") - 1 for content in parts_of(output).values()) == 120


def processes(pattern: str) -> list[psutil.Process]:
    """Those of the session's Ray, and of a command's, by their command lines."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if re.search(pattern, " ".join(child.cmdline())):
                found.append(child)
    return found


def pool_workers() -> list[psutil.Process]:
    return processes(r"ray::.*(PoolWorker|MapWorker)")


def raylets() -> list[psutil.Process]:
    return processes(r"/raylet/raylet ")


def test_a_lost_process_changes_no_byte(local_ray: None, adapter: Path, rows: Path, tmp_path: Path) -> None:
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    run(job_of(rows, adapter, whole, batch_size=1))
    killed: list[int] = []

    def kill_at_the_first_part() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not killed:
            if list(hurt.glob("part-*")):
                for process in pool_workers()[:1]:
                    process.kill()
                    killed.append(process.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_at_the_first_part)
    killer.start()
    scored, _ = run(job_of(rows, adapter, hurt, batch_size=1))
    killer.join()
    assert killed, "the table was scored before a process could be killed"
    assert scored.rows == 120
    assert parts_of(hurt) == parts_of(whole)


def start(rows: Path, adapter: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    """With a Ray of its own."""
    own = {"data": rows, "adapter": adapter, "output": output, "part_bytes": 800, "batch_size": 2, "concurrency": 2}
    words = ["jobs/predict.py", "ray.address=local", *(f"predict.{key}={value}" for key, value in own.items())]
    with log.open("ab") as file:
        return subprocess.Popen(command(words), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def marks_of(output: Path) -> int:
    return len(list((output / "_raylora" / "done").glob("*.json")))


def test_a_killed_driver_is_gone_on_with_to_the_same_bytes(
    local_ray: None, adapter: Path, rows: Path, tmp_path: Path
) -> None:
    whole, hurt, log = tmp_path / "whole", tmp_path / "hurt", tmp_path / "log"
    run(job_of(rows, adapter, whole, batch_size=2))
    process = start(rows, adapter, hurt, log)
    until = time.monotonic() + 240
    while not marks_of(hurt) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    kill_all(process)
    assert not (hurt / "_SUCCESS").exists(), "the table was scored before the kill"
    assert start(rows, adapter, hurt, log).wait(240) == 0, log.read_text(errors="replace")
    assert "resuming" in log.read_text(errors="replace")
    assert parts_of(hurt) == parts_of(whole)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """A driver; its Ray would go by itself in some seconds, but two cores are few for two of them."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.mark.slow
def test_random_kills_of_driver_process_and_raylet_change_no_byte(adapter: Path, tmp_path: Path) -> None:
    """Each start ends with a kill; a process that scores is killed on the way, which no start ends by."""
    chance, log = random.Random(1), tmp_path / "log"
    rows = tmp_path / "many.jsonl"
    rows.write_text("".join(json.dumps({"id": i, "text": f"{TEXTS[i % 120]} {i}"}) + "\n" for i in range(600 * KILLS)))
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    assert start(rows, adapter, whole, log).wait(900) == 0, log.read_text(errors="replace")
    killed: list[str] = []
    while len(killed) < KILLS:
        process, enough = start(rows, adapter, hurt, log), marks_of(hurt) + chance.randrange(1, 8)
        while process.poll() is None and marks_of(hurt) < enough:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        for name in ("worker", "raylet")[: 1 + len(killed) % 2]:
            victims = pool_workers() if name == "worker" else raylets()
            if victims:
                victims[0].kill()
                killed.append(name)
                time.sleep(chance.uniform(0, 3))
        kill_all(process)
        killed.append("driver")
    assert killed, "the table was scored before the first kill"
    if not (hurt / "_SUCCESS").exists():
        assert start(rows, adapter, hurt, log).wait(900) == 0, log.read_text(errors="replace")
    assert parts_of(hurt) == parts_of(whole)
