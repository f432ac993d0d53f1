"""The command line: `raylora COMMAND ...` and `python jobs/COMMAND.py ...` are one."""

import argparse
import json
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import raylora
from raylora.bench.command import add_arguments, run_bench
from raylora.cli.console import Voice
from raylora.cli.help import RUNS_HELP, SERVE_HELP, TRAIN_HELP, TUNE_HELP
from raylora.config import Job, keys
from raylora.config import file as jobfile
from raylora.config.renamed import RenamedKeyWarning
from raylora.errors import ConfigError, RayLoraError, TrainingError
from raylora.floor import advice, difference_line, is_below
from raylora.metrics import Scores
from raylora.records import Say

if TYPE_CHECKING:
    from raylora.model.predictor import Prediction

RUN = ("data.", "model.", "lora.", "train.", "ray.")  # sections of a run; keys without one are of every job
GO_ON = "the same command with the same run_name goes on from the last checkpoint."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors go to stderr. Returns the exit code: 0 done, 2 bad config or data, 1 anything else."""
    options = _parse(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    voice = Voice("text")
    try:
        voice = options.voice = Voice(os.environ.get("RAYLORA_LOG", "text"))
        options.run(options)
    except RayLoraError as error:
        voice.fail("error", str(error), f"error: {error}")
        return 2
    except TrainingError as error:
        message = f"{error}\n{GO_ON.capitalize()}"
        voice.fail("error", message, f"error: {message}")
        return 1
    except KeyboardInterrupt:
        voice.fail("warning", f"interrupted: {GO_ON}", f"\ninterrupted: {GO_ON}")
        return 130
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        # SIGTERM: `ray job stop`, the end of a pod
        voice.fail("warning", f"stopped: {GO_ON}", f"\nstopped: {GO_ON}")
        return 128 + signal.SIGTERM
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options may stand between words; argparse takes words only up to the first option."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    taken: list[str] | None = getattr(options, "words", getattr(options, "texts", None))
    if rest and (taken is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and taken is not None:
        taken += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raylora", description=raylora.__doc__)
    parser.add_argument("--version", action="version", version=f"raylora {raylora.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "fine-tune a base model on a labelled text file")
    train.description = TRAIN_HELP.format(prog="raylora train") + _key_table(*RUN)
    tune = _command(commands, "tune", _tune, "search LoRA hyperparameters and keep the best adapter")
    tune.description = TUNE_HELP.format(prog="raylora tune") + _key_table("tune.")
    serve = _command(commands, "serve", _serve, "serve adapters behind HTTP")
    serve.description = SERVE_HELP.format(prog="raylora serve") + _key_table("serve.")
    for command in (train, tune, serve):
        command.add_argument("words", nargs="*", metavar="CONFIG.yaml | section.key=value")
        command.add_argument("--dry-run", action="store_true", help="print the resolved config and exit")
    serve.add_argument("--print-config", action="store_true", help="print the file that `serve deploy` takes and exit")

    key = _command(commands, "key", _key, "make an API key for `serve.api_keys`")
    key.add_argument("role", choices=["predict", "admin"])

    predict = _command(commands, "predict", _predict, "label texts with a saved adapter")
    predict.add_argument("--adapter", required=True, metavar="PATH", help="the folder `adapter` of a run")
    predict.add_argument("--json", action="store_true", help="one JSON object per text, with all scores")
    predict.add_argument("--trust-remote-code", action="store_true", help="run Python code of the base model")
    predict.add_argument("texts", nargs="+", metavar="TEXT")

    runs = _command(commands, "runs", _runs, "list runs, sweeps and endpoints, or show one")
    runs.description = RUNS_HELP
    runs.add_argument("words", nargs="*", metavar="[show NAME] [STORAGE_PATH]")
    runs.add_argument("--json", action="store_true", help="a JSON list of runs, or one JSON object")

    init = _command(commands, "init", _init, "write a commented config for a data file")
    init.add_argument("data", metavar="DATA", help="csv, tsv, jsonl, json or parquet file")
    init.add_argument("--output", metavar="FILE", help="default: the data file's name, ending in .yaml, here")

    schema = _command(commands, "schema", _schema, "print the JSON Schema of the config")
    schema.add_argument("--markdown", action="store_true", help="docs/config.md's table of keys, defaults and meanings")

    bench = _command(commands, "bench", _bench, "measure raylora against what one would write without it")
    add_arguments(bench)
    return parser


def _command(commands: Any, name: str, run: object, help: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=help, description=help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(run=run, command=name)
    return command


def _key_table(*sections: str) -> str:
    lines: list[str] = []
    for key, description in keys().items():
        if not key.startswith(sections) and not (sections == RUN and "." not in key):
            continue
        lines.append(f"  {key}={json.dumps(jobfile.value_of(Job(), key))}")
        lines += textwrap.wrap(description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _job(options: argparse.Namespace) -> Job:
    with warnings.catch_warnings(record=True) as renamed:
        warnings.simplefilter("always", RenamedKeyWarning)
        job = jobfile.read(options.words, os.environ)
    for message in dict.fromkeys(str(warning.message) for warning in renamed):
        options.voice.fail("warning", message, f"warning: {message}")
    return job


def _train(options: argparse.Namespace) -> None:
    job = _job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "train")
    say = _say_as(options, job)
    from raylora.cluster.data.sources import list_sources

    sources = list_sources(job.data)  # before ray and torch are loaded: a wrong path ends at once
    from raylora.cluster.train.job import train

    result = train(job, sources, say=say)
    _say_scores(say, result.validation, result.test)
    _say_floor(say, job, result.floor)
    say(f"adapter    {result.adapter_uri}  (best epoch: {result.best_epoch:g})")
    if "://" in result.adapter_uri:
        return
    if job.data.train is None:
        from raylora.demo import NEW_SENTENCES

        trusted = job.model.trust_remote_code
        _say_predictions(say, NEW_SENTENCES, raylora.load(result.adapter_uri, trusted).predict(NEW_SENTENCES))
    adapter = Path(result.adapter_uri)
    shown = adapter.relative_to(Path.cwd()) if adapter.is_relative_to(Path.cwd()) else adapter
    say(f'try it     raylora predict --adapter {shown} "a text of yours"')


def _tune(options: argparse.Namespace) -> None:
    job = _job(options)
    from raylora.config.space import parse_space, trial_job

    parse_space(job)  # a search space that can never be ends before ray and torch are loaded
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "tune")
    say = _say_as(options, job)
    from raylora.cluster.data.sources import list_sources

    sources = list_sources(job.data)
    from raylora.cluster.tune.sweep import tune

    result = tune(job, sources, say=say)
    _say_scores(say, result.validation, result.test)
    say(f"           validation chose 1 of {result.trials} trials: an optimistic score")
    if result.test:
        say(f"           test minus validation: {result.test.accuracy - result.validation.accuracy:+.4f} accuracy")
    _say_floor(say, trial_job(job, result.sample), result.floor)
    say(f"adapter    {result.adapter_uri}")
    say(f"again      raylora train {result.folder_uri}/best_config.yaml")


def _serve(options: argparse.Namespace) -> None:
    job = _job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = job if job.run_name else job.replace({"run_name": "serve"})  # a restart finds its table again
    from raylora.cluster.session import use_haproxy

    use_haproxy()  # read by Ray Serve when it is imported
    from raylora.cluster.serve import endpoint

    if options.print_config:
        print(endpoint.serve_config(job), end="")
    else:
        endpoint.run(job, say=_say_as(options, job))


def _key(options: argparse.Namespace) -> None:
    from raylora.cluster.serve.keys import make

    new = make(options.role)
    print(f"key   {new.key}\nline  {new.line}")
    print("The key is shown this once; callers send it as `Authorization: Bearer KEY`.", file=sys.stderr)
    print("The line belongs in the file of `serve.api_keys`.", file=sys.stderr)


def _say_scores(say: Say, validation: Scores, test: Scores | None) -> None:
    for split, scores in (("validation", validation), ("test", test)):
        if scores:
            say(
                f"{split:<11}accuracy {scores.accuracy:.4f}  f1 {scores.f1:.4f}  loss {scores.loss:.4f}  "
                f"({scores.rows:,} rows)"
            )


def _say_floor(say: Say, job: Job, floor: dict[str, Any] | None) -> None:
    """How the adapter stands to the baselines on each split; a warning where it ends below them."""
    if floor is None:
        return
    for split in ("validation", "test"):
        if "difference" in floor.get(split, {}):
            say(f"floor      {split} {difference_line(floor, split)}")
    if is_below(floor):
        say(f"warning    the adapter ends below its floor. {advice(job)}")


def _predict(options: argparse.Namespace) -> None:
    predictions = raylora.load(options.adapter, options.trust_remote_code).predict(options.texts)
    if not options.json:
        _say_predictions(print, options.texts, predictions)
        return
    for text, prediction in zip(options.texts, predictions, strict=True):
        record = {"text": text, "label": prediction.label, "score": prediction.score, "scores": prediction.scores}
        print(json.dumps(record, ensure_ascii=False))


def _say_predictions(say: Say, texts: Sequence[str], predictions: "Sequence[Prediction]") -> None:
    width = max(len(prediction.label) for prediction in predictions)
    for text, prediction in zip(texts, predictions, strict=True):
        say(f"{prediction.label:<{width}}  {prediction.score:.4f}  {text}")


def _runs(options: argparse.Namespace) -> None:
    words: list[str] = options.words
    name = words[1] if words[:1] == ["show"] and len(words) > 1 else None
    places = words[2:] if name else words
    if len(places) > 1 or words == ["show"]:
        raise ConfigError("`raylora runs` takes [STORAGE_PATH], `raylora runs show` takes NAME [STORAGE_PATH].")
    from raylora.cli import runs as runlines

    place = jobfile.storage_path(places, os.environ)
    print(runlines.told_of(place, name, options.json) or f"no runs in {place}")


def _init(options: argparse.Namespace) -> None:
    from raylora.cluster.data.guess import write_config

    path = write_config(options.data, options.output)
    print(f"wrote {path}. Read it, then: raylora train {path}")


def _schema(options: argparse.Namespace) -> None:
    print(jobfile.table() if options.markdown else json.dumps(Job.model_json_schema(), indent=2))


def _bench(options: argparse.Namespace) -> None:
    run_bench(options, _job(options), _say)


def _say_as(options: argparse.Namespace, job: Job) -> Say:
    """What the job says, as RAYLORA_LOG wishes."""
    options.voice.run = job.run_name
    return options.voice.say


def _say(line: str) -> None:
    print(line, flush=True)
