"""`raylora doctor`: whether a job would find what it needs."""

import argparse
import json
from dataclasses import asdict

from raylora.cli.job import add_words, read_job
from raylora.errors import TrainingError

NAME, SUMMARY = "doctor", "say whether what a job needs is here, and how to mend what is not"
HELP = """\
Look at what a config needs: versions, extras, the base model, the port of `raylora serve`, the Ray cluster and room for
the workers, and from every node storage and shared memory. A line each: ok, warning or fault, and how to mend it.

  raylora doctor
  raylora doctor job.yaml storage_path=s3://bucket/runs
  raylora doctor job.yaml ray.address=auto --json

It joins the cluster as the job would, or starts a Ray of its own, and fetches the base model where it is not here yet;
in storage it leaves nothing. Exit code 1 where something that this config needs is missing.
"""


def add_arguments(doctor: argparse.ArgumentParser) -> None:
    doctor.description = HELP
    add_words(doctor)
    doctor.add_argument("--json", action="store_true", help="a JSON list, each with check, state, found and mend")


def run(options: argparse.Namespace) -> None:
    job = read_job(options)
    from raylora.cluster.doctor import Finding, examine, is_faulty

    findings: list[Finding] = []
    for finding in examine(job):
        findings.append(finding)
        if not options.json:
            options.voice.say(str(finding))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    if is_faulty(findings):
        count = sum(finding.state == "fault" for finding in findings)
        raise TrainingError(f"{count} fault{'s' * (count != 1)}: this config cannot run here as it is.")
