"""Where an export is written: it is there whole or not at all, and nothing else is touched."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from raylora.cli.main import main
from raylora.cluster.export.folder import check_output, written
from raylora.errors import ConfigError, FullDiskError, ModelError
from raylora.model.export.facts import MARK

Usage = namedtuple("Usage", "total used free")


def fill(part: Path, text: str = "new") -> None:
    (part / "weights").write_text(text)
    (part / MARK).write_text("{}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_takes_its_place_whole_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    output = check_output(str(tmp_path / "deep" / "out"))
    for text in ("first", "second"):
        with written(output, 10) as part:
            fill(part, text)
            assert not output.exists() or (output / "weights").read_text() == "first"
        assert (output / "weights").read_text() == text
        assert check_output(str(output)) == output
    assert names(output.parent) == ["out"]


@pytest.mark.parametrize("error", [ModelError("no"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_nothing_and_the_earlier_export_as_it_was(
    error: BaseException, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with written(output, 10) as part:
        fill(part, "first")
    with pytest.raises(type(error)), written(output, 10) as part:
        fill(part, "half")
        raise error
    assert names(tmp_path) == ["out"] and (output / "weights").read_text() == "first"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for name, said in (("thesis", "holds other files"), ("link", "holds other files"), ("file", "is a file")):
        with pytest.raises(ConfigError, match=said):
            check_output(str(tmp_path / name))
    with pytest.raises(ConfigError, match="must be a local folder"):
        check_output("s3://bucket/out")
    with written(check_output(str(tmp_path / "empty")), 10) as part:
        fill(part)
    assert (tmp_path / "empty" / MARK).is_file()


def test_no_export_begins_without_room_nor_ends_as_one_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("No space left on device")):
        with pytest.raises(FullDiskError, match="its disk is full"), written(tmp_path / "out", 10):
            raise error
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    said = "has room for 1 MB, and the export needs about 2 MB"
    with pytest.raises(FullDiskError, match=said), written(tmp_path / "out", 2 * 10**6):
        pytest.fail("nothing is written")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"), written(tmp_path / "file" / "out", 10):
        pytest.fail("nothing is written")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "merged", "--repo-id", "me/x"], "--repo-id has no meaning with --to merged"),
        (["--to", "onnx", "--private"], "--private has no meaning with --to onnx"),
        (["--to", "hub", "--repo-id", "me/x", "--output", "y"], "--output has no meaning with --to hub"),
        (["--to", "hub"], "--to hub needs --repo-id OWNER/NAME"),
        (["--to", "hub", "--repo-id", "a/b/c"], "--repo-id must be OWNER/NAME"),
        (["--to", "merged"], "adapter nowhere is not there"),
    ],
)
def test_options_that_do_not_fit_end_with_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "nowhere", *words]) == 2
    assert said in capsys.readouterr().err
    assert names(tmp_path) == []
