"""The pages: a template of Jinja2's, which PyTorch brings, over the numbers of `run`, `sweep` and `evaluation`."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from raylora.report import evaluation, run, sweep
from raylora.version import __version__


def run_page(found: run.RunFiles) -> str:
    """Self-contained HTML of a run; of one that is not finished what there is."""
    return _template().render(
        kind="Run",
        title=found.name,
        verdict=run.verdict(found.metrics),
        splits=[split for split in ("validation", "test") if (found.metrics or {}).get(split)],
        scores=run.score_rows(found.metrics),
        curves=run.curves(found),
        labels=run.label_rows(found.metrics),
        label_splits=list((found.metrics or {}).get("data", {}).get("rows", {})),
        data=found.data_report,
        learned=_learned(found.metrics),
        facts=run.facts(found),
        config=found.config_text,
        evaluations=[_evaluation(found.evaluation)] if found.evaluation else [],
        version=__version__,
    )


def sweep_page(found: sweep.SweepFiles) -> str:
    """Self-contained HTML of a sweep: its trials, and the run of the best of them."""
    return _template().render(
        kind="Sweep",
        title=found.name,
        verdict=sweep.verdict(found),
        trials=sweep.leaderboard(found),
        curves=sweep.curves(found),
        data=found.data_report,
        facts=sweep.facts(found),
        config=found.config_text,
        evaluations=[],
        version=__version__,
    )


def evaluation_page(found: Mapping[str, Any]) -> str:
    """Self-contained HTML of an evaluation.

    Args:
        found: as evaluation.json has it.
    """
    adapters: Sequence[Mapping[str, Any]] = found["adapters"]
    return _template().render(
        kind="Evaluation",
        title=", ".join(each["name"] for each in adapters),
        verdict=" ".join(each["words"] for each in found.get("comparisons") or ()),
        evaluations=[_evaluation(each) for each in adapters],
        comparisons=found.get("comparisons") or (),
        facts={"rows": f"{adapters[0]['rows']:,}", "task": adapters[0]["problem_type"]},
        version=__version__,
    )


def _evaluation(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **found,
        "group_rows": evaluation.groups(found),
        "drawn_confusion": evaluation.confusion(found),
        "calibration_chart": evaluation.calibration_chart(found),
        "coverage_chart": evaluation.coverage_chart(found),
        "coverage_steps": evaluation.coverage_steps(found),
        "sorted_slices": evaluation.slices(found),
    }


def _learned(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    names = ("calibration", "thresholds", "min_scores")
    return {name: metrics[name] for name in names if metrics.get(name)} if metrics else {}


@cache
def _template() -> Any:
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawn"] = Markup  # of svg.chart, which escapes its words
    environment.filters["figure"] = _figure
    return environment.from_string((files("raylora.report") / "page.html").read_text(encoding="utf-8"))


def _figure(value: Any) -> str:
    """A number as a table shows it."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
