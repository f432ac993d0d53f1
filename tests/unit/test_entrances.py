"""Every command ends without a traceback, whatever is typed and wherever it speaks to."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command

from raylora.cli.main import main

REVIEWS = "text,label\n" + "".join(f"sentence number {i} of this file,{'ab'[i % 2]}\n" for i in range(12))


def run_in(cwd: Path, *words: str | bytes, **more: str) -> subprocess.CompletedProcess[bytes]:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "LC_ALL", "LANG")}
    line = [os.fsencode(word) for word in command(["raylora"])] + [os.fsencode(word) for word in words]
    return subprocess.run(line, cwd=cwd, env=environ | more, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "job.yaml").write_text("data: {text_column: 評価}\n", encoding="utf-8")
    shown = run_in(tmp_path, "train", "job.yaml", "--dry-run", PYTHONIOENCODING=encoding)
    assert (shown.returncode, shown.stderr) == (0, b"")
    expected = "評価" if encoding == "utf-8" else "\\u8a55\\u4fa1"
    assert f"text_column: {expected}" in shown.stdout.decode()
    refused = run_in(tmp_path, "train", "評価.yaml", PYTHONIOENCODING=encoding)
    assert (refused.returncode, refused.stderr[:7]) == (2, b"error: ")
    assert b"Traceback" not in refused.stderr


def test_json_stays_json_on_an_ascii_terminal(tmp_path: Path) -> None:
    refused = run_in(tmp_path, "train", "data.trian=評", PYTHONIOENCODING="ascii", RAYLORA_LOG="json")
    assert "unknown key" in json.loads(refused.stderr)["message"]
    refused = run_in(tmp_path, "train", "評.yaml", PYTHONIOENCODING="ascii", RAYLORA_LOG="json")
    assert "評.yaml is not there" in json.loads(refused.stderr)["message"]


@pytest.mark.parametrize("words", [["schema"], ["train", "--help"], ["train", "--dry-run"], ["runs", "show", "x"]])
@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_a_closed_pipe_ends_a_command_in_silence(words: list[str], stream: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    closed = {name: write if stream in (name, "both") else subprocess.PIPE for name in ("stdout", "stderr")}
    done = subprocess.run(command(["raylora", *words]), cwd=tmp_path, **closed, timeout=60, check=False)  # pyright: ignore
    os.close(write)
    assert b"Traceback" not in (done.stdout or b"") + (done.stderr or b"")
    assert b"BrokenPipe" not in (done.stdout or b"") + (done.stderr or b"")
    fails = words == ["runs", "show", "x"]
    breaks = stream == "both" or stream == ("stderr" if fails else "stdout")
    if words != ["train", "--help"]:  # argparse passes over it
        assert done.returncode == (128 + signal.SIGPIPE if breaks else 2 if fails else 0)


def test_words_that_are_not_utf8_are_one_clear_error(tmp_path: Path) -> None:
    for words in ((b"train", b"data.train=caf\xe9.csv"), (b"runs", b"caf\xe9"), (b"train", b"caf\xe9.yaml")):
        done = run_in(tmp_path, *words)
        assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    done = run_in(tmp_path, b"train", b"data.train=caf\xe9.csv")
    assert b"`data.train` must be UTF-8, found 'caf\\udce9.csv'" in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("prdict", "predict"), ("Train", "train"), ("server", "serve")]
)
def test_a_mistyped_command_is_told_the_one_that_was_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed, "lora.r=8"]) == 2
    assert capsys.readouterr().err.startswith(f"error: no command '{typed}'; did you mean '{meant}'?")


@pytest.mark.parametrize("words", [["train", "data.train={}"], ["init", "{}.csv"], ["train", "{}"], ["runs", "{}"]])
def test_a_name_that_is_too_long_is_one_clear_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.format("x" * 300) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "x" * 300 in error


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/rows.csv?download=true", "gone/label=*/rows.csv"])
def test_inspect_takes_an_address_that_holds_an_equals_sign(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", address, "data.max_length=64"]) == 2
    assert capsys.readouterr().err.startswith((f"error: {address} cannot be fetched", f"error: {address} is not there"))


@pytest.mark.parametrize("word", ["mine.yaml", "lora.r=8"])
def test_a_job_without_its_command_is_told_so(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err.startswith(f"error: no command '{word}'. Known: train, tune, serve, ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            b'{"text": "a",\n"label": "b"}\n{"text": "c", "label": "d"}\n',
            "One object per line? Set data.format=jsonl",
        ),
        ("a.json", b'{"text": "a"}', "must hold a list of objects, found dict"),
        ("a.json", b"[1, 2]", "must hold objects, found int"),
        ("a.jsonl", b"3\n", "must hold objects, found int"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.csv", b"text,label\n\x00,\x00\n" + b"a,b\n" * 4, None),
        ("a.csv", b'text,label\n"a\n', "a.csv"),
        ("a.csv", b"text,lab\xe9l\n" + b"a,b\nc,d\n" * 3, None),
        ("a.jsonl", b"\xff\xfe\x00", "cannot be read as jsonl"),
        ("a.parquet", b"PAR1", "is not readable as parquet"),
    ],
)
def test_init_of_what_is_no_table_is_one_clear_error(
    name: str,
    content: bytes,
    message: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    code = main(["init", name])
    error = capsys.readouterr().err
    if message:
        assert (code, error.startswith("error: "), message in error) == (2, True, True), error


def test_init_takes_labels_that_are_not_utf8_and_names_with_line_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(REVIEWS.encode() + b"more,caf\xe9\n")
    assert main(["init", "a.csv"]) == 0
    rows = [{"text": "a b c", "label": "yes"}, {"text": "d", "label": "no\nseed: 7"}] * 4
    (tmp_path / "b.json").write_text(json.dumps(rows))
    assert main(["init", "b.json"]) == 0
    from raylora.config.file import read

    assert read(["b.yaml"], {}).seed == 42


@pytest.mark.parametrize("output", ["/proc/mine.yaml", "/dev/null/mine.yaml", "gone/mine.yaml"])
def test_init_where_nothing_can_be_written_is_one_clear_error(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(REVIEWS)
    assert main(["init", "a.csv", "--output", output]) == 2
    assert capsys.readouterr().err.startswith(f"error: {output} cannot be written: ")


def test_suggested_commands_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's $mine #2.csv").write_text(REVIEWS)
    assert main(["train", "it's $mine #2.csv"]) == 2
    asked = capsys.readouterr().err.split("`")[1]
    assert shlex.split(asked) == ["raylora", "init", "it's $mine #2.csv"]
    assert main(shlex.split(asked)[1:]) == 0
    then = capsys.readouterr().out.split("then: ")[1]
    assert shlex.split(then) == ["raylora", "train", "it's $mine #2.yaml"]
    assert main([*shlex.split(then)[1:], "--dry-run"]) == 0
    (tmp_path / "runs #1").mkdir()
    (tmp_path / "runs #1" / "config.yaml").write_text("{}")
    assert main(["runs", "runs #1"]) == 2
    assert shlex.split(capsys.readouterr().err.split("Try: ")[1])[:4] == ["raylora", "runs", "show", "runs #1"]


def test_a_command_needs_no_output(tmp_path: Path) -> None:
    """As under a service manager that closes both."""
    line = shlex.join(command(["raylora", "train", "--dry-run"]))
    assert subprocess.run(["sh", "-c", f"{line} >&- 2>&-"], cwd=tmp_path, timeout=60, check=False).returncode == 0
    assert sys.stdout is not None
