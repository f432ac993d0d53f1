"""report.html out of the files of a folder: what it says, and that it is one small page that asks nobody."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from report_files import EVIL, evaluation, metrics, run_folder, sweep_folder

from raylora.cli.main import main
from raylora.cluster.report import page_of
from raylora.cluster.storage.filesystem import locate
from raylora.report import evaluation_page
from raylora.report.run import verdict
from raylora.report.svg import Line, chart, parallel, thinned


def page(folder: Path) -> str:
    return page_of(locate(str(folder)))


def test_a_run_has_its_verdict_scores_curves_data_and_config(tmp_path: Path) -> None:
    found = page(run_folder(tmp_path / "mine"))
    assert "The adapter is better than a linear probe of the frozen base: +0.0500 accuracy on validation" in found
    for words in ("Scores", "0.7000", "0.6500", "Loss by epoch", "Learning rate", "D002", "Rows by label", "1,000 of"):
        assert words in found
    assert "metric_for_best_model: accuracy" in found
    assert "right" in found and "0.9 of the time" in found


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.09, "is better than"), (-0.09, -0.01, "is worse than"), (-0.01, 0.01, "is not settled by so few rows")],
)
def test_the_verdict_follows_the_interval(low: float, high: float, said: str) -> None:
    assert said in verdict(metrics(low, high))


def test_what_has_not_finished_and_what_has_no_floor_is_told(tmp_path: Path) -> None:
    found = page(run_folder(tmp_path / "mine", finished=False))
    assert "The run has not finished" in found
    assert "Loss by epoch" in found, "what there is"
    assert "No floor was reckoned" in verdict({**metrics(), "floor": None})


def test_words_of_the_data_are_never_markup(tmp_path: Path) -> None:
    found = page(run_folder(tmp_path / "mine", evaluated=True))
    assert EVIL not in found
    assert "&lt;script&gt;alert(" in found
    assert found.count("<script>") == 1, "the page's own"


def test_a_page_asks_nobody_and_is_small(tmp_path: Path) -> None:
    for made in (page(run_folder(tmp_path / "mine", evaluated=True)), page(sweep_folder(tmp_path / "sweep"))):
        assert len(made) < 200_000, "of 3,000 steps and of 150 trials"
        assert not re.search(r"(src|href)=|url\(|@import|https?://", made)


def test_a_sweep_has_its_winner_leaderboard_and_curves(tmp_path: Path) -> None:
    found = page(sweep_folder(tmp_path / "sweep"))
    assert "The best of 150 trials reaches 0.9000 accuracy on validation, with r = 1, learning_rate = 0.1" in found
    assert "1 failed." in found
    assert "And 125 more" in found
    assert found.count("<svg") == 3
    assert "best_epoch" in found and "the loss is nan" not in found, "beyond those that are shown"


def test_an_evaluation_has_its_matrix_slices_and_slider(tmp_path: Path) -> None:
    found = evaluation_page({"adapters": [evaluation()], "comparisons": [{"words": "A is better than B."}]})
    assert "A is better than B." in found
    assert 'class="worse">worse' in found and "too few rows to tell" in found
    assert "good said to be" in found
    assert "58" in found and "share that flips" in found
    (steps,) = re.findall(r'data-steps="([^"]*)"', found)
    assert len(json.loads(steps.replace("&#34;", '"'))) == 4
    assert "60 of 60 rows are answered, 70.0 % of them rightly" in found


def test_the_command_writes_it_and_refuses_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "mine")
    assert main(["report", str(folder)]) == 0
    assert f"report     {folder}/report.html" in capsys.readouterr().out
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "other").mkdir()
    assert main(["report", str(tmp_path / "other")]) == 2
    assert "is not the folder of a run or a sweep" in capsys.readouterr().err
    (folder / "metrics.json").write_text("{")
    assert main(["report", str(folder)]) == 2
    assert "metrics.json is broken" in capsys.readouterr().err


# ---- drawing


def test_a_chart_is_well_formed_and_within_its_frame() -> None:
    points = [(float(i), math.sin(i) * 1e6) for i in range(50)] + [(50.0, math.nan), (51.0, math.inf)]
    drawn = ElementTree.fromstring(chart('a "title" <&>', [Line("x", points)], "steps", "<y>"))
    (path,) = [each for each in drawn.iter() if each.get("class") == "line a"]
    places = [tuple(map(float, pair.split())) for pair in str(path.get("d"))[1:].split("L")]
    assert len(places) == 50
    assert all(62 <= x <= 408 and 10 <= y <= 196 for x, y in places)
    assert "aria-label" in drawn.attrib


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)]])
def test_nothing_is_drawn_of_nothing(points: list[tuple[float, float]]) -> None:
    assert chart("t", [Line("x", points)], "x", "y") == ""
    assert parallel("t", ["one"], [[0.5]]) == ""


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-9, 1e12])
def test_one_point_and_level_lines_have_axes(value: float) -> None:
    for points in ([(1.0, value)], [(1.0, value), (2.0, value)]):
        assert ElementTree.fromstring(chart("t", [Line("x", points)], "x", "y")) is not None


def test_many_points_are_thinned_to_their_means() -> None:
    kept = thinned([(float(i), float(i)) for i in range(100_000)], most=100)
    assert len(kept) <= 101
    assert kept[-1] == (99_999.0, 99_999.0)
    assert all(x == y for x, y in kept)
