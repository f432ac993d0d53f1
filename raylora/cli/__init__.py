"""The command line."""

from raylora.cli.main import main

__all__ = ["main"]
