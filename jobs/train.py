"""`raylora train` as a script: `python jobs/train.py ...`, `ray job submit -- python jobs/train.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
