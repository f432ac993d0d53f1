"""The parts of `bench scale`, small: what is counted is what there is."""

from pathlib import Path

from raylora.bench.scale import bench, measure_root, measure_table


def test_a_change_of_a_large_table_costs_what_it_is_not_what_the_table_is(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    small, large = measure_table(1500, tmp_path / "small", 10), measure_table(6000, tmp_path / "large", 10)
    assert large.whole_bytes > 3.9 * small.whole_bytes
    assert large.change_bytes < 1.1 * small.change_bytes < 1000
    assert large.written_bytes == small.written_bytes < 1000


def test_all_parts_are_said(tmp_path: Path) -> None:
    lines: list[str] = []
    bench(50, 2, lines.append)
    assert [line.split()[0] for line in lines if line[0] != " "] == [
        "cpu",
        "table",
        "root",
        "meters",
        "broker",
        "broker",
    ]
    assert measure_root(5, tmp_path) >= 0
