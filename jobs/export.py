"""`raylora export` as a script: `python jobs/export.py ...`, `ray job submit -- python jobs/export.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
