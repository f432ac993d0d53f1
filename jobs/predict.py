"""`raylora predict` as a script: `python jobs/predict.py ...`, `ray job submit -- python jobs/predict.py ...`."""

import sys

from raylora.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
