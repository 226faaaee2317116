"""Whole nights through Airflow, Spark and the model, as `make run` makes them."""

import os
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.dags.conftest import PROJECT

PEOPLE = 2000


def make_run(lake: Path, extract: Path, run_date: str) -> tuple[int, str]:
    """One night's exit code and Airflow's log. The make that runs the tests must not hand its own flags down."""
    foreign = ("MAKE", "MFLAGS", "MINDCENSUS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    variables = [f"LAKE={lake}", f"EXTRACT={extract}", f"RUN_DATE={run_date}"]
    done = subprocess.run(["make", "run", *variables], cwd=PROJECT, env=environment, capture_output=True, check=False)
    return done.returncode, (PROJECT / ".airflow" / f"night-{run_date}.log").read_text()


def started(log: str) -> list[str]:
    return [line.split("task_id=")[1].split()[0] for line in log.splitlines() if "[DAG TEST] starting" in line]


@pytest.mark.slow
def test_two_nights_and_one_without_an_extract(tmp_path):
    lake, extract = tmp_path / "a lake", tmp_path / "an extract"
    demo = ["mindcensus", "demo", "--people", str(PEOPLE), "--run-date", "2026-01-01", "--out", str(extract)]
    subprocess.run(demo, check=True, capture_output=True)

    code, log = make_run(lake, extract, "2026-01-01")
    assert code == 0, log[-3000:]
    first = "wait_for_extract validate preprocess training.decide training.train score aggregate report publish"
    assert started(log) == first.split()

    code, log = make_run(lake, extract, "2026-01-02")
    assert code == 0, log[-3000:]
    assert started(log) == first.replace("training.train", "training.keep_model").split()

    code, log = make_run(lake, tmp_path / "nowhere", "2026-01-03")
    assert code != 0
    assert started(log) == ["wait_for_extract", "validate"]  # once: a missing file is not tried again
    assert "AirflowFailException" in log

    with duckdb.connect(str(lake / "public" / "catalog.duckdb"), read_only=True) as catalog:
        dates = catalog.sql("SELECT DISTINCT run_date::VARCHAR FROM cohorts ORDER BY 1").fetchall()
    assert dates == [("2026-01-01",), ("2026-01-02",)]
