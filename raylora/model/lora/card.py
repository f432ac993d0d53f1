"""The model card: README.md of an adapter, and of what is exported from one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raylora.floor import BASELINES, WORDS, difference_line, is_below
from raylora.model.lora.manifest import Manifest
from raylora.tasks import Task, task_of
from raylora.tasks.markdown import code, table

RAYLORA = "[raylora](https://pypi.org/project/raylora/)"
MOST_LABELS = 200
FEW_ROWS = 10
SPLITS = ("train", "validation", "test")
# names of metrics as the hub has them (https://hf.co/metrics)
HUB_METRICS = {"mcc": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr", "r2": "r_squared"}


@dataclass(frozen=True)
class Facts:
    """What a card tells that the manifest does not hold.

    Args:
        rank, alpha, adapted: of the LoRA config; `adapted` the names of modules.
        settings: of the base's config, as they must be to load the adapter with plain PEFT.
        licence: of the base, where it says one.
    """

    rank: int
    alpha: float
    adapted: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    licence: str | None = None


def adapter_card(manifest: Manifest, facts: Facts) -> str:
    """README.md of an adapter."""
    head = front_matter(manifest, facts.licence, "peft", ("lora", "raylora"))
    title = f"# LoRA adapter for {code(base_name(manifest))}"
    return f"{head}\n{title}\n\n{body(manifest, facts)}\n{_loading(manifest, facts)}"


def front_matter(manifest: Manifest, licence: str | None, library: str, tags: tuple[str, ...]) -> str:
    """The card's metadata in YAML, as the hub reads it."""
    from huggingface_hub import ModelCardData

    results = _results(manifest)
    data = ModelCardData(
        base_model=manifest.base_model if _is_hub_id(manifest.base_model) else None,
        eval_results=results or None,
        library_name=library,
        license=licence,
        metrics=sorted({each.metric_type for each in results}) or None,
        model_name=_model_name(manifest) if results else None,
        pipeline_tag="text-classification",
        tags=list(tags),
    )
    return f"---\n{data.to_yaml()}\n---"


def body(manifest: Manifest, facts: Facts) -> str:
    """What is told of an adapter however it is loaded."""
    parts = [
        f"{_task(manifest).purpose(manifest.labels)}\n{_training(manifest, facts)}\n",
        f"## Intended use\n\n{_use(manifest)}\n",
        f"## {'Labels' if _task(manifest).has_classes else 'Numbers'}\n\n{_labels(manifest)}",
        f"## Scores\n\n{_scores(manifest)}",
        _promises(manifest),
        f"## Data\n\n{_data(manifest)}\n",
        f"## Limits\n\n{_limits(manifest)}",
    ]
    return "\n".join(filter(None, parts))


def base_name(manifest: Manifest) -> str:
    """The hub's id, or the name of a local folder without the path, which is nobody else's."""
    name = manifest.base_model
    return name if _is_hub_id(name) else Path(name).name


def _is_hub_id(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _task(manifest: Manifest) -> Task:
    given = manifest.config.get("data", {}).get("positive_label")
    return task_of(manifest.problem_type).for_labels(manifest.labels, given)


def _model_name(manifest: Manifest) -> str:
    return manifest.config.get("run_name") or f"LoRA on {base_name(manifest)}"


def dataset_name(manifest: Manifest) -> str:
    """Of the first file, without its folder."""
    files = [str(name).rpartition("/")[2] for name in manifest.data.get("files", ())]
    return files[0] if files else "unnamed"


def _results(manifest: Manifest) -> list[Any]:
    """Each metric that a terminal shows, of each split that is not trained on."""
    from huggingface_hub import EvalResult

    name = dataset_name(manifest)
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed",
            dataset_name=name,
            dataset_split=split,
            metric_type=HUB_METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=round(float(scores[metric]), 4),
        )
        for split, scores in manifest.metrics.items()
        for metric in _task(manifest).shown
        if metric in scores
    ]


def _training(manifest: Manifest, facts: Facts) -> str:
    return (
        f"LoRA of rank {facts.rank}, alpha {facts.alpha:g}, on {', '.join(facts.adapted)} of "
        f"{code(base_name(manifest))}; {_cut_in_words(manifest)}\n"
        f"Trained with {' '.join(filter(None, [RAYLORA, manifest.versions.get('raylora')]))}."
    )


def _cut_in_words(manifest: Manifest) -> str:
    """What an adapter makes of long texts, in a sentence's end and, of windows, another sentence."""
    if manifest.truncation != "windows":
        where = {"end": "", "start": ", which keep their end", "middle": ", which keep both ends"}[manifest.truncation]
        return f"texts are cut at {manifest.max_length} tokens{where}."
    pooling = task_of(manifest.problem_type).pool_windows
    shared = f" that share {manifest.stride} tokens" if manifest.stride else ""
    return (
        f"texts are read in up to {manifest.max_windows} windows of {manifest.max_length} tokens{shared}. A text's "
        f"logits are the {pooling} of its windows': without raylora, pool them so."
    )


def _use(manifest: Manifest) -> str:
    what = "Pairs of texts" if manifest.takes_pairs else "Texts"
    return (
        f"{what} like those it was trained on: in their language, from their source, of their length. On others, "
        "measure it first on rows with known labels."
    )


def _labels(manifest: Manifest) -> str:
    """A row for each, in id order, with what is known of it."""
    counts = {split: rows for split in SPLITS if (rows := manifest.data.get("rows", {}).get(split))}
    titles = ["id", "label", *(f"{split} rows" for split in counts)]
    rows = [
        [str(i), code(label), *(f"{each.get(label, 0):,}" for each in counts.values())]
        for i, label in enumerate(manifest.labels[:MOST_LABELS])
    ]
    if manifest.thresholds:
        titles.append("threshold")
        rows = [[*row, f"{manifest.thresholds[label]:.4f}"] for row, label in zip(rows, manifest.labels, strict=False)]
    more = len(manifest.labels) - MOST_LABELS
    return table(titles, rows) + (f"\nand {more} more, in raylora.json.\n" if more > 0 else "")


def _scores(manifest: Manifest) -> str:
    task = _task(manifest)
    if not manifest.metrics:
        return "None are known.\n"
    own = [[split, *_cells(scores, task.shown), f"{scores['rows']:,}"] for split, scores in manifest.metrics.items()]
    floor = [
        [f"{split}, {WORDS[baseline]}", *_cells(scores, task.shown), f"{manifest.floor[split]['rows']:,}"]
        for split in SPLITS
        if split in manifest.floor
        for baseline in BASELINES
        if (scores := manifest.floor[split][baseline])
    ]
    compared = [split for split in SPLITS if "difference" in manifest.floor.get(split, {})]
    beside = "".join(f"- {split}: {difference_line(manifest.floor, split)}\n" for split in compared)
    chosen = "\nThe validation rows chose the best epoch and flatter it.\n" if "validation" in manifest.metrics else ""
    lines = f"\nBeside the better of the two baselines:\n\n{beside}" if beside else ""
    return table(["split", *task.titles(manifest.labels), "rows"], own + floor) + lines + chosen


def _cells(scores: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{scores[name]:.4f}" if name in scores else "" for name in names]


def _promises(manifest: Manifest) -> str:
    """What the validation rows taught of the scores; empty where that is nothing."""
    lines: list[str] = []
    if manifest.calibration:
        temperature, before, after = (manifest.calibration[n] for n in ("temperature", "ece_before", "ece_after"))
        lines.append(
            f"Scores are calibrated: a temperature of {temperature:.3f} is folded into the head (expected calibration "
            f"error on the validation rows {before:.4f}, after it {after:.4f}).\n"
        )
    if manifest.thresholds:
        lines.append("A label is said where its score reaches the threshold in the table above.\n")
    if manifest.min_scores:
        rows = [
            [promise, f"{each['score']:.4f}", f"{100 * each['coverage']:.1f} %", f"{each['rows']:,.0f}"]
            for promise, each in manifest.min_scores.items()
        ]
        titles = ["right at least", "of answers whose score reaches", "share of validation rows", "rows"]
        lines.append(table(titles, rows))
    return "## What scores are worth\n\n" + "\n".join(lines) if lines else ""


def _data(manifest: Manifest) -> str:
    fingerprint = manifest.data.get("fingerprint")
    files = [str(name).rpartition("/")[2] for name in manifest.data.get("files", ())]
    if not fingerprint:
        return "The rows it was trained on are not known."
    shown = ", ".join(map(code, files[:10])) + (f" and {len(files) - 10} more" if len(files) > 10 else "")
    return f"{shown}. SHA-256 of rows, labels and splits: `{fingerprint}`."


def _limits(manifest: Manifest) -> str:
    knows = "It knows only the labels above" if _task(manifest).has_classes else "It gives any text its numbers"
    lines = [f"{knows}, also where the text has nothing to do with them.", _where_cut(manifest)]
    if manifest.floor and is_below(manifest.floor):
        lines.append("It ends below a baseline that costs next to nothing (see the scores).")
    counts: dict[str, int] = manifest.data.get("rows", {}).get("train", {})
    rare = [label for label in manifest.labels if 0 <= counts.get(label, FEW_ROWS) < FEW_ROWS]
    if rare and _task(manifest).has_classes:
        shown = ", ".join(map(code, rare[:10])) + (f" and {len(rare) - 10} more" if len(rare) > 10 else "")
        lines.append(f"Of these labels it saw fewer than {FEW_ROWS} rows: {shown}.")
    return "".join(f"- {line}\n" for line in lines)


def _where_cut(manifest: Manifest) -> str:
    cut = _cut_in_words(manifest)
    return f"{cut[0].upper()}{cut[1:]}"


def _loading(manifest: Manifest, facts: Facts) -> str:
    text = '("a text", "another")' if manifest.takes_pairs else '"a text"'
    given = '{"text": "a text", "text_pair": "another"}' if manifest.takes_pairs else '"a text"'
    others = "".join(f", {name}={value!r}" for name, value in facts.settings.items()).replace("'", '"')
    return f"""## How to load it

```python
import raylora
raylora.load("adapter").predict([{text}])
```
Without raylora: PEFT reads labels neither from `adapter_config.json` nor from a `config.json` beside it, so they are
named (where `adapter_config.json` names a folder, `base_model_name_or_path` must be there too):
```python
import json
from peft import AutoPeftModelForSequenceClassification
id2label = dict(enumerate(json.load(open("adapter/raylora.json"))["labels"]))
model = AutoPeftModelForSequenceClassification.from_pretrained(
    "adapter", id2label=id2label, label2id={{v: k for k, v in id2label.items()}},
    problem_type="{manifest.problem_type}"{others}
)
```
and with it a pipeline of Transformers:
```python
from transformers import AutoTokenizer, pipeline
pipe = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained("adapter"))
pipe({given}, truncation=True, max_length={manifest.max_length})
```
`raylora export adapter --to merged` writes a folder that `pipeline` loads by its name alone.
"""
