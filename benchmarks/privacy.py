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
from benchmarks.privacy_epsilon import measure_epsilon
from benchmarks.privacy_membership import measure_nhanes
from benchmarks.privacy_planted import find_planted
from benchmarks.privacy_synthetic import measure_synthetic
from benchmarks.privacy_training import measure_training

DIF_SURVEYS, DIF_SEED = 200, 1


def bound_epsilon() -> dict[str, Any]:
    bounds = measure_epsilon()
    return {
        "epsilon_outcome": [bound.outcome for bound in bounds],
        "epsilon_claimed": [bound.claimed for bound in bounds],
        "epsilon_lower95": [round(bound.lower, 4) for bound in bounds],
        "epsilon_lower95_of_half_noise": [round(bound.lower_half_noise, 4) for bound in bounds],
        "epsilon_passed": all(bound.holds for bound in bounds),
    }


def look_for_planted() -> dict[str, Any]:
    found = find_planted()
    return {
        **found,
        "planted_passed": found["planted_passed"] and not found["planted_found"] + found["erased_found"],
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "dif": lambda: measure_dif(DIF_SURVEYS, DIF_SEED),
    "dp_training": measure_training,
    "epsilon": bound_epsilon,
    "membership": measure_nhanes,
    "planted": look_for_planted,
    "synthetic": measure_synthetic,
}


def main() -> int:
    """1 where a part that ran has a `…_passed` that is false."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for name in [arguments.only] if arguments.only else PARTS:
        found = PARTS[name]()
        for key, value in found.items():
            print(f"{key:32}{value}")
        report |= found
    print(json.dumps(report))
    return 0 if all(value for key, value in report.items() if key.endswith("_passed")) else 1


if __name__ == "__main__":
    sys.exit(main())
