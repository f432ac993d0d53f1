"""Folders of a run, a sweep and an evaluation with awkward names, for the pages."""

import json
from pathlib import Path
from typing import Any

EVIL = '<script>alert("x")</script> & | `b`'
LABELS = ["good", EVIL, "ποιότητα"]


def scores(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "f1": 0.5, "f1_macro": 0.5, "loss": 0.7, "rows": 60}


def metrics(low: float = 0.01, high: float = 0.09) -> dict[str, Any]:
    baselines = {"tfidf": {"accuracy": 0.61}, "probe": {"accuracy": 0.65}, "rows": 60, "highest": "probe"}
    difference = {"against": "probe", "value": (low + high) / 2, "low": low, "high": high}
    return {
        "run_name": "mine",
        "base_model": "some/base",
        "labels": LABELS,
        "data": {
            "files": ["a.csv"],
            "rows": {"train": dict(zip(LABELS, (70, 20, 10), strict=True)), "validation": dict.fromkeys(LABELS, 20)},
            "fingerprint": "f" * 64,
        },
        "best_epoch": 2,
        "dtype": "float32",
        "validation": scores(0.7),
        "test": None,
        "floor": {"validation": {**baselines, "difference": difference}, "test": None, "metric": "accuracy"},
        "calibration": {"temperature": 1.5, "ece_before": 0.2, "ece_after": 0.1},
        "thresholds": None,
        "min_scores": {"0.9": {"score": 0.8, "coverage": 0.4, "rows": 24, "error": 0.06}},
        "trainable_parameters": 1000,
        "parameters": 100_000,
        "train_s": 12.0,
        "rows_per_s": 25.0,
    }


def history(steps: int = 3000) -> list[dict[str, Any]]:
    losses = [
        {
            "kind": "loss",
            "step": i,
            "epoch": 3 * i / steps,
            "loss": 1 / (1 + i / 500),
            "learning_rate": 1e-3 * (1 - i / steps),
        }
        for i in range(1, steps + 1)
    ]
    evaluations = [
        {
            "kind": "evaluation",
            "step": steps * e // 3,
            "epoch": float(e),
            "eval_accuracy": 0.5 + 0.1 * e,
            "eval_loss": 1 / e,
        }
        for e in (1, 2, 3)
    ]
    return [*losses, *evaluations]


def data_report() -> dict[str, Any]:
    split = {"rows": 100, "bad_rows": 2, "tokens": {"p50": 12, "p95": 40, "max": 300, "cut": 3}, "duplicates": 1}
    return {"splits": {"train": split}, "warnings": [{"code": "D002", "text": f"1 row repeats {EVIL}."}]}


def evaluation() -> dict[str, Any]:
    estimate = {"value": 0.7, "low": 0.6, "high": 0.8}
    coverage = [
        {"coverage": share, "rows": int(60 * share), "score": 1 - share / 2, "accuracy": 1 - 0.3 * share}
        for share in (1.0, 0.75, 0.5, 0.25)
    ]
    piece = {"by": "length", "value": EVIL, "rows": 20, "metric": estimate, "merit": 0.6, "rest": 0.8}
    return {
        "name": "mine",
        "problem_type": "single_label_classification",
        "labels": LABELS,
        "data": {"split": "validation"},
        "rows": 60,
        "metric": "accuracy",
        "metrics": {"accuracy": estimate, "roc_auc": {"value": None, "low": None, "high": None}},
        "row_metric": "accuracy",
        "movement": "share that flips",
        "groups": [{"name": label, "rows": 20, "values": {"precision": 0.5, "recall": None}} for label in LABELS],
        "confusion": {"labels": LABELS, "counts": [[15, 3, 2], [0, 0, 20], [1, 1, 18]]},
        "calibration": {
            "ece": 0.05,
            "bins": [
                {"low": 0.5, "high": 0.6, "rows": 10, "claimed": 0.55, "right": 0.5},
                {"low": 0.9, "high": 1.0, "rows": 50, "claimed": 0.95, "right": 0.9},
                {"low": 0.6, "high": 0.9, "rows": 0, "claimed": None, "right": None},
            ],
        },
        "coverage": coverage,
        "slices": [
            {**piece, "p": 0.001, "p_adjusted": 0.004, "worse": True},
            {**piece, "value": "short", "p": None, "p_adjusted": None, "worse": False},
        ],
        "slice_test": "Permutation test, Holm's correction.",
        "robustness": [{"kind": "typos", "changed": 58, "moved": estimate, "metrics": {"accuracy": 0.6}}],
        "notes": ["2 rows carry a label that the adapter does not know."],
    }


def run_folder(folder: Path, *, finished: bool = True, evaluated: bool = False, **difference: float) -> Path:
    folder.mkdir(parents=True)
    config = "train:\n  metric_for_best_model: accuracy\ndata:\n  problem_type: single_label_classification\n"
    (folder / "config.yaml").write_text(config)
    lines = [json.dumps(event) for event in history()]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n" + '{"kind": "lo')  # as a kill leaves it
    (folder / "data_report.json").write_text(json.dumps(data_report()))
    if finished:
        (folder / "metrics.json").write_text(json.dumps(metrics(**difference)))
    if evaluated:
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "evaluation.json").write_text(
            json.dumps({"adapters": [evaluation()], "comparisons": []})
        )
    return folder


def sweep_folder(folder: Path, trials: int = 150) -> Path:
    folder.mkdir(parents=True)
    (folder / "trials").mkdir()
    (folder / "config.yaml").write_text("tune:\n  metric: accuracy\n  mode: max\n  scheduler: asha\n")
    lines = ["rank,trial,status,score,accuracy,best_epoch,epochs,train_s,lora.r,train.learning_rate,lora.bias,reason"]
    events: list[dict[str, Any]] = []
    for i in range(trials):
        score = "" if i == trials - 1 else f"{0.9 - i / 1000:.4f}"
        reason = "the loss is nan" if not score else ""
        status = "finished" if score else "failed"
        lines.append(f"{i + 1},t{i},{status},{score},{score},1,2,3.5,{2 ** (i % 6)},{10 ** -(1 + i % 4)},none,{reason}")
        events += [{"kind": "trial", "trial": f"t{i}", "epoch": e, "score": 0.5 + 0.1 * e - i / 1000} for e in (1, 2)]
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    (folder / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "metrics.json").write_text("{}")
    return folder
