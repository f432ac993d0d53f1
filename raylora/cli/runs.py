"""`raylora runs`: what a storage path holds, for a terminal and, as JSON, for programs."""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raylora import config
from raylora.cli import removal
from raylora.cli.job import saying_renamed
from raylora.config import Job
from raylora.config.file import storage_path, value_of
from raylora.config.space import trial_job
from raylora.config.typed import as_word, place_of
from raylora.config.yaml12 import inline
from raylora.errors import ConfigError
from raylora.metrics import Scores, greater_is_better
from raylora.tasks import scores_in_words, shown_metrics

if TYPE_CHECKING:
    from raylora.cluster.storage.listing import Details, Summary

NAME, SUMMARY = "runs", "list runs, sweeps and endpoints, show one, or remove some"
MOST = 12  # trials, adapters

HELP = """\
List the runs, sweeps and endpoints under a storage path, last written first, or show one.

  raylora runs                                  those of the default storage_path, `runs`
  raylora runs s3://bucket/runs
  raylora runs job.yaml                         those of the config's storage_path
  raylora runs show first                       config, scores by epoch, files, and the command that goes on or serves
  raylora runs show first s3://bucket/runs --json
  raylora runs rm first second                  their folders, in `runs`; of another storage path: rm first s3://bucket/runs
  raylora runs prune --older-than 30d           runs and sweeps that nothing was written to for so long
  raylora runs prune --keep 3 ./other           of each finished sweep, checkpoints of all but the best three trials
  raylora runs prune --keep 3 --dry-run         only says what would go

rm and prune ask nothing, and leave alone what a job is at work in, and endpoints.

Read from the folders alone: `finished` has metrics.json; `unfinished` runs now or was interrupted; an endpoint is
neither, and `unreadable` has a broken file. validation and test are of the task's first metric (accuracy, f1_micro,
pearson): of the best epoch, or, while unfinished, a run's last epoch and a sweep's best trial so far by that metric.
"""


def add_arguments(runs: argparse.ArgumentParser) -> None:
    runs.description = HELP
    runs.add_argument("words", nargs="*", metavar="[show NAME | rm NAME... | prune] [STORAGE_PATH]")
    runs.add_argument("--json", action="store_true", help="a JSON list of runs, or one JSON object")
    removal.add_arguments(runs)


def run(options: argparse.Namespace) -> None:
    given: list[str] = options.words
    if given[:1] in (["rm"], ["prune"]):
        (removal.remove_named if given[0] == "rm" else removal.prune)(given[1:], options)
        return
    name = given[1] if given[:1] == ["show"] and len(given) > 1 else None
    places = given[2:] if name else given
    if len(places) > 1 or given == ["show"]:
        raise ConfigError("`raylora runs` takes [STORAGE_PATH], `raylora runs show` takes NAME [STORAGE_PATH].")
    with saying_renamed(options.voice):
        place = storage_path(places, options.environ)
    print(described(place, name, options.json) or f"no runs in {place}")


def described(place: str, name: str | None, as_json: bool) -> str:
    """What the path holds, or one run of it; empty where there is none.

    Raises:
        ConfigError: see `list_runs` and `show_run`.
    """
    from raylora.cluster.storage.listing import list_runs, show_run  # pyarrow, which takes 0.2 s to load

    if name:
        shown = show_run(place, name)
        return json.dumps(as_tree(shown), indent=2) if as_json else "\n".join(details(shown, time.time()))
    found = list_runs(place)
    return json.dumps(list(map(as_record, found)), indent=2) if as_json else "\n".join(table(found, time.time()))


def table(summaries: "Sequence[Summary]", now: float) -> list[str]:
    """A line per run under a heading."""
    if not summaries:
        return []
    width = max(4, *(len(summary.name) for summary in summaries))
    heading = f"{'name':<{width}}  {'kind':<8}  {'state':<10}  {'validation':<21}  {'test':<6}"
    lines = [f"{heading}  {'written':<8}  {'size':<8}  reached"]
    for each in summaries:
        scores = f"{_first(each.validation, named=True):<21}  {_first(each.test):<6}"
        state, age, size = each.state or "-", ago(now - each.written), removal.size_in_words(each.size_bytes)
        lines.append(
            f"{each.name:<{width}}  {each.kind:<8}  {state:<10}  {scores}  {age:<8}  {size:<8}  {each.reached}".rstrip()
        )
    return lines


def details(shown: "Details", now: float) -> list[str]:
    """One run, section by section."""
    summary = shown.summary
    lines = [
        f"{summary.kind:<11}{summary.uri}",
        f"{'state':<11}{', '.join(filter(None, (summary.state, summary.reached)))}; "
        f"last written {ago(now - summary.written)} ago",
    ]
    for split, scores in (("validation", summary.validation), ("test", summary.test)):
        if scores:
            lines.append(f"{split:<11}{scores_in_words(Scores.of(scores))}  ({scores['rows']:,} rows)")
    lines += _block("config", _config(shown))
    lines += _block("history", _trials(shown) if summary.kind == "sweep" else _epochs(shown))
    lines += _block("adapters", [f"{name}  {path}" for name, path in list(shown.adapters.items())[:MOST]])
    lines += _block(
        "files", [f"{name}/" if size is None else f"{name}  {size:,}" for name, size in shown.files.items()]
    )
    return lines + [f"{what:<11}{command}" for what, command in commands(shown).items()]


def as_record(summary: "Summary") -> dict[str, Any]:
    """A summary as JSON has it, with the time as ISO 8601."""
    return {**asdict(summary), "written": datetime.fromtimestamp(summary.written, UTC).isoformat(timespec="seconds")}


def as_tree(shown: "Details") -> dict[str, Any]:
    """Details as JSON has them: the whole config, and what goes on with it."""
    return {
        **as_record(shown.summary),
        "config": shown.job and shown.job.model_dump(),
        "history": shown.history,
        "files": shown.files,
        "adapters": shown.adapters,
        "commands": commands(shown),
    }


def commands(shown: "Details") -> dict[str, str]:
    """What to do with it next, by `continue`, `serve` and `again`; each can be pasted into a shell."""
    from raylora.cluster.storage.filesystem import inside, is_remote, parent

    summary, job = shown.summary, shown.job
    place = [f"run_name={summary.name}", f"storage_path={parent(summary.uri)}"]
    if summary.kind == "endpoint":
        adapters = [f"serve.adapters.{name}={path}" for name, path in list(shown.configured.items())[:MOST]]
        return {"continue": _line("raylora", "serve", *place, *(adapters or ["serve.adapter_root=FOLDER"]))}
    if summary.state == "finished":
        served = inside(summary.uri, "adapter")
        return {"serve": _line("raylora", "serve", f"serve.adapters.{summary.name}={served}")}
    if job is None or summary.kind == "unknown":
        return {}
    command = "tune" if summary.kind == "sweep" else "train"
    if is_remote(summary.uri):  # a command reads configs from here alone
        return {"continue": _line("raylora", command, *place, *words(job))}
    return {"continue": _line("raylora", command, inside(summary.uri, "config.yaml"), place[1])}


def words(job: Job) -> list[str]:
    """The job as `section.key=value`, its name and place and all that is as by default left out."""
    changed = {key: value for key, value in _changed(job).items() if key not in ("run_name", "storage_path")}
    return [f"{key}={as_word(value, place_of(Job, key).kind)}" for key, value in changed.items()]


def _changed(job: Job) -> dict[str, Any]:
    default, known = Job(), config.keys()
    return {key: value_of(job, key) for key in known if value_of(job, key) != value_of(default, key)}


def _config(shown: "Details") -> list[str]:
    if shown.job is None:
        return [] if shown.summary.kind == "endpoint" else ["config.yaml is of another version of raylora"]
    keys = {"model.base_model": shown.job.model.base_model} | _changed(shown.job)
    return [f"{key}: {inline(value)}" for key, value in keys.items() if key not in ("run_name", "storage_path")]


def _epochs(shown: "Details") -> list[str]:
    if not shown.history:
        return []
    names = shown_metrics(Scores.of(shown.history[-1], "eval_"))
    width = max(10, *(len(name) + 2 for name in names))
    lines = [f"{'epoch':<7}{''.join(f'{name:<{width}}' for name in names)}train loss"]
    for each in shown.history:
        scores = Scores.of(each, "eval_")
        cells = "".join(f"{scores[name]:<{width}.4f}" for name in names)
        loss = "-" if each["loss"] is None else f"{each['loss']:.4f}"
        lines.append(f"{each['epoch']:<7g}{cells}{loss}")
    return lines


def _trials(shown: "Details") -> list[str]:
    """Best first, where the config says what is best."""
    if not shown.history:
        return []
    sign = 0 if shown.job is None else -1 if greater_is_better(trial_job(shown.job, {}).metric) else 1
    ranked = sorted(shown.history, key=lambda each: (sign * each["score"], each["best_loss"]))
    lines = [f"{'score':<9}{'epoch':<7}trial"]
    lines += [f"{each['score']:<9.4f}{each['epoch']:<7g}{each['trial']}  ({each['words']})" for each in ranked[:MOST]]
    return [*lines, f"and {len(ranked) - MOST} more, in history.jsonl"] if len(ranked) > MOST else lines


def _block(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title if not i else '':<11}{line}" for i, line in enumerate(lines)]


def _first(scores: dict[str, Any] | None, named: bool = False) -> str:
    """The value of the task's first metric."""
    if not scores:
        return "-"
    metric = shown_metrics(scores)[0]
    return f"{scores[metric]:.4f}" + (f" {metric}" if named else "")


def _line(*parts: str) -> str:
    return shlex.join(parts)


def ago(seconds: float) -> str:
    """How long, in the largest unit that fits."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
