"""Files on the web: fetched once per node, told by their size, and any failure is one clear error."""

import gzip
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafiles import ROWS, pairs, read_path

from raylora.cluster.data import web
from raylora.cluster.data.guess import write_config
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import DataSection
from raylora.config import file as jobfile
from raylora.errors import DataError

CSV = b"text,label\n" + b"some words,x\nothers,y\n" * 50


@dataclass
class Site:
    """A server of files, which counts what it is asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    cut_to: int | None = None
    with_etag: bool = True


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web.tempfile, "tempdir", str(tmp_path))
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = site.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            tag = f'"{hash(content)}"'
            if site.with_etag and self.headers.get("If-None-Match") == tag:
                self.send_response(304)
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if site.with_etag:
                self.send_header("ETag", tag)
            self.end_headers()
            site.sent.append(self.path)
            self.wfile.write(content[: site.cut_to])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}), stream)
    return stream.getvalue()


def test_files_on_the_web_read_like_others(site: Site) -> None:
    site.files = {
        "/a%20b.csv": CSV,
        "/c.jsonl.gz": gzip.compress(b'{"text":"b","label":"z"}'),
        "/d.parquet?v=1": parquet(),
    }
    assert len(pairs(read_path(f"{site.address}/a b.csv"))) == 100
    assert pairs(read_path([f"{site.address}/c.jsonl.gz"])) == [("b", "z")]
    assert pairs(read_path(f"{site.address}/d.parquet?v=1")) == ROWS


def test_a_file_is_fetched_once_and_again_when_it_has_changed(site: Site) -> None:
    site.files["/a.csv"] = CSV
    where = f"{site.address}/a.csv"
    said: list[str] = []
    data = DataSection(train=where, validation=where)
    sources = list_sources(data, said.append)
    assert said == [f"fetching   {where} (1.1 kB)"]
    assert [len(list(read_rows(source, data))) for source in sources] == [100, 100]
    assert site.sent == ["/a.csv"]
    site.files["/a.csv"] = CSV * 2
    list_sources(data, said.append)
    assert len(said) == 2
    assert site.sent == ["/a.csv"] * 2


def test_without_a_mark_a_file_is_fetched_by_each_job_and_not_by_its_tasks(site: Site) -> None:
    site.files["/a.csv"], site.with_etag = CSV, False
    data = DataSection(train=f"{site.address}/a.csv")
    for job in (1, 2):
        (source,) = list_sources(data)
        assert len(list(read_rows(source, data))) == 100
        assert len(site.sent) == job


def test_many_readers_of_a_node_fetch_a_file_once(site: Site) -> None:
    site.files["/a.csv"] = CSV
    copies: list[str] = []
    threads = [
        threading.Thread(target=lambda: copies.append(web.local_copy(f"{site.address}/a.csv"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(copies)) == 1
    assert site.sent == ["/a.csv"]


def test_a_file_that_changes_under_a_job_is_an_error(site: Site) -> None:
    """A node that fetches it later would read other rows than the driver cut."""
    site.files["/a.csv"] = CSV
    data = DataSection(train=f"{site.address}/a.csv")
    (source,) = list_sources(data)
    site.files["/a.csv"] = CSV[:-10]
    web.fetch(source.path, say=lambda line: None)
    with pytest.raises(DataError, match=r"a\.csv changed while it was read: 1111 bytes, then 1101\. Start anew\."):
        list(read_rows(source, data))


def test_what_cannot_be_fetched_is_one_clear_error(site: Site) -> None:
    with pytest.raises(DataError, match=r"/gone\.csv cannot be fetched: HTTP 404, Not Found\. Is the address right\?"):
        read_path(f"{site.address}/gone.csv")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/a\.csv cannot be fetched: .*refused"):
        read_path("http://127.0.0.1:1/a.csv")
    with pytest.raises(DataError, match=r"http://\[/a\.csv cannot be fetched"):
        read_path("http://[/a.csv")
    site.files["/a.csv"], site.cut_to = CSV, 300
    with pytest.raises(
        DataError, match=r"/a\.csv cannot be fetched: .*300 (of 1111 bytes|bytes read, 811 more expected)"
    ):
        read_path(f"{site.address}/a.csv")
    site.cut_to = None
    assert len(read_path(f"{site.address}/a.csv")) == 100


def test_a_page_is_no_data_whatever_its_address_says(site: Site) -> None:
    site.files["/a.csv"] = b"\n<!DOCTYPE html><html><body>log in, please</body></html>"
    with pytest.raises(
        DataError, match=r"/a\.csv is a web page \(HTML\), not data\. Name the address of the file itself"
    ):
        read_path(f"{site.address}/a.csv")


def test_an_address_that_tells_no_format_asks_for_it(site: Site) -> None:
    site.files["/get?id=3"] = CSV
    with pytest.raises(DataError, match=r"the ending '' tells no format\. Set `data\.format`"):
        read_path(f"{site.address}/get?id=3")
    assert len(read_path(f"{site.address}/get?id=3", format="csv")) == 100


def test_init_writes_a_config_for_a_file_on_the_web(site: Site, tmp_path: Path) -> None:
    site.files["/mine.csv.gz"] = gzip.compress(CSV.replace(b"text", b"said"))
    path = write_config(f"{site.address}/mine.csv.gz", str(tmp_path / "job.yaml"))
    data = jobfile.read([str(path)], {}).data
    assert (data.train, data.text_column) == (f"{site.address}/mine.csv.gz", "said")


def test_a_copy_that_no_job_has_read_for_a_month_is_removed_by_the_next(site: Site, tmp_path: Path) -> None:
    site.files |= {"/old.csv": CSV, "/read.csv": CSV, "/new.csv": CSV}
    for name in ("old", "read"):
        read_path(f"{site.address}/{name}.csv")
    folder = tmp_path / f"raylora-{os.getuid()}" / "web"
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    again = web.local_copy(f"{site.address}/read.csv")
    read_path(f"{site.address}/new.csv")
    held = {path for path in map(str, folder.iterdir()) if not path.endswith((".lock", ".json"))}
    assert held == {again, web.local_copy(f"{site.address}/new.csv")}
    assert len(list(folder.glob("*.json"))) == 2
    assert site.sent == ["/old.csv", "/read.csv", "/new.csv"]
    read_path(f"{site.address}/old.csv")
    assert site.sent[3:] == ["/old.csv"]


def test_a_folder_of_copies_that_is_a_link_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user could have put it there, to give this one other rows."""
    site.files["/a.csv"] = CSV
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"raylora-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is not this user's folder"):
        read_path(f"{site.address}/a.csv")
