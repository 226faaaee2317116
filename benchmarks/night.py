"""`python -m benchmarks.night`: whole nights of the simulated population, at several sizes, each stage measured.

The first night of a lake trains its model; the measured one is the next, which has the model given.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.processes import Ended, run_watched

PEOPLE = (100_000, 1_000_000)
FIRST_PEOPLE = 20_000  # of the night that trains the model
FIRST, NIGHT = date(2026, 1, 1), date(2026, 1, 1) + timedelta(days=1)
MILLION = 1e6


def main() -> int:
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_lake(folder)
        nights = [measure_night(folder, people) for people in arguments.people]
    print(json.dumps({"nights": nights, "growth": find_growth(nights)}, indent=1))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, metavar="N", help="rising")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where extracts and lakes are made")
    return parser.parse_args()


def make_lake(folder: Path) -> None:
    """A lake with one published night, so that later ones have a model."""
    run_night(folder / "first", make_extract(folder, FIRST_PEOPLE, FIRST), FIRST)


def make_extract(folder: Path, people: int, day: date) -> Path:
    extract = folder / f"extract-{people}"
    command = ["mindcensus", "demo", "--people", str(people), "--run-date", day.isoformat(), "--out", str(extract)]
    subprocess.run(command, check=True, capture_output=True)
    return extract


def run_night(lake: Path, extract: Path, day: date) -> Ended:
    names = ["--lake", str(lake), "--run-date", day.isoformat(), "--codebook", "demo_population"]
    ended = run_watched(["mindcensus", "run", *names, "--extract", str(extract)])
    if ended.code:
        sys.exit(f"the night of {day} ended with {ended.code}: {ended.lines[-1][1]}")
    return ended


def measure_night(folder: Path, people: int) -> dict[str, Any]:
    """Seconds, processor seconds and rows of every stage; memory of the whole night."""
    extract, lake = make_extract(folder, people, NIGHT), folder / f"lake-{people}"
    # The first night's paths are those of its own folder, so it is copied, and its catalogs made anew at the end.
    shutil.copytree(folder / "first", lake)
    ended = run_night(lake, extract, NIGHT)
    stages, start = {}, 0.0
    for moment, line in ended.lines:
        told = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "stage done":
            stages[told["stage"]] = {
                # Imports and the JVM's start belong to the stage that needs them first.
                "seconds": round(moment - start, 2),
                "cpu_seconds": round(ended.usage.cpu_between(start, moment), 2),
                "peak_pss_mib": _round(ended.usage.peak_between(start, moment)),
            }
            start = moment
    rows = sum(1 for file in extract.glob("*.csv") for _ in file.open("rb")) - len(list(extract.glob("*.csv")))
    shutil.rmtree(lake)
    shutil.rmtree(extract)
    shutil.rmtree(extract.with_name(f"{extract.name}-truth"))
    return {
        "people": people,
        "rows": rows,
        "seconds": round(ended.seconds, 1),
        "cpu_seconds": round(ended.usage.samples[-1][1], 1),
        "peak_pss_mib": round(ended.usage.peak),
        "peak_pss_mib_by_process": _round(ended.usage.peak_between(0.0, ended.seconds)),
        "stages": stages,
    }


def _round(parts: dict[str, float]) -> dict[str, int]:
    return {name: round(pss) for name, pss in parts.items()}


def find_growth(nights: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Processor seconds per million rows more, from each size to the next: a straight line has one slope."""
    return [
        {
            "from_people": small["people"],
            "to_people": large["people"],
            "cpu_seconds_per_million_rows": round(
                (large["cpu_seconds"] - small["cpu_seconds"]) / (large["rows"] - small["rows"]) * MILLION, 2
            ),
        }
        for small, large in pairwise(nights)
    ]


if __name__ == "__main__":
    sys.exit(main())
