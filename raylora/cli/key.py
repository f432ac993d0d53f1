"""`raylora key`: what a caller of an endpoint sends."""

import argparse
import sys

NAME, SUMMARY = "key", "make an API key for `serve.api_keys`"


def add_arguments(key: argparse.ArgumentParser) -> None:
    key.add_argument("role", choices=["predict", "admin"])


def run(options: argparse.Namespace) -> None:
    from raylora.cluster.serve.keys import make

    new = make(options.role)
    print(f"key   {new.key}\nline  {new.line}")
    print("The key is shown this once; callers send it as `Authorization: Bearer KEY`.", file=sys.stderr)
    print("The line belongs in the file of `serve.api_keys`.", file=sys.stderr)
