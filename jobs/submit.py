"""The file that spark-submit runs: `submit.py STAGE ARGUMENTS...` is `mindcensus STAGE ARGUMENTS...`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # spark-submit puts this folder on the path, where its modules would hide others of the same name.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [folder for folder in sys.path if folder != here]

    from jobs.cli import main

    sys.exit(main())
