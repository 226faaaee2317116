"""A survey small enough for many nights: its codebook, simulated extracts, and the real command run on them."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
STAGES = ("validate", "preprocess", "train", "score", "aggregate", "report", "publish")
PEOPLE = 1_500
# Small frames and nights are over before the JVM's second compiler has earned its cost.
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
FIRST, SECOND, THIRD = "2026-03-01", "2026-03-02", "2026-03-03"

CODEBOOK = """\
codebook: pocket
version: 1
title: Six questions, two scales
source: {format: csv, files: [people.csv]}
person_id: respondent
answered_at: answered_at
design: {weight: weight, stratum: stratum, psu: psu, nest: true, lonely_psu: fail}
eligible: age >= 18
max_quarantine_share: 0.10
items:
  - {key: mood_1, column: mood_1, levels: [0, 1, 2, 3], missing: [-9], label: low mood}
  - {key: mood_2, column: mood_2, levels: [0, 1, 2, 3], missing: [-9], label: no interest}
  - {key: mood_3, column: mood_3, levels: [0, 1, 2, 3], missing: [-9], reversed: true, label: calm}
  - {key: sleep_1, column: sleep_1, levels: [0, 1, 2, 3, 4], missing: [-9], label: falling asleep}
  - {key: sleep_2, column: sleep_2, levels: [0, 1, 2, 3, 4], missing: [-9], label: staying asleep}
  - {key: sleep_3, column: sleep_3, levels: [0, 1, 2, 3, 4], missing: [-9], label: waking early}
scales:
  - {key: mood, items: [mood_1, mood_2, mood_3], bands: {low: 0, high: 5}, cut: ">=5", prorate_up_to: 1, source: tests}
  - {key: sleep, items: [sleep_1, sleep_2, sleep_3], source: tests}
traits:
  - {key: distress, scale: mood, label: Distress}
  - {key: sleeplessness, scale: sleep, label: Sleeplessness}
covariates:
  - {key: age, column: age, kind: count, min: 0, max: 110, required: true}
  - {key: income, column: income, kind: continuous, min: 0, max: 1000000}
cohorts:
  - {key: sex, column: sex, map: {1: men, 2: women}, label: Sex}
  - {key: age_band, column: age, breaks: [18, 40, 65], labels: ["18-39", "40-64", "65+"], label: Age}
  - {key: region, column: region, map: {north: North, south: South}, label: Region}
breakdowns: [[], [sex], [age_band], [region], [sex, age_band]]
outcomes: [mood_total, mood_ge5, sleep_total, mood_p50, mood_total_per_sleep_total, distress_mean, sleeplessness_mean]
"""
COLUMNS = [
    *("respondent", "answered_at", "weight", "stratum", "psu"),
    *("mood_1", "mood_2", "mood_3", "sleep_1", "sleep_2", "sleep_3"),
    *("age", "income", "sex", "region"),
]


def write_codebook(folder: Path, content: str = CODEBOOK) -> Path:
    path = folder / "pocket.yaml"
    path.write_text(content)
    return path


def simulate_rows(seed: int, day: str, people: int = PEOPLE, shift: float = 0.0) -> list[list[Any]]:
    """Rows of an extract: 60 children, 20 rows that a person superseded, 30 rows that break a rule, else good ones.

    `shift` moves everybody's distress, so that the answers drift.
    """
    draw = np.random.default_rng(seed)
    psu = draw.integers(0, 12, people)
    traits = draw.multivariate_normal([shift, 0], [[1, 0.5], [0.5, 1]], people)

    def answer(trait: int, levels: int, loading: float) -> np.ndarray:
        cuts = np.linspace(-0.5, 2.0, levels - 1)
        answers = ((loading * traits[:, [trait]] + draw.normal(size=(people, 1))) > cuts).sum(axis=1)
        return np.where(draw.random(people) < 0.03, -9, answers)

    items = [answer(0, 4, 1.2), answer(0, 4, 1.0), answer(0, 4, 0.8)]
    items[2] = np.where(items[2] < 0, items[2], 3 - items[2])
    items += [answer(1, 5, 1.2), answer(1, 5, 1.0), answer(1, 5, 0.9)]
    age, income = draw.integers(18, 95, people), draw.lognormal(10, 0.6, people).round(2)
    age[:60] = draw.integers(5, 18, 60)
    weight, sex = draw.uniform(50, 500, people).round(3), draw.integers(1, 3, people)
    region = np.where(draw.random(people) < 0.5, "north", "south")
    rows: list[list[Any]] = []
    for i in range(people):
        design = [weight[i], f"s{psu[i] // 3}", f"p{psu[i] % 3}"]
        answers = [column[i] for column in items]
        rows.append([f"P{i:06d}", f"{day}T08:00:00", *design, *answers, age[i], income[i], sex[i], region[i]])
    for i in range(100, 110):
        rows[i][COLUMNS.index("mood_1")] = 8
        rows[i + 10][COLUMNS.index("weight")] = -1
        rows[i + 20][COLUMNS.index("region")] = "atlantis"
    again = [[*rows[i]] for i in range(200, 220)]
    for row in again:
        row[1] = f"{day}T09:30:00"
    return [*rows, *again]


def write_extract(folder: Path, rows: list[list[Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, row)) for row in [COLUMNS, *rows]]
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


def environment(**changes: str) -> dict[str, str]:
    """What a command is started with: this environment's programs, small Spark, and nothing left by other tests."""
    mixed = ("AIRFLOW", "PYSPARK", "SPARK", "MINDCENSUS", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mixed)}
    programs = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": str(PROJECT),
        "MINDCENSUS_SPARK_MASTER": "local[2]",
        "MINDCENSUS_DRIVER_MEMORY": "1g",
        "SPARK_SUBMIT_OPTS": QUICK_JVM,
        "SPARK_LAUNCHER_OPTS": QUICK_JVM,
        **changes,
    }


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code and all that it said."""

    code: int
    said: str


def start(*arguments: object, **changes: str) -> "subprocess.Popen[str]":
    """The command in a session of its own, so that all its processes can be found again."""
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(**changes), stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(*arguments: object, **changes: str) -> Ended:
    process = start(*arguments, **changes)
    said, _ = process.communicate(timeout=600)
    return Ended(process.returncode, said)


SERVER = """
import os, sys, traceback
from jobs.cli import main
for line in sys.stdin:
    *arguments, log = line.rstrip("\\n").split("\\t")
    handle = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    print("ended", code, flush=True)
"""


class CommandLine:
    """Runs commands one after another in one process, whose imports and JVM are warm: seconds a stage are saved."""

    def __init__(self, **changes: str) -> None:
        self._changes = changes
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: object) -> Ended:
        if self._process is None:
            command = [sys.executable, "-c", SERVER]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, env=environment(**self._changes), stdin=pipe, stdout=pipe, text=True, start_new_session=True
            )
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "stderr"
            print(*arguments, log, sep="\t", file=self._process.stdin, flush=True)
            said = ""
            while not (line := self._process.stdout.readline()).startswith("ended "):
                if not line:
                    raise RuntimeError(f"the process of the commands has died: {log.read_text()}")
                said += line
            return Ended(int(line.split()[1]), said + log.read_text())

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None
