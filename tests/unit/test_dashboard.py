"""The Grafana dashboard reads what the code exports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.events.metrics import METRICS
from raylora.cluster.serve.meters import Meters

FILE = Path(__file__).resolve().parents[2] / "jobs" / "grafana" / "raylora.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def exported() -> set[str]:
    """Every name as Prometheus has it, from the registries that the jobs and the endpoint show."""
    endings = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
        "summary": ("_sum", "_count"),
    }
    jobs = {f"ray_{name}{end}" for name, (kind, *_) in METRICS.items() for end in endings[kind]}
    served = Meters().registry.collect()
    return jobs | {f"{family.name}{end}" for family in served for end in endings[family.type]}


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_every_metric_of_the_dashboard_is_exported(dashboard: dict[str, Any]) -> None:
    named = {name for query in queries(dashboard) for name in re.findall(r"\b(?:ray_)?raylora_\w+", query)}
    assert named <= exported(), named - exported()
    assert {f"ray_{n}" for n, (kind, *_) in METRICS.items() if kind == "gauge"} <= named, "all of a job's are shown"


def test_each_panel_has_an_id_of_its_own_and_the_chosen_datasource(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == ["Train", "Tune", "Serve"]
    shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    sources = [each["datasource"] for panel in shown for each in (panel, *panel["targets"])]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    variables = {each["name"]: each["type"] for each in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "run": "query"}


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
