"""`raylora tune` as a script: `python jobs/tune.py ...`, `ray job submit -- python jobs/tune.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
