"""Planted ids, answers and a key are looked for, byte by byte, in all that nights leave behind."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark
import pytest

from benchmarks.endings import read_manifest
from benchmarks.planted import Find, Needles, ScratchCopy, search_tree, spell_number, spell_text
from jobs.delivery import write_marker
from tests.nights.small_night import (
    COLUMNS,
    FIRST,
    PROJECT,
    CommandLine,
    environment,
    simulate_rows,
    write_codebook,
    write_extract,
)

KEY = "planted-key-7b1fe0c2"
# Ids of an accepted, a superseded, an ineligible, a quarantined and a ragged row.
IDS = [f"planted-id-{fate}-58ac" for fate in ("good", "twice", "child", "broken", "ragged")]
INCOME = 487_123.4375  # of the accepted row; every binary digit counts, so that it is found as a double, too
# One row each: what cannot be read, or is no code, in every column that a rule judges by its value.
ODD = {
    column: f"zq-{column}-31d7"
    for column in ("answered_at", "weight", "mood_1", "mood_3", "sleep_2", "age", "income", "sex", "region")
}
ODD_CODES = {"mood_2": "8.01953125", "sleep_1": "91.0078125"}
SPILLED = "zq-one-field-too-many-9c2f"
EXTRACT_PEOPLE = 600


def plant(rows: list[list[Any]]) -> list[list[Any]]:
    """Puts the planted values into good rows behind the simulation's own bad ones."""
    good, twice, child, broken, ragged = IDS
    place = COLUMNS.index
    rows[300][place("respondent")], rows[300][place("income")] = good, INCOME
    rows[301][place("respondent")] = twice
    rows.append([*rows[301]])
    rows[301][place("answered_at")] = f"{FIRST}T07:00:00"
    rows[10][place("respondent")] = child
    rows[302][place("respondent")], rows[302][place("weight")] = broken, -1
    for row, (column, value) in enumerate({**ODD, **ODD_CODES}.items(), start=310):
        rows[row][place(column)] = value
    return [*rows, [ragged, *rows[330][1:], SPILLED]]


# ---- Where to look


def list_needles() -> Needles:
    """Each planted value with all the bytes that it may appear as."""
    needles = {text: spell_text(text) for text in (KEY, *IDS, *ODD.values(), SPILLED)}
    return needles | {code: spell_number(float(code), code) for code in (*ODD_CODES.values(), str(INCOME))}


@dataclass(frozen=True)
class Night:
    """What a night was run in: every folder that something may have been written to."""

    folder: Path
    lake: Path
    said: str

    def search(self, *, apart_from: Sequence[str] = ()) -> set[Find]:
        found = search_tree(self.folder, list_needles())
        found |= {Find(needle, "output") for needle in list_needles() if needle in self.said}
        return {find for find in found if not find.place.startswith(("landing/", *apart_from))}


def prepare_folder(folder: Path, **changes: str) -> dict[str, str]:
    """An environment in which Spark keeps event logs, and whose temporary files all lie in the folder."""
    for name in ("events", "temporary", "conf"):
        (folder / name).mkdir()
    defaults = (
        f"spark.eventLog.enabled true\nspark.eventLog.dir file://{folder}/events\nspark.eventLog.compress false\n"
    )
    (folder / "conf" / "spark-defaults.conf").write_text(defaults)
    return {
        "MINDCENSUS_KEY": KEY,
        "SPARK_CONF_DIR": str(folder / "conf"),
        "TMPDIR": str(folder / "temporary"),
        "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder / 'temporary'}",
        **changes,
    }


def watch_scratch(folder: Path, lake: Path, name: str = "scratch") -> ScratchCopy:
    restricted = lake / "restricted"
    copy = ScratchCopy([restricted / "spark", restricted / "staging", folder / "temporary"], folder / name)
    copy.start()
    return copy


# ---- A whole night by Airflow


def run_airflow(folder: Path, extract: Path, book: Path) -> tuple[int, Night]:
    """`airflow dags test` of one night, on an Airflow home of its own."""
    lake = folder / "lake"
    changes = prepare_folder(
        folder,
        AIRFLOW_HOME=str(folder / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(PROJECT / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "local[2]"}',
        SPARK_HOME=str(Path(pyspark.__file__).parent),
    )
    write_marker(extract)  # which the night waits for
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environment(**changes), check=True, capture_output=True)
    conf = {"lake": str(lake), "run_date": FIRST, "codebook": str(book), "extract": str(extract)}
    command = [*airflow, "dags", "test", "population_nightly", FIRST, "--conf", json.dumps(conf)]
    scratch = watch_scratch(folder, lake)
    ended = subprocess.run(
        command, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    scratch.finish()
    return ended.returncode, Night(folder, lake, ended.stdout)


@pytest.fixture(scope="module")
def airflow_night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("airflow_night")
    extract = write_extract(folder / "landing", plant(simulate_rows(5, FIRST, EXTRACT_PEOPLE)))
    code, night = run_airflow(folder, extract, write_codebook(folder))
    assert code == 0, night.said
    return night


def test_airflow_publishes_the_night(airflow_night: Night) -> None:
    manifest = read_manifest(airflow_night.lake, FIRST)
    assert manifest["rows"]["delivered"] == EXTRACT_PEOPLE + 20 + 2
    assert manifest["rows"]["quarantined"] == 30 + 2 + len(ODD) + len(ODD_CODES)
    assert manifest["rows"]["duplicates"] == 20 + 1
    assert manifest["rows"]["profiles"] == manifest["rows"]["features"]


def test_there_is_something_to_look_through(airflow_night: Night) -> None:
    """The search would find nothing in empty folders: each place of the promise was written to."""
    folder = airflow_night.folder
    events = [path for path in (folder / "events").rglob("*") if path.is_file()]
    assert len(events) >= 4
    assert b"SparkListenerSQLExecutionStart" in b"".join(path.read_bytes() for path in events)
    names = {path.name for path in (folder / "scratch").iterdir()}
    assert any(".parquet" in name for name in names)
    assert any("shuffle_" in name or "rdd_" in name for name in names)
    assert list(airflow_night.lake.glob("restricted/data_docs/*/*/**/*.html"))
    assert "stage done" in airflow_night.said
    assert len(query_airflow(airflow_night, "SELECT task_id FROM task_instance")) == 11


def query_airflow(night: Night, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(night.folder / "airflow" / "airflow.db")) as connection:
        return connection.execute(query).fetchall()


def test_xcom_holds_the_branch_alone(airflow_night: Night) -> None:
    values = query_airflow(airflow_night, "SELECT task_id, key, value FROM xcom")
    assert {task for task, _, _ in values} <= {"training.decide"}, values
    assert {key for _, key, _ in values} <= {"return_value", "skipmixin_key"}, values


def test_no_id_is_anywhere(airflow_night: Night) -> None:
    assert [find for find in airflow_night.search() if find.needle in IDS] == []


def test_the_key_is_in_its_file_alone(airflow_night: Night) -> None:
    found = [find.place for find in airflow_night.search() if find.needle == KEY]
    assert found == ["lake/restricted/keys/environment.key"]


def test_answers_are_in_peoples_tables_alone(airflow_night: Night) -> None:
    """A broken row's answers lie in quarantine as delivered, a good row's in accepted and features."""
    found = airflow_night.search(apart_from=("scratch/",))
    places = {find.place.split("/run_date")[0] for find in found if find.needle in (*ODD.values(), *ODD_CODES.values())}
    assert places == {"lake/restricted/quarantine"}
    assert {find.needle for find in found if find.needle in ODD.values()} == set(ODD.values())
    places = {find.place.split("/run_date")[0] for find in found if find.needle == str(INCOME)}
    assert places == {"lake/restricted/accepted", "lake/restricted/features"}
    assert not [find for find in found if find.needle == SPILLED]


def test_scratch_is_encrypted_but_for_tables_in_the_making(airflow_night: Night) -> None:
    """Spark's own files show no answer; the stages' unfinished Parquet is what becomes the tables."""
    found = search_tree(airflow_night.folder / "scratch", list_needles())
    assert {find.place for find in found if ".parquet" not in find.place} == set()
    assert {find.needle for find in found} & {KEY, *IDS, SPILLED} == set()


# ---- Nights that fail


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, CommandLine]]:
    folder = tmp_path_factory.mktemp("failing")
    line = CommandLine(**prepare_folder(folder))
    yield folder, line
    line.close()


def spoil_column(rows: list[list[Any]], values: Mapping[str, str], share: float) -> list[list[Any]]:
    for row in rows[: int(len(rows) * share)]:
        for column, value in values.items():
            row[COLUMNS.index(column)] = value
    return rows


FAILURES = {
    "a column without numbers": (3, {"income": ODD["income"]}, 1.0),
    "a column without dates": (3, {"answered_at": ODD["answered_at"]}, 1.0),
    "unknown codes": (4, {"mood_2": ODD_CODES["mood_2"], "region": ODD["region"], "sex": ODD["sex"]}, 0.8),
}


@pytest.mark.parametrize(
    "failure",
    ["a column without numbers", pytest.param("a column without dates", marks=pytest.mark.slow), "unknown codes"],
)
def test_a_failing_night_tells_nothing(failing: tuple[Path, CommandLine], failure: str) -> None:
    folder, commands = failing
    code, values, share = FAILURES[failure]
    rows = spoil_column(plant(simulate_rows(6, FIRST, EXTRACT_PEOPLE)), values, share)
    extract = write_extract(folder / "landing" / failure.replace(" ", "_"), rows)
    lake = folder / failure.replace(" ", "_")
    scratch = watch_scratch(folder, lake, f"scratch of {lake.name}")
    where = ["--lake", lake, "--run-date", FIRST, "--codebook", write_codebook(folder)]
    ended = commands("run", *where, "--extract", extract)
    scratch.finish()
    assert ended.code == code, ended.said
    assert "Traceback" not in ended.said
    found = Night(folder, lake, ended.said).search()
    assert {find.needle for find in found} & {*IDS, SPILLED} == set()
    assert {find.place for find in found if find.needle == KEY} == {
        str(path.relative_to(folder)) for path in folder.glob("*/restricted/keys/environment.key")
    }
    answers = {*ODD.values(), *ODD_CODES.values(), str(INCOME)}
    # The judged rows in the making, which go with the failed night.
    places = [find.place for find in found if find.needle in answers]
    assert [place for place in places if not (place.startswith("scratch") and ".parquet" in place)] == []
    assert list((lake / "restricted" / "staging").iterdir()) == []
    assert [path for path in lake.rglob("*.parquet") if path.is_file()] == []


@pytest.mark.slow
def test_a_night_that_fails_in_airflow_tells_nothing(tmp_path: Path) -> None:
    _, values, share = FAILURES["unknown codes"]
    rows = spoil_column(plant(simulate_rows(6, FIRST, EXTRACT_PEOPLE)), values, share)
    code, night = run_airflow(tmp_path, write_extract(tmp_path / "landing", rows), write_codebook(tmp_path))
    assert code != 0
    assert "ended with exit code 4" in night.said
    found = night.search(apart_from=("scratch/",))
    assert found == {Find(KEY, "lake/restricted/keys/environment.key")}
    assert search_tree(tmp_path / "scratch", list_needles()) == {
        find
        for find in search_tree(tmp_path / "scratch", list_needles())
        if ".parquet" in find.place and find.needle not in (KEY, *IDS)
    }
