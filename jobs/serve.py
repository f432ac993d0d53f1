"""`raylora serve` as a script: `python jobs/serve.py ...`, `ray job submit -- python jobs/serve.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
