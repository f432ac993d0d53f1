"""`raylora evaluate` as a script: `python jobs/evaluate.py ...`, `ray job submit -- python jobs/evaluate.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
