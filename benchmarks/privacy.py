"""`python -m benchmarks.privacy`: what people are owed, shown by attack and simulation; the last line is JSON.

Each part has a module of its own and adds its keys; `--only PART` runs one of them.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.privacy_dif import measure_dif

PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "dif": lambda arguments: measure_dif(arguments.surveys, arguments.seed),
}


def main() -> int:
    """1 where a part that ran has a `…_passed` that is false."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--surveys", type=int, default=200, help="simulated for dif")
    parser.add_argument("--seed", type=int, default=1, help="of the first")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for name in [arguments.only] if arguments.only else PARTS:
        found = PARTS[name](arguments)
        for key, value in found.items():
            print(f"{key:32}{value}")
        report |= found
    print(json.dumps(report))
    return 0 if all(value for key, value in report.items() if key.endswith("_passed")) else 1


if __name__ == "__main__":
    sys.exit(main())
