"""A bench that cannot run says so in one line, before anything is measured."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tune"],
            "the bench needs `data.train`, `data.validation`, each one parquet file, e.g. data.train=train.parquet.",
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


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seeds", "0"], "error: bench accuracy needs at least one of --seeds."),
        (["--seeds", "-2"], "error: argument --seeds: must be a whole number, found '-2'"),
        (["--samples", "1"], "error: argument --samples: must be 0, or at least 2 to be ranked, found '1'"),
    ],
)
def test_accuracy_is_not_measured_on_nothing(option: list[str], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), tmp_path / "rows.parquet")
    done = run("jobs/bench.py", "accuracy", *option, "data.train=rows.parquet", "data.test=rows.parquet", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_bench_repeats_at_least_once(tmp_path: Path) -> None:
    done = run("jobs/bench.py", "tune", "--repeats", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "--repeats: must be a whole number above 0, found '0'" in done.stderr
