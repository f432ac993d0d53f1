"""What a page shows of an evaluation, as evaluation.json has it."""

from collections.abc import Mapping, Sequence
from typing import Any

from raylora.report.svg import Line, chart

MOST_LABELS = 40  # of a confusion matrix that is drawn whole
Found = Mapping[str, Any]


def confusion(found: Found) -> dict[str, Any] | None:
    """Rows by label with each count's share of its row; of very many labels only the pairs that are confused most."""
    matrix = found.get("confusion")
    if not matrix:
        return None
    labels, counts = matrix["labels"], matrix["counts"]
    pairs = [
        {"truth": labels[i], "said": labels[j], "rows": count, "share": count / max(sum(row), 1)}
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -pair["rows"])
    whole = None
    if len(labels) <= MOST_LABELS:
        whole = [
            {"label": labels[i], "cells": [{"rows": count, "share": count / max(sum(row), 1)} for count in row]}
            for i, row in enumerate(counts)
        ]
    return {"labels": labels, "rows": whole, "pairs": pairs[:12]}


def groups(found: Found) -> list[dict[str, Any]]:
    """A row a label, or a quarter of numbers."""
    return [{"": each["name"], "rows": each["rows"], **each["values"]} for each in found.get("groups") or ()]


def calibration_chart(found: Found) -> str:
    calibration = found.get("calibration")
    if not calibration:
        return ""
    points = [(each["claimed"], each["right"]) for each in calibration["bins"] if each["rows"]]
    lines = [Line("as claimed", [(0.0, 0.0), (1.0, 1.0)], "d"), Line("found", points, "b", dots=True)]
    return chart("Share of right answers by the score they claim", lines, "score claimed", "share right")


def coverage_chart(found: Found) -> str:
    points = [(100 * each["coverage"], each["accuracy"]) for each in found.get("coverage") or ()]
    title = "Share of right answers by the share of texts that are answered, the surest first"
    return chart(title, [Line("accuracy", points, "b")], "texts answered, %", "share right")


def coverage_steps(found: Found) -> list[dict[str, Any]]:
    """For the slider: what is answered, what is left to people, and how much of the first is right."""
    whole = found.get("rows", 0)
    return [
        {
            "coverage": each["coverage"],
            "score": each["score"],
            "right": each["accuracy"],
            "answered": each["rows"],
            "left": whole - each["rows"],
        }
        for each in sorted(found.get("coverage") or (), key=lambda each: each["coverage"])
    ]


def slices(found: Found) -> Sequence[Found]:
    """Those that are worse than the rest first, then the lowest."""
    rows: Sequence[Found] = found.get("slices") or ()
    return sorted(rows, key=lambda each: (not each["worse"], each["merit"]))
