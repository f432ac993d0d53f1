"""`raylora export`: an adapter for others."""

import argparse

from raylora.errors import ConfigError

NAME, SUMMARY = "export", "write an adapter as a merged model, as ONNX, or to the Hugging Face hub"
HELP = """\
Write an adapter in a form that others load, and check there that it answers as the adapter does.

  raylora export runs/first --to merged      runs/first/merged, for Transformers' pipeline and text-embeddings-inference
  raylora export runs/first --to onnx        runs/first/onnx, in fp32 and int8; says what int8 costs and gains
  raylora export runs/first --to hub --repo-id me/reviews --dry-run     what would be uploaded
  raylora export runs/first --to hub --repo-id me/reviews --merged --private

An earlier export in the output folder is replaced when the new one is whole; anything else there is left alone. The hub
takes the token of HF_TOKEN or of `hf auth login`. --to onnx needs pip install 'raylora[export]'. More: docs/export.md.
"""
HUB_ONLY = ("repo_id", "private", "merged", "dry_run")


def add_arguments(export: argparse.ArgumentParser) -> None:
    export.description = HELP
    export.add_argument("adapter", metavar="ADAPTER", help="a run or its adapter; local, s3:// or gs://")
    export.add_argument("--to", required=True, choices=("merged", "onnx", "hub"))
    export.add_argument("--output", metavar="FOLDER", help="merged, onnx: where; without it, beside the adapter")
    export.add_argument(
        "--data", metavar="PATH", help="onnx: rows to measure int8 on, in place of the run's own validation rows"
    )
    export.add_argument("--repo-id", metavar="OWNER/NAME", help="hub: the repository; made where there is none")
    export.add_argument("--private", action="store_true", help="hub: a new repository is private")
    export.add_argument("--merged", action="store_true", help="hub: the merged model in place of the adapter")
    export.add_argument("--dry-run", action="store_true", help="hub: list the files and their sizes, upload nothing")
    export.add_argument(
        "--base-model", metavar="ID", help="hub id or folder in place of the one that the adapter names"
    )
    export.add_argument("--trust-remote-code", action="store_true", help="run Python code of the base model")


def run(options: argparse.Namespace) -> None:
    _check(options)
    from raylora.cluster.export.job import Wanted, export

    wanted = Wanted(options.adapter, options.output, options.data, options.base_model, options.trust_remote_code)
    if options.to != "hub":
        export(options.to, wanted, options.voice.say)
        return
    from raylora.cluster.export.hub import Repository, push

    repository = Repository(options.repo_id, True if options.private else None)
    push(wanted, repository, options.merged, options.dry_run, options.voice.say)


def _check(options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: an option is of another `--to`, or the hub's repository is not named.
    """
    unfit = {"merged": ("data", *HUB_ONLY), "onnx": HUB_ONLY, "hub": ("output", "data")}[options.to]
    for name in unfit:
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning with --to {options.to}.")
    if options.to == "hub" and not options.repo_id:
        raise ConfigError("--to hub needs --repo-id OWNER/NAME.")
