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
from raylora import jobfile
from raylora.config import Job, keys
from raylora.errors import ConfigError, RayLoraError, TrainingError
from raylora.floor import advice, difference_line, is_below
from raylora.metrics import Scores
from raylora.records import Say
from raylora.speech import Voice
from raylora.usage import RUNS_HELP, SERVE_HELP, TRAIN_HELP, TUNE_HELP

if TYPE_CHECKING:
    from raylora.model.predict import Prediction

RUN = ("data.", "model.", "lora.", "train.", "ray.")  # sections of a run; keys without one are of every job
TUNE_PARTS = ("pack", "sweep", "start")  # of raylora.bench.tune and .serve, without loading torch
SERVE_PARTS = ("floor", "raylora", "mixed", "pipeline", "recipe", "batch", "memory")
GO_ON = "the same command with the same run_name goes on from the last checkpoint."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors go to stderr. Returns the exit code: 0 done, 2 bad config or data, 1 anything else."""
    options = _parser().parse_args(arguments)
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
    schema.add_argument("--markdown", action="store_true", help="a table of keys, defaults and meanings instead")

    bench = _command(commands, "bench", _bench, "measure raylora against what one would write without it")
    bench.add_argument("what", choices=["train", "tune", "serve", "scale", "accuracy"])
    bench.add_argument("words", nargs="*", metavar="CONFIG.yaml | section.key=value")
    bench.add_argument("--repeats", type=_count, default=3, help="interleaved speed measurements (default 3)")
    bench.add_argument("--speed-rows", type=_count, default=800, help="train rows of a speed measurement (default 800)")
    bench.add_argument("--seeds", type=int, default=1, help="train, accuracy: seeds of a mean (default 1)")
    bench.add_argument("--top-layers", type=_count, default=2, help="train: layers above the frozen prefix (default 2)")
    parts = [*TUNE_PARTS, *SERVE_PARTS]
    bench.add_argument("--parts", nargs="+", choices=parts, help=f"tune: {TUNE_PARTS}, serve: {SERVE_PARTS} (all)")
    bench.add_argument("--seconds", type=_count, default=10, help="serve: of each load (default 10)")
    bench.add_argument("--clients", type=_count, nargs="+", default=[1, 8, 32], help="serve: loads (default 1 8 32)")
    bench.add_argument("--threads", type=_count, help="accuracy: of this process (default: all cores)")
    bench.add_argument(
        "--setting",
        action="append",
        metavar="'section.key=value ...'",
        help="accuracy: one to compare, over the job; may be given often, or be `tutorial` (default: it, and the job)",
    )
    bench.add_argument(
        "--samples", type=int, default=0, help="accuracy: of tune.space, each from both starts of the head (default 0)"
    )
    bench.add_argument("--sweep-rows", type=_count, default=200, help="tune: train rows of a sweep (default 200)")
    bench.add_argument("--adapters", type=_count, default=100_000, help="scale: in one table (default 100000)")
    bench.add_argument("--workers", type=_count, default=64, help="scale: of one sweep (default 64)")
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
    return jobfile.read(options.words, os.environ)


def _train(options: argparse.Namespace) -> None:
    job = _job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "train")
    say = _say_as(options, job)
    from raylora.cluster.data.files import list_sources

    sources = list_sources(job.data)  # before ray and torch are loaded: a wrong path ends at once
    from raylora.cluster.train import train

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
    from raylora.space import parse_space, trial_job

    parse_space(job)  # a search space that can never be ends before ray and torch are loaded
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "tune")
    say = _say_as(options, job)
    from raylora.cluster.data.files import list_sources

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
    from raylora.cluster.connect import use_haproxy

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
    from raylora.cluster import runlines

    place = jobfile.storage_path(places, os.environ)
    print(runlines.told_of(place, name, options.json) or f"no runs in {place}")


def _init(options: argparse.Namespace) -> None:
    from raylora.cluster.data.guess import write_config

    path = write_config(options.data, options.output)
    print(f"wrote {path}. Read it, then: raylora train {path}")


def _schema(options: argparse.Namespace) -> None:
    print(jobfile.table() if options.markdown else json.dumps(Job.model_json_schema(), indent=2))


def _bench(options: argparse.Namespace) -> None:
    job = _job(options)
    from raylora.bench.rows import check_files
    from raylora.space import parse_space

    if options.what == "scale":
        from raylora.bench.scale import bench

        bench(options.adapters, options.workers, say=_say)
    elif options.what == "serve":
        from raylora.bench.serve import bench

        bench(job, options.parts or SERVE_PARTS, options.repeats, options.seconds, options.clients, say=_say)
    elif options.what == "accuracy":
        check_files(job, ("train", "test"))
        from raylora.bench.accuracy import bench

        words = options.setting or ([] if options.samples else ["tutorial", ""])
        settings = {each or "the job itself": _setting(each, job) for each in words}
        bench(job, settings, options.samples, options.seeds, options.threads, say=_say)
    elif options.what == "train":
        check_files(job, ("train", "validation", "test"))
        from raylora.bench.train import bench

        bench(job, options.seeds, options.repeats, options.speed_rows, options.top_layers, say=_say)
    else:
        check_files(job, ("train", "validation"))
        parse_space(job)
        from raylora.bench.tune import bench

        bench(job, options.parts or TUNE_PARTS, options.repeats, options.speed_rows, options.sweep_rows, say=_say)


def _setting(words: str, job: Job) -> Job:
    """A job with a setting's own keys; `tutorial` is what raylora's defaults were taken from."""
    from raylora.bench.accuracy import TUTORIAL

    overrides = TUTORIAL if words == "tutorial" else {}
    for word in words.split() if words != "tutorial" else []:
        overrides = {**overrides, **jobfile.override(word)}
    return job.replace(overrides)


def _count(text: str) -> int:
    """Of an option: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, found '{text}'")
    return int(text)


def _say_as(options: argparse.Namespace, job: Job) -> Say:
    """What the job says, as RAYLORA_LOG wishes."""
    options.voice.run = job.run_name
    return options.voice.say


def _say(line: str) -> None:
    print(line, flush=True)
