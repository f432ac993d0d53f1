"""`raylora predict` takes texts or a table; what is mixed up or missing is one clear error."""

from pathlib import Path

import pytest

from raylora.cli.main import main
from raylora.config import Job
from raylora.config.file import dump, read
from raylora.errors import ConfigError

TABLE = ["predict.data=a.csv", "predict.adapter=run", "predict.output=out"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no adapter is named. Say what to label"),
        (["a text", "another"], "no adapter is named. Texts need one: raylora predict --adapter PATH"),
        (["--adapter", "run"], "no text is given"),
        (["--adapter", "run", "predict.data=a.csv"], "'predict.data=a.csv' is a key. To score a table leave --adapter"),
        (["--adapter", "run", "--dry-run", "x"], "--dry-run shows the config of a table"),
        ([*TABLE, "--pairs"], "--pairs is of texts with --adapter; of a table, `predict.text_pair_column`"),
        ([*TABLE, "--json"], "--json is of texts with --adapter"),
        ([*TABLE, "--threshold", "0.5"], "of a table, set `predict.threshold`"),
        ([*TABLE, "--min-accuracy", "0.9"], "of a table, set `predict.min_accuracy`"),
        ([*TABLE, "--base-model", "x"], "of a table, set `model.base_model`"),
        (TABLE[:2], "`predict.output` is not set"),
        (TABLE[1:], "`predict.data` is not set"),
        (TABLE, "a.csv is not there"),
        (["predict.dta=a.csv"], "predict.dta: unknown key"),
    ],
)
def test_what_is_mixed_up_or_missing_is_said_before_anything_is_loaded(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_adapter_in_the_config_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("text\nfine\n")
    assert main(["predict", f"predict.data={tmp_path}/a.csv", f"predict.output={tmp_path}/out"]) == 2
    assert "`predict.adapter` names no adapter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_text_may_look_like_a_key_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--adapter", "nowhere", "data.nothing=3"]) == 2
    assert "nowhere is not there" in capsys.readouterr().err


def test_a_dry_run_of_a_table_shows_its_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *TABLE, "predict.adapters={}", "--dry-run"]) == 0
    assert "  adapter: run\n" in capsys.readouterr().out


def test_help_says_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    shown = capsys.readouterr().out
    assert "raylora predict --adapter runs/first" in shown
    assert "raylora predict predict.data=new.csv" in shown
    assert "predict.all_scores=false" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict.adapter=a", "predict.adapters={b: c}"], "leave one out"),
        (["predict.columns=[a, a]"], "must name each column once"),
        (["predict.concurrency=[4, 2]"], r"must be \[min, max\]"),
        (["predict.threshold=1.5"], "predict.threshold"),
        (["predict.format=xlsx"], "predict.format"),
        (["predict.adapters={a b: c}"], "predict.adapters"),
    ],
)
def test_a_config_that_cannot_be_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(words, {})


def test_a_config_of_a_table_reads_back(tmp_path: Path) -> None:
    job = read([*TABLE, "predict.columns=[id, text]", "predict.concurrency=[1, 4]", "predict.threshold=0.5"], {})
    (tmp_path / "job.yaml").write_text(dump(job))
    assert read([str(tmp_path / "job.yaml")], {}) == job
    assert Job().predict.data is None
