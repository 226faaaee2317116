"""`python -m benchmarks.suite`: every benchmark of speed in one run, written to benchmarks/results/latest.json.

`--full` takes about an hour, for the night of ten million people. It also writes docs/performance.md and its picture.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.feeding import measure_feeding
from benchmarks.night import find_growth, make_lake, measure_night
from benchmarks.performance_page import write_page
from benchmarks.scoring import measure_scoring
from jobs.machine import GIB, measure_machine, memory_limit

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/latest.json"
NIGHTS, FULL_NIGHTS = (100_000, 1_000_000), (100_000, 1_000_000, 10_000_000)
PARTS = ("scoring", "feed", "nights")
ROUNDS = 3
MILLION = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="an hour: ten million people, and docs/performance.md")
    told = "measure these alone; the others' figures are those of the last run, on this very machine"
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help=told)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where people and lakes are made")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found = read_others(arguments.parts, describe_machine())
    if arguments.full and "nights" not in arguments.parts and len(found["nights"]) < len(FULL_NIGHTS):
        sys.exit(f"{RESULTS} has no night of {FULL_NIGHTS[-1]:,} people: measure that, too")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_lake(folder)
        if "scoring" in arguments.parts:
            save(found, "scoring", measure_scoring(folder / "first", folder, MILLION, ROUNDS))
        if "feed" in arguments.parts:
            save(found, "feed", measure_feeding(folder / "first", folder, 200_000, ROUNDS))
        if "nights" in arguments.parts:
            measure_nights(found, folder, FULL_NIGHTS if arguments.full else NIGHTS)
    if arguments.full:
        write_page(found, ROOT / "docs")
    print(RESULTS)
    return 0


def read_others(parts: Sequence[str], machine: dict[str, Any]) -> dict[str, Any]:
    """The last run's figures of the parts that are not measured now: all of them, and of this machine."""
    others = [part for part in PARTS if part not in parts]
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if others and RESULTS.exists() else {}
    if lacking := [part for part in others if part not in found]:
        sys.exit(f"{RESULTS} has no {' and no '.join(lacking)}: measure that, too")
    if others and {**found["machine"], "load_before": None} != {**machine, "load_before": None}:
        sys.exit(f"{RESULTS} is of another machine: measure every part")
    return {**found, "machine": machine}


def measure_nights(found: dict[str, Any], folder: Path, sizes: Sequence[int]) -> None:
    nights: list[dict[str, Any]] = []
    for people in sizes:
        nights.append(measure_night(folder, people))
        save(found, "nights", nights)
    save(found, "growth", find_growth(nights))
    save(found, "stages", {"people": nights[-1]["people"], **describe_stages(nights[-1])})


def save(found: dict[str, Any], part: str, figures: Any) -> None:
    """After each part, so that what was measured outlives a failure of the next."""
    found[part] = figures
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{part}: {json.dumps(figures)}", file=sys.stderr)


def describe_machine() -> dict[str, Any]:
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.split("\n")[0]
    models = [line.partition(":")[2].strip() for line in _read_lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": measure_machine().cores,
        "memory_gib": round(memory_limit() / GIB, 1),
        "system": f"Linux {platform.release().split('-')[0]}",
        "java": java,
        "load_before": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in ("torch", "pyspark", "pyarrow", "petastorm")},
    }


def _read_lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def describe_stages(night: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Rows a second and processor seconds per million rows of every stage."""
    return {
        stage: {
            "rows_a_second": round(night["rows"] / max(told["seconds"], 0.01)),
            "cpu_seconds_per_million": round(told["cpu_seconds"] / night["rows"] * MILLION, 2),
        }
        for stage, told in night["stages"].items()
    }


if __name__ == "__main__":
    sys.exit(main())
