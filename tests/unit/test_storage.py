"""The door to storage: one way to write a place for every entrance, and the same operations wherever it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from raylora.cluster.data.guess import read_columns
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.cluster.serve.adapter_folders import absolute, check_inside, find, local, names
from raylora.cluster.storage.filesystem import Location, base_name, inside, locate, parent
from raylora.cluster.storage.listing import list_runs
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import ADAPTER, CONFIG, RunFolder, kind_of
from raylora.config import DataSection, Job
from raylora.errors import ConfigError, DataError


class ObjectStore(FSSpecHandler):
    """As pyarrow's S3: a file is written whole or not at all."""

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError("It is not possible to append efficiently to S3 objects")


@pytest.fixture(params=["local", "subtree", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(str(tmp_path / "a"))
    if request.param == "subtree":
        return Location("x://a", SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "a")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return Location("x://a/b", PyFileSystem(ObjectStore(memory)), "/a/b")


WAYS = ["{home}/here", "~/here", "file://{home}/here", "here", "./here/"]


@pytest.fixture(params=WAYS)
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a space in its path, as a user may write it."""
    home = tmp_path / "my home"
    (home / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return request.param.format(home=home)


def test_every_entrance_takes_a_local_path_however_it_is_written(written: str, tmp_path: Path) -> None:
    here = tmp_path / "my home" / "here"
    assert locate(written).address == locate(written).path == absolute(written) == str(here)

    folder = RunFolder(Job().replace({"storage_path": written, "run_name": "first"}))
    folder.write_text(CONFIG, "{}")
    assert (folder.uri, folder.storage_path) == (f"{here}/first", str(here))
    assert [summary.uri for summary in list_runs(written)] == [f"{here}/first"]

    (here / "first" / ADAPTER).mkdir()
    for name in ("raylora.json", "adapter_model.safetensors"):
        (here / "first" / ADAPTER / name).write_text("{}")
    assert names(written) == ["first"]
    assert check_inside(inside(written, "first"), [written]) == f"{here}/first"
    found = find(inside(written, "first"))
    with local(found) as files:
        assert files == here / "first" / ADAPTER

    (here / "rows.csv").write_text("text,label\na,x\n")
    for train in (written, inside(written, "rows.csv"), inside(written, "*.csv")):
        assert [source.path for source in list_sources(DataSection(train=train))] == [f"{here}/rows.csv"]
    assert read_columns(inside(written, "rows.csv")) == {"text": ["a"], "label": ["x"]}


def test_percent_signs_are_read_in_a_uri_only(tmp_path: Path) -> None:
    assert locate(f"file://{tmp_path}/a%20b").path == f"{tmp_path}/a b"
    assert locate(f"{tmp_path}/a%20b").path == f"{tmp_path}/a%20b"
    assert locate(f"file://{tmp_path}/a?b").path == f"{tmp_path}/a?b", "a local path has no options"


def test_a_link_out_of_the_root_is_refused_in_a_file_uri_too(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="must be inside"):
        check_inside(f"file://{tmp_path}/root/link", [f"file://{tmp_path}/root"])


@pytest.mark.parametrize("address", ["gopher://x/a", "s3://bucket/a?colour=red", "file://elsewhere/a"])
def test_each_entrance_refuses_a_place_in_its_own_words(address: str) -> None:
    with pytest.raises(ConfigError, match=r"`storage_path` .* cannot be used"):
        RunFolder(Job().replace({"storage_path": address, "run_name": "x"}))
    with pytest.raises(ConfigError, match=r"^path .* cannot be used"):
        names(address)
    with pytest.raises(DataError, match=r"cannot be reached"):
        list_sources(DataSection(train=address))


def test_what_cannot_be_written_names_the_storage_path(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    folder = RunFolder(Job().replace({"storage_path": str(tmp_path / "taken"), "run_name": "x"}))
    for write in (folder.write_text, folder.append_text):
        with pytest.raises(ConfigError, match=r"`storage_path` .*/taken cannot be written to"):
            write(CONFIG, "")
    with pytest.raises(ConfigError, match=r"`storage_path` .*/taken cannot be read"):
        folder.read_text(CONFIG)


def test_options_stay_last_and_follow_into_the_folder() -> None:
    assert [inside(path, "x") for path in ("a", "/a/", "s3://b/c?r=1")] == ["a/x", "/a/x", "s3://b/c/x?r=1"]
    assert [parent(path) for path in ("a", "/a", "/a/b/", "s3://b/c/d?r=1")] == [".", "/", "/a", "s3://b/c?r=1"]
    run = locate("s3://bucket/runs/?region=eu-west-1").inside("first")
    assert (run.address, run.path) == ("s3://bucket/runs/first?region=eu-west-1", "bucket/runs/first")
    assert (run.name, run.parent) == ("first", locate("s3://bucket/runs?region=eu-west-1"))


ODD_NAMES = ["part 1.csv", "a%20b.csv", "x#1.csv", "ä.csv", "[v2].csv", "a?b.csv", "a+b.csv", "a*b.csv", "100%.csv"]


def test_files_of_any_name_are_found_and_read_on_object_storage(s3_address: Callable[[str], str]) -> None:
    folder = locate(s3_address("bucket/my data"))
    for name in ODD_NAMES:
        folder.inside(name).write_text(f"text,label\n{name},x\n")
    data = DataSection(train=s3_address("bucket/my data"))
    sources = list_sources(data)
    assert sorted(source.name for source in sources) == sorted(ODD_NAMES)
    for source in sources:
        assert [row.text for row in read_rows(source, data)] == [source.name]
        assert list_sources(DataSection(train=source.path)) == [source], "its address stands for it alone"


def test_a_run_is_written_and_read_below_a_folder_with_a_space(s3_address: Callable[[str], str]) -> None:
    for place in map(s3_address, ("bucket/my runs", "bucket/my%20runs")):
        folder = RunFolder(Job().replace({"storage_path": place, "run_name": "first"}))
        with hold(folder, print):
            folder.write_text(CONFIG, "{}")
        assert locate(folder.uri).inside(CONFIG).read_text() == folder.read_text(CONFIG) == "{}"
        assert [(run.name, run.uri) for run in list_runs(place)] == [("first", folder.uri)]
        assert folder.uri == s3_address("bucket/my%20runs/first")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("gs://bucket/my runs/ä", "bucket/my runs/ä"),
        ("gs://bucket/my%20runs/%C3%A4", "bucket/my runs/ä"),
        ("gs://bucket/100% [v2]#1", "bucket/100% [v2]#1"),
        ("gs://bucket/a%2520b", "bucket/a%20b"),
        ("gs://bucket/a%3Fb", "bucket/a?b"),
        ("gs://bucket/a+b=c:d@e", "bucket/a+b=c:d@e"),
    ],
)
def test_a_uri_may_be_typed_with_its_odd_characters_or_quoted(written: str, path: str) -> None:
    place = locate(f"{written}?retry_limit_seconds=1")
    assert place.path == path
    assert locate(place.address) == place
    for name in ODD_NAMES:
        deep = locate(inside(written, name)).inside(name)
        assert (deep.path, deep.name) == (f"{path}/{name}/{name}", name)
        assert (locate(deep.address), base_name(deep.address)) == (deep, name)
        assert locate(parent(deep.address)).path == f"{path}/{name}"


def test_a_folder_is_itself_however_its_address_is_quoted(tmp_path: Path) -> None:
    found = check_inside("gs://b/my runs/a", ["gs://b/my%20runs"])
    assert found == check_inside("gs://b/my%20runs/a", ["gs://b/my runs/"])
    with pytest.raises(ConfigError, match="must be inside"):
        check_inside("gs://b/my%2520runs/a", ["gs://b/my runs"])
    for name in ("a%20b", "c d"):
        (tmp_path / "root" / name).mkdir(parents=True)
        assert absolute(inside(f"file://{tmp_path}/root", name)) == str(tmp_path / "root" / name)


def test_a_file_is_written_whole_read_listed_and_deleted(place: Location) -> None:
    file = place.inside("deep").inside("notes.txt")
    assert not file.exists() and place.files() == {} and place.stat() is None
    file.write_text("old")
    file.write_text("größer\n")
    assert file.read_text() == "größer\n"
    with file.open() as stream:
        assert stream.read(2) == b"gr" and stream.seek(0) == 0
    assert {name: stat.is_folder for name, stat in place.files().items()} == {"deep": True}
    assert {name: stat.size for name, stat in place.inside("deep").files().items()} == {"notes.txt": 9}
    file.delete()
    file.delete()
    assert not file.exists()


def test_of_a_long_text_the_last_whole_lines_are_read(place: Location) -> None:
    place.inside("a").write_text("one\ntwo\nthree\n")
    assert [place.inside("a").read_text(most) for most in (14, 13, 10, 3)] == [
        "one\ntwo\nthree\n",
        "two\nthree\n",
        "three\n",
        "",
    ]


def test_a_text_is_appended_where_storage_can(place: Location) -> None:
    place.inside("a").write_text("1\n")
    if "://a/b" in place.address:
        with pytest.raises(NotImplementedError):
            place.inside("a").append("2\n")
        assert place.inside("a").read_text() == "1\n"
    else:
        place.inside("a").append("2\n")
        place.inside("new").append("3\n")
        assert (place.inside("a").read_text(), place.inside("new").read_text()) == ("1\n2\n", "3\n")


def test_a_folder_copied_in_takes_the_place_of_the_one_before(place: Location, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "sub").mkdir(parents=True)
    copy.mkdir()
    (source / "sub" / "a").write_text("1")
    place.inside("folder").inside("stale").write_text("")
    place.inside("folder").copy_from(source)
    assert list(place.files()) == ["folder"] and list(place.inside("folder").files()) == ["sub"]
    place.inside("folder").copy_to(copy)
    assert (copy / "sub" / "a").read_text() == "1"


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([], None),
        (["notes.txt", "metrics.json"], None),
        (["config.yaml"], "unknown"),
        (["config.yaml", "bad_rows.jsonl"], "unknown"),
        (["config.yaml", "history.jsonl"], "run"),
        (["config.yaml", "checkpoint_001"], "run"),
        (["config.yaml", "adapter", "metrics.json"], "run"),
        (["config.yaml", "trials"], "sweep"),
        (["config.yaml", "trials.csv", "adapter", "metrics.json"], "sweep"),
        (["adapters.json"], "endpoint"),
    ],
)
def test_a_folder_is_known_by_the_names_in_it(names: list[str], kind: str | None) -> None:
    assert kind_of(names) == kind


def test_only_the_door_opens_storage() -> None:
    root = Path(__file__).resolve().parents[2] / "raylora"
    users = [path.relative_to(root).as_posix() for path in root.rglob("*.py") if "pyarrow.fs" in path.read_text()]
    assert users == ["cluster/storage/filesystem.py"]
