"""One planted person, looked for in everything that nights leave behind, before and after the person is erased.

The person has an id that nobody has, and a weight and an income that nobody has, in two nights: the first by Airflow
(its database and XCom are searched, too), the second by `mindcensus run`. Then `explain` for everybody, a third night
that is validated and never published, in which the person's row breaks a rule, and `withdraw --erase`. What is found
outside the places of docs/privacy.md is counted.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyspark

from benchmarks.planted import Find, Needles, search_tree, spell_number, spell_text
from jobs.delivery import write_marker
from jobs.pseudonym import digest_ids

PEOPLE = 2_000
NIGHTS = ("2026-03-01", "2026-03-02", "2026-03-03")
ID, KEY = "planted-person-7f3e", "planted-key-4c19a6d2"
# Every binary digit of a single counts, so that no percentile reads the same.
WEIGHT, INCOME = 631.71826171875, 9.518555641174316
ADULT = 18  # who is eligible
PROJECT = Path(__file__).resolve().parents[1]
# Where the design says that a person is, by what is looked for: docs/privacy.md, Data flows and Consent and rights.
PSEUDONYM = digest_ids([ID.encode()], KEY.encode())[0] or ""
TABLES = {
    PSEUDONYM: ("accepted", "quarantine", "features", "profiles", "explanations"),
    str(WEIGHT): ("accepted", "features", "profiles"),
    str(INCOME): ("accepted", "quarantine", "features"),
}
REMAINS = {PSEUDONYM: ("withdrawn", "audit")}


def find_planted() -> dict[str, Any]:
    """`planted_found` and `erased_found`: places that the design does not name. Both should be 0.

    `planted_seen` has the tables that the person was found in before, and `erased_seen` those after: where the first
    lacks one, the search itself does not see.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        environment = make_environment(folder)
        for seed, night in enumerate(NIGHTS, 1):
            deliver(folder / "landing" / night, night, seed, environment, broken=night == NIGHTS[-1])
        said = run_airflow(folder, environment)
        where = ["--lake", str(folder / "lake"), "--run-date", NIGHTS[1], "--codebook", "demo_population"]
        said += run(["run", *where, "--extract", str(folder / "landing" / NIGHTS[1])], environment)
        said += run(["explain", *where], environment)
        where[where.index(NIGHTS[1])] = NIGHTS[2]
        said += run(["validate", *where, "--extract", str(folder / "landing" / NIGHTS[2])], environment)
        before = search(folder, said)
        erase = ["withdraw", "--lake", str(folder / "lake"), "--reason", "asked to be forgotten", "--erase"]
        said = run(erase, environment, f"{ID}\n")
        after = search(folder, said)
        return {
            "planted_found": count_outside(before, TABLES),
            "planted_seen": list_tables(before),
            "planted_passed": set(TABLES[PSEUDONYM]) <= set(list_tables(before)),
            "erased_found": count_outside(after, REMAINS),
            "erased_seen": list_tables(after),
        }


def make_environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MINDCENSUS"))}
    (folder / "temporary").mkdir()
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "MINDCENSUS_KEY": KEY,
        "TMPDIR": str(folder / "temporary"),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_SPARK_DEFAULT": '{"conn_type": "spark", "host": "local[2]"}',
    }


def deliver(extract: Path, night: str, seed: int, environment: dict[str, str], *, broken: bool) -> None:
    """A simulated extract, in which the first good row becomes the planted person's, or one that `broken` spoils."""
    drawn = ["demo", "--people", str(PEOPLE), "--seed", str(seed), "--run-date", night, "--out", str(extract)]
    run(drawn, environment)
    [file] = sorted(extract.glob("people-*.csv"))
    with file.open(newline="") as opened:
        names, *rows = list(csv.reader(opened))
    # The simulation has broken rows, too.
    good = next(row for row in rows if len(row) == len(names) and is_sound(dict(zip(names, row, strict=True))))
    weight = "-1" if broken else str(WEIGHT)
    for name, value in (("respondent_id", ID), ("weight", weight), ("income_log", str(INCOME))):
        good[names.index(name)] = value
    with file.open("w", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows([names, *rows])
    write_marker(extract)


def is_sound(row: Mapping[str, str]) -> bool:
    try:
        return all(row.values()) and float(row["age"]) >= ADULT and float(row["weight"]) > 0
    except ValueError:
        return False


def run(arguments: list[str], environment: dict[str, str], told: str = "") -> str:
    """A command's output, both streams. Ends the program where the command failed."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return _run(command, environment, told)


def run_airflow(folder: Path, environment: dict[str, str]) -> str:
    airflow = [sys.executable, "-m", "airflow"]
    _run([*airflow, "db", "migrate"], environment)
    conf = {"lake": str(folder / "lake"), "run_date": NIGHTS[0], "codebook": "demo_population"}
    conf |= {"extract": str(folder / "landing" / NIGHTS[0])}
    return _run([*airflow, "dags", "test", "population_nightly", NIGHTS[0], "--conf", json.dumps(conf)], environment)


def _run(command: list[str], environment: dict[str, str], told: str = "") -> str:
    pipe = subprocess.PIPE
    ended = subprocess.run(command, env=environment, input=told, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command[2:4])} ended with {ended.returncode}: {ended.stdout[-3000:]}")
    return ended.stdout


def search(folder: Path, said: str) -> set[Find]:
    """The person's id, pseudonym and rare values in every file but the delivered ones, and in what was said."""
    needles: Needles = {
        **{text: spell_text(text) for text in (ID, PSEUDONYM)},
        **{str(value): spell_number(value, str(value)) for value in (WEIGHT, INCOME)},
    }
    found = {find for find in search_tree(folder, needles) if not find.place.startswith("landing/")}
    return found | {Find(needle, "output") for needle in needles if needle in said}


def count_outside(found: set[Find], allowed: Mapping[str, tuple[str, ...]]) -> int:
    """The finds that are in no table where they may be; each is told."""
    outside = []
    for find in sorted(found, key=lambda find: find.place):
        places = tuple(f"lake/restricted/{table}/" for table in allowed.get(find.needle, ()))
        if not find.place.startswith(places):
            outside.append(find.place)
            print(f"found outside: {find.place}", file=sys.stderr)
    return len(outside)


def list_tables(found: set[Find]) -> list[str]:
    return sorted({find.place.removeprefix("lake/restricted/").split("/")[0] for find in found})
