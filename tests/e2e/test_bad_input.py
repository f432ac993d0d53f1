"""Every mistake of a user's ends in one clear error, exit code 2, and leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run

pytestmark = pytest.mark.e2e

GOOD = "text,label\n" + "".join(f"sentence number {i} of this file,{'ab'[i % 2]}\n" for i in range(12))


def refused(cwd: Path, *words: str) -> str:
    done = run("jobs/train.py", *words, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert not (cwd / "runs").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, [], "data.csv is not there"),
        (b"", [], "is empty"),
        (b"text,label\n", [], "holds no rows: only a header"),
        (b"review,stars\nfine,5\n", [], "has no column 'text'. Columns found: 'review', 'stars'"),
        ("text,label\nfein,ja\n".encode("utf-16-le"), [], "UTF-16 without"),
        (GOOD.encode(), ["lora.rank=8"], "lora.rank: unknown key"),
        (GOOD.encode(), ["train.lerning_rate=1"], "did you mean `train.learning_rate`?"),
        (GOOD.encode(), ["lora.r=eight"], "lora.r: "),
        (GOOD.encode(), ["lora.r=385"], "`lora.r` must be at most 384 (hidden size of bert), got 385"),
        (
            GOOD.encode(),
            ["lora.target_modules=[q_lin]"],
            "bert has no module 'q_lin'. Linear modules there: dense, key",
        ),
        (GOOD.encode(), ["model.base_model=nobody/nothing"], "base model 'nobody/nothing' was not found. Looked in:"),
    ],
)
def test_a_mistake_is_named_before_a_cluster_starts(
    content: bytes | None, words: list[str], message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "data.csv").write_bytes(content)
    assert message in refused(tmp_path, "data.train=data.csv", *words)


def test_a_mistake_found_on_the_cluster_ends_the_same_way(tmp_path: Path, bases: Callable[[str], Path]) -> None:
    """It needs Ray to be seen that all rows carry one label."""
    (tmp_path / "data.csv").write_text(GOOD.replace(",b\n", ",a\n"))
    base = f"model.base_model={bases('bert')}"
    assert "all 12 rows carry one label, 'a'" in refused(tmp_path, "data.train=data.csv", base)


def test_predict_refuses_what_is_no_adapter(tmp_path: Path) -> None:
    done = run("raylora", "predict", "--adapter", str(tmp_path / "nope"), "a text")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: adapter {tmp_path / 'nope'} is not there" in done.stderr


def test_help_schema_and_version_answer(tmp_path: Path) -> None:
    for words in (["--help"], ["train", "--help"], ["predict", "--help"], ["init", "--help"], ["bench", "--help"]):
        done = run("raylora", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: raylora" in done.stdout
    assert "lora.r=8" in run("jobs/train.py", "--help").stdout
    schema = json.loads(run("raylora", "schema").stdout)
    assert schema["$defs"]["LoraSection"]["properties"]["r"]["default"] == 8
    assert run("raylora", "--version").stdout.startswith("raylora 0.")
