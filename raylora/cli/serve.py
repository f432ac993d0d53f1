"""`raylora serve`: an endpoint."""

import argparse

from raylora.cli.console import say_as
from raylora.cli.job import add_dry_run, add_words, key_table, read_job
from raylora.config import file as jobfile

NAME, SUMMARY = "serve", "serve adapters behind HTTP"
HELP = """\
Serve adapters over one base model behind HTTP, with Ray Serve, until Ctrl-C.

  raylora serve serve.adapters.reviews=runs/first/adapter
  raylora serve serve.adapter_root=runs                      every run in the folder, loaded when first asked for
  raylora serve serve.adapter_root=s3://bucket/adapters serve.autoscaling_config='{min_replicas: 1, max_replicas: 8}'

  curl localhost:8000/predict -H 'content-type: application/json' -d '{"inputs": "Arrived a day early."}'

http://localhost:8000/ is a page to try it, /docs lists all calls. What PUT /adapters/NAME changes is kept in
<storage_path>/<run_name> (adapters.json) and outlives a restart. On a cluster (ray.address), the command deploys and
ends; --print-config prints the file that `serve deploy` takes.

keys of serving:
"""


def add_arguments(serve: argparse.ArgumentParser) -> None:
    serve.description = HELP + key_table("serve")
    add_words(serve)
    add_dry_run(serve)
    serve.add_argument("--print-config", action="store_true", help="print the file that `serve deploy` takes and exit")


def run(options: argparse.Namespace) -> None:
    job = read_job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = job if job.run_name else job.replace({"run_name": "serve"})  # a restart finds its table again
    from raylora.cluster.serve.haproxy import prepare_haproxy
    from raylora.cluster.session import use_haproxy

    use_haproxy()  # read by Ray Serve when it is imported
    prepare_haproxy()
    from raylora.cluster.serve import endpoint

    if options.print_config:
        print(endpoint.serve_config(job), end="")
    else:
        endpoint.run(job, say=say_as(options, job))
