"""A bench that cannot run says so in one line, before anything is measured."""

from pathlib import Path

import pytest
from commands import run

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tune"],
            "the bench needs `data.train`, `data.validation`, each one parquet file, e.g. those of jobs/sst2.yaml.",
        ),
        (["tune", "data.train=nope.parquet"], "the bench needs `data.train`, `data.validation`, each one parquet file"),
        (["train"], "the bench needs `data.train`, `data.validation`, `data.test`, each one parquet file"),
    ],
)
def test_a_bench_without_its_data_ends_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    done = run("jobs/bench.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_a_bench_repeats_at_least_once(tmp_path: Path) -> None:
    done = run("jobs/bench.py", "tune", "--repeats", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "--repeats: must be a whole number above 0, found '0'" in done.stderr
