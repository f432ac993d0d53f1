"""`raylora bench` as a script: `python jobs/bench.py ...`, `ray job submit -- python jobs/bench.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
