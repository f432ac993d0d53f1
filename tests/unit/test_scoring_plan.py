"""A folder of a scored table: whose it is, what it was begun with, what of it is there, and how far it is."""

import errno
import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from raylora.cluster.data.rows import Part, Source
from raylora.cluster.predict.output import Output
from raylora.cluster.predict.plan import Identity, Input, PartPlan, Plan, changes, check_same, load, names_of_parts
from raylora.cluster.predict.pool import pool_of
from raylora.cluster.predict.progress import Progress, Teller
from raylora.cluster.predict.survey import Piece, check_rows, part_bytes_for
from raylora.cluster.session import Cluster
from raylora.config import Job
from raylora.errors import ClusterError, ConfigError, DataError, FullDiskError

BEGUN = Identity((Input("a.csv", "csv", "1" * 64), Input("b.csv", "csv", "2" * 64)), {"": "3" * 64}, {"k": 1, "l": "x"})


def test_a_plan_reads_back_as_it_was_written() -> None:
    schema = pa.schema([("id", pa.int16()), ("when", pa.timestamp("ns", "UTC")), ("tags", pa.list_(pa.string()))])
    parts = (
        PartPlan("part-00000-a-0000.csv", 0, 0, 812, 0, 40, 1),
        PartPlan("part-00001-b-0000.csv", 1, 0, None, 0, 2, 0),
    )
    plan = Plan(BEGUN, schema, parts)
    assert load(plan.dump(), "predict.json") == plan
    assert (plan.rows, plan.bad) == (42, 1)
    with pytest.raises(ConfigError, match=r"predict\.json is broken"):
        load(plan.dump()[:-20], "predict.json")


def test_names_of_parts_tell_file_and_place_and_sort_as_the_data_does() -> None:
    files = ["/d/b.csv.gz", "/d/b.csv.gz", "s3://x/a%20b!.parquet?region=eu", "hf://org/name", "/d/日本.jsonl"]
    names = names_of_parts(files, "jsonl")
    assert names == [
        "part-00000-b-0000.jsonl",
        "part-00001-b-0001.jsonl",
        "part-00002-a-20b-0000.jsonl",
        "part-00003-name-0000.jsonl",
        "part-00004-0000.jsonl",
    ]
    many = names_of_parts(["/d/x.csv"] * 100_001, "csv")
    assert many == sorted(many)
    assert len(set(many)) == 100_001


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (replace(BEGUN, inputs=BEGUN.inputs[:1]), ["file b.csv is gone"]),
        (replace(BEGUN, inputs=(*BEGUN.inputs, Input("c.csv", "csv", "4"))), ["file c.csv is new"]),
        (replace(BEGUN, inputs=(BEGUN.inputs[0], Input("b.csv", "csv", "4"))), ["file b.csv has another content"]),
        (
            replace(BEGUN, inputs=BEGUN.inputs[::-1]),
            ["the files come in another order, or other ones have their names"],
        ),
        (replace(BEGUN, adapters={"": "5" * 64}), [f"adapter : {'3' * 12}… -> {'5' * 12}…"]),
        (replace(BEGUN, settings={"k": 2, "l": "x"}), ["k: 1 -> 2"]),
        (BEGUN, []),
    ],
)
def test_what_changed_since_a_table_was_begun_is_said(now: Identity, said: list[str]) -> None:
    assert changes(BEGUN, now) == said
    if said:
        with pytest.raises(ConfigError, match=r"`predict\.output` /out was begun with something else"):
            check_same(BEGUN, now, "/out")
    else:
        check_same(BEGUN, now, "/out")


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds something else \(notes.txt\)"):
        Output(str(tmp_path)).check_ours()
    with pytest.raises(ConfigError, match="is a file"):
        Output(str(tmp_path / "notes.txt")).check_ours()
    Output(str(tmp_path / "new")).check_ours()
    (tmp_path / "empty").mkdir()
    Output(str(tmp_path / "empty")).check_ours()


def test_a_part_is_there_when_its_mark_is_and_leftovers_go_at_the_end(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    output.write_text("predict.json", "{}")
    output.put("part-00000-a-0000.csv", io.BytesIO(b"text\n"), {"rows": 0})
    (tmp_path / "out" / "part-00001-a-0001.csv").write_text("written, and then its process was killed")
    (tmp_path / "out" / ".part-00002-a-0002.csv.0f").write_text("half")
    output.check_ours()
    assert output.done() == {"part-00000-a-0000.csv"}
    assert output.marks(["part-00000-a-0000.csv"]) == [{"rows": 0}]
    assert output.summary() is None
    output.finish({"rows": 0})
    assert output.summary() == {"rows": 0}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"_SUCCESS", "_raylora", "part-00000-a-0000.csv", "part-00001-a-0001.csv"}
    (tmp_path / "out" / "part-00000-a-0000.csv").unlink()
    assert output.done() == set()


def test_a_part_on_s3_is_there_when_its_mark_is(s3_address) -> None:
    output = Output(s3_address("bucket/out"))
    output.check_ours()
    output.write_text("predict.json", "{}")
    output.put("part-00000-a-0000.csv", io.BytesIO(b"text\n"), {"rows": 0})
    output.check_ours()
    assert output.done() == {"part-00000-a-0000.csv"}
    assert output.root.inside("part-00000-a-0000.csv").read_text() == "text\n"


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    kept = pytest.raises(FullDiskError, match=r"`predict.output` .*out is full: .*parts that are written are kept")
    with kept, output.named("written to"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_rows_that_cannot_be_scored_are_an_error_unless_they_are_skipped() -> None:
    pieces = [Piece(0, Part(), 5, [(2, "'text' is blank"), (4, "'text' is null")])]
    bad = [{"place": "/a.csv, line 2", "reason": "'text' is blank"}, {"place": "/a.csv, line 4", "reason": "null"}]
    check_rows(pieces, bad, skip=True)
    check_rows(pieces, [], skip=False)
    with pytest.raises(DataError, match=r"2 of 5 rows cannot be scored:\n  /a.csv, line 2: 'text' is blank\n"):
        check_rows(pieces, bad, skip=False)
    with pytest.raises(DataError, match="none of the 2 rows can be scored"):
        check_rows([Piece(0, Part(), 2)], bad, skip=True)
    with pytest.raises(DataError, match="holds no rows"):
        check_rows([], [], skip=True)


def test_parts_are_a_thousandth_of_the_data_within_bounds() -> None:
    def of(size: int) -> int:
        return part_bytes_for([Source("a.csv", "test", "csv", size)])

    assert [of(10), of(10**9), of(10**12)] == [2**18, 10**6, 2**24]


def test_a_pool_has_as_many_processes_as_fit_or_as_are_asked_for() -> None:
    cluster = Cluster(False, "x", ({"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}))

    def of(**keys: object) -> tuple[int, int, bool]:
        found = pool_of(Job().replace({key.replace("__", "."): value for key, value in keys.items()}), cluster)
        return found.fewest, found.most, found.use_gpu

    assert of() == (1, 1, True)
    assert of(ray__use_gpu=False) == (1, 6, False)
    assert of(ray__use_gpu=False, ray__resources_per_worker={"CPU": 2}) == (1, 3, False)
    assert of(ray__use_gpu=False, predict__concurrency=5, ray__num_workers=64) == (5, 5, False)
    assert of(ray__use_gpu=False, predict__concurrency=[2, 100]) == (2, 100, False)
    with pytest.raises(ClusterError, match=r"`predict\.concurrency` 7 with \{CPU: 1\} each .* needs 7 CPU"):
        of(ray__use_gpu=False, predict__concurrency=7)


def test_progress_says_share_rate_and_time_left() -> None:
    assert str(Progress(2_500, 10_000, 500, 10.0)) == "2,500 of 10,000 rows (25 %), 200 rows/s, 38 s left"
    assert str(Progress(500, 10_000, 500, 10.0)) == "500 of 10,000 rows (5 %)"
    assert str(Progress(10, 10, 0, 2.0)) == "10 of 10 rows (100 %), 5 rows/s"


def test_a_log_gets_a_line_a_minute_and_a_terminal_every_look() -> None:
    now, said, drawn = [0.0], list[str](), list[str]()

    class Terminal:
        def __call__(self, line: str) -> None:
            pytest.fail(line)

        def live(self, line: str) -> None:
            drawn.append(line)

    log = Teller(100, 0, said.append, clock=lambda: now[0])
    terminal = Teller(100, 0, Terminal(), clock=lambda: now[0])
    for second in range(0, 150, 10):
        now[0] = float(second)
        for teller in (log, terminal):
            teller.add(1)
            teller.tick()
    assert [line.split(" rows")[0] for line in said] == ["progress   7 of 100", "progress   13 of 100"]
    assert len(drawn) == 15
    assert json.dumps(drawn[-1]).startswith('"progress   15 of 100 rows (15 %)')
