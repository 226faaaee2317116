"""Surveys for chaos: their lake with one published night, and how the second one ends if nobody disturbs it."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import endings
from benchmarks.endings import VIEWS, Counts, count_rows, describe_ending
from jobs.lake import hash_file
from jobs.provenance import hash_code

PEOPLE = 2_000
FIRST, SECOND = "2026-01-01", "2026-01-02"
SHARED = Path(os.environ.get("MINDCENSUS_SHARED", "../shared"))
COMMAND = str(Path(sys.executable).with_name("mindcensus"))


@dataclass(frozen=True)
class Survey:
    """An extract and its codebook."""

    name: str
    codebook: str
    extract: Path


@dataclass(frozen=True)
class Undisturbed:
    """A survey's second night without a fault: the lake before it, what it ends in, and each stage's seconds."""

    survey: Survey
    before: Path
    ending: dict[str, Any]
    old_counts: dict[str, Counts]
    counts: dict[str, Counts]
    seconds: dict[str, float]

    def restore(self, lake: Path) -> None:
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(self.before, lake)


def make_surveys(folder: Path) -> list[Survey]:
    """The demo population, and NHANES where its files are."""
    demo = folder / "extracts" / "demo"
    if not demo.exists():
        subprocess.run(
            [COMMAND, "demo", "--people", str(PEOPLE), "--run-date", FIRST, "--out", demo],
            check=True,
            capture_output=True,
        )
    surveys = [Survey("demo", "demo_population", demo)]
    delivered = SHARED / "data" / "nhanes_2017_2018"
    if delivered.is_dir():
        surveys.append(Survey("nhanes", "nhanes_2017_2018", delivered.resolve()))
    return surveys


def find_undisturbed(survey: Survey, folder: Path, lake: Path, key: Path) -> Undisturbed:
    """That of an earlier run, where the program is the same since, and what is told of a night; else it is run now."""
    told = hash_file(Path(endings.__file__))[:16]
    kept = folder / "before" / f"{survey.name}-{hash_code()}-{told}.pickle"
    if kept.exists():
        night: Undisturbed = pickle.loads(kept.read_bytes())
    else:
        night = run_undisturbed(survey, folder, lake, key)
        kept.write_bytes(pickle.dumps(night))
    return night


def run_undisturbed(survey: Survey, folder: Path, lake: Path, key: Path) -> Undisturbed:
    """Runs the survey's two nights where the disturbed ones will be: catalogs name their files by whole paths."""
    before = folder / "before" / survey.name
    shutil.rmtree(lake, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)
    run_stages(survey, lake, key, FIRST)
    shutil.copytree(lake, before)
    old_counts = {zone: count_rows(lake, zone) for zone in VIEWS}
    seconds = run_stages(survey, lake, key, SECOND, "--force-retrain")
    shutil.rmtree(after := folder / "after" / survey.name, ignore_errors=True)
    shutil.copytree(lake, after)
    counts = {zone: count_rows(lake, zone) for zone in VIEWS}
    return Undisturbed(survey, before, describe_ending(lake, SECOND), old_counts, counts, seconds)


def run_stages(survey: Survey, lake: Path, key: Path, run_date: str, *more: str) -> dict[str, float]:
    """Runs a night here; returns how long each stage held the lake."""
    named = [
        "--lake",
        str(lake),
        "--run-date",
        run_date,
        "--codebook",
        survey.codebook,
        "--extract",
        str(survey.extract),
    ]
    # The key is the stack's: the disturbed nights go on with this lake.
    environment = os.environ | {"MINDCENSUS_KEY_FILE": str(key)}
    ended = subprocess.run([COMMAND, "run", *named, *more], env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"the undisturbed night of {survey.name} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    lines = (ended.stdout + ended.stderr).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{") and '"stage done"' in line]
    return {event["stage"]: event["seconds"] for event in events}


def describe_params(survey: Survey, lake: Path) -> dict[str, Any]:
    """The params of the night's run in Airflow."""
    return {
        "codebook": survey.codebook,
        "extract": str(survey.extract),
        "marker": None,
        "lake": str(lake),
        "run_date": SECOND,
        "force_retrain": True,
    }
