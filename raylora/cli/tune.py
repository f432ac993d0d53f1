"""`raylora tune`: one sweep."""

import argparse
import shlex

from raylora.cli.console import say_as, say_floor, say_scores
from raylora.cli.job import add_dry_run, add_words, key_table, read_job
from raylora.config import file as jobfile
from raylora.config.space import parse_space, trial_job
from raylora.tasks import shown_metrics

NAME, SUMMARY = "tune", "search LoRA hyperparameters and keep the best adapter"
HELP = """\
Search LoRA hyperparameters with Ray Tune: many trials over one base model, the best adapter kept.

With no argument: eight trials of rank, alpha and learning rate on the bundled demo reviews.
  raylora tune
  raylora tune data.train=mine.csv tune.num_samples=16 tune.scheduler=asha
  raylora tune job.yaml 'tune.space={lora.r: {choice: [4, 8]}, train.learning_rate: {loguniform: [1e-4, 1e-2]}}'
  raylora tune job.yaml 'tune.space.lora.target_modules={choice: [auto, all-linear]}'

The same run_name (and storage_path) goes on with an interrupted sweep. Leaves trials.csv, best_config.yaml (which
`raylora train` repeats) and adapter/ in <storage_path>/<run_name>.

keys of the search; those of `raylora train --help` hold for every trial:
"""


def add_arguments(tune: argparse.ArgumentParser) -> None:
    tune.description = HELP + key_table("tune")
    add_words(tune)
    add_dry_run(tune)


def run(options: argparse.Namespace) -> None:
    job = read_job(options)
    parse_space(job)  # a search space that can never be ends before ray and torch are loaded
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "tune")
    say = say_as(options, job)
    from raylora.cluster.data.sources import list_sources

    sources = list_sources(job.data, say)
    from raylora.cluster.storage.filesystem import inside, is_remote
    from raylora.cluster.storage.run_folder import BEST_CONFIG
    from raylora.cluster.tune.sweep import tune

    result = tune(job, sources, say=say)
    say_scores(say, result.validation, result.test)
    mean = result.metrics["winner"].get("mean_score")
    by = "" if mean is None else f", by its sample's mean over the seeds ({mean:.4f})"
    say(f"           validation chose 1 of {result.trials} trials{by}: an optimistic score")
    if result.test:
        metric = shown_metrics(result.test)[0]
        say(f"           test minus validation: {result.test[metric] - result.validation[metric]:+.4f} {metric}")
    say_floor(say, trial_job(job, result.sample), result.floor)
    say(f"adapter    {result.adapter_uri}")
    best = inside(result.folder_uri, BEST_CONFIG)
    # a command reads configs from here alone
    again = best if is_remote(best) else shlex.join(["raylora", "train", best])
    say(f"again      {again}")
