import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.catalog import explanations_index, write_catalog
from jobs.errors import StageError

READER = """
import sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    for _ in sys.stdin:
        print(connection.execute("SELECT count(*), max(n) FROM cohorts").fetchone(), flush=True)
"""


def make_night(root: Path, run_date: str, token: int, **tables: dict[str, list[Any]]) -> dict[str, Any]:
    """Writes one file a table and returns the manifest that names them."""
    named = {}
    for table, columns in tables.items():
        zone = "public" if table in ("cohorts", "quality") else "restricted"
        folder = root / zone / table / f"run_date={run_date}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{token:08d}-00000.parquet"
        pq.write_table(pa.table(columns), file)
        named[table] = [{"path": str(file.relative_to(root)), "rows": len(next(iter(columns.values()))), "size": 1}]
    stages = {"train": {"tables": {}, "details": {"model_version": f"m{token}"}}, "aggregate": {"tables": named}}
    return {"run_date": run_date, "token": token, "stages": stages}


def ask(zone: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(zone / "catalog.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "it's [a] lake*"  # quotes and patterns in a path mean themselves
    for zone in ("public", "restricted"):
        (root / zone).mkdir(parents=True)
    return root


def test_views_hold_all_nights_and_latest_the_last(root: Path) -> None:
    nights = [
        make_night(root, "2024-01-01", 1, cohorts={"n": [10, 20]}),
        make_night(root, "2024-01-02", 3, cohorts={"n": [30], "added": ["new column"]}),
    ]
    write_catalog(root / "public", nights)
    assert ask(root / "public", "SELECT run_date::VARCHAR, n, added FROM cohorts ORDER BY n") == [
        ("2024-01-01", 10, None),
        ("2024-01-01", 20, None),
        ("2024-01-02", 30, "new column"),
    ]
    assert ask(root / "public", "SELECT n FROM cohorts_latest") == [(30,)]
    assert ask(root / "public", "SELECT typeof(run_date) FROM cohorts_latest") == [("DATE",)]


def test_unpublished_files_are_not_seen(root: Path) -> None:
    published = make_night(root, "2024-01-01", 2, cohorts={"n": [10]})
    make_night(root, "2024-01-01", 1, cohorts={"n": [99]})
    write_catalog(root / "public", [published])
    assert ask(root / "public", "SELECT n FROM cohorts") == [(10,)]


def test_a_table_without_files_has_no_view(root: Path) -> None:
    write_catalog(root / "restricted", [make_night(root, "2024-01-01", 1, features={"sex": ["men"]})])
    assert ask(root / "restricted", "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1") == [
        ("features",),
        ("features_latest",),
    ]


def test_latest_is_empty_where_the_last_night_wrote_nothing(root: Path) -> None:
    nights = [
        make_night(root, "2024-01-01", 1, quarantine={"failed_rules": [["age_range"]]}),
        make_night(root, "2024-01-02", 2),
    ]
    write_catalog(root / "restricted", nights)
    assert ask(root / "restricted", "SELECT failed_rules FROM quarantine_latest") == []
    assert ask(root / "restricted", "SELECT failed_rules FROM quarantine") == [(["age_range"],)]


def test_nights_counts_exactly_inside_and_rounded_outside(root: Path) -> None:
    quality = {"stage": ["delivered", "quarantined", "quarantined"], "reason": [None, None, "age_range"]}
    night = make_night(
        root, "2024-01-01", 7, features={"sex": ["men", "women"]}, quality={**quality, "rows": [5, None, None]}
    )
    for zone in ("public", "restricted"):
        write_catalog(root / zone, [night])
    assert ask(root / "public", "SELECT token, model_version, delivered, quarantined, features FROM nights") == [
        (7, "m7", 5, None, None)
    ]
    assert ask(root / "restricted", "SELECT run_date::VARCHAR, features FROM nights") == [("2024-01-01", 2)]


def write_explanations(root: Path, run_date: str, token: int, moved: list[float]) -> Path:
    """Explanations of a night, as they are made on request: a file, and the index that names it."""
    index = explanations_index(root, run_date, token)
    index.parent.mkdir(parents=True, exist_ok=True)
    file = index.with_name(f"{token:08d}-00000.parquet")
    pq.write_table(pa.table({"moved": moved}), file)
    index.write_text(json.dumps({"files": [{"path": str(file.relative_to(root))}]}))
    return file


def test_explanations_are_of_the_night_in_force_and_in_the_restricted_zone_alone(root: Path) -> None:
    views = "SELECT view_name FROM duckdb_views() WHERE view_name LIKE 'explanations%' ORDER BY 1"
    first, second = make_night(root, "2024-01-01", 1), make_night(root, "2024-01-02", 2)
    file = write_explanations(root, "2024-01-01", 1, [0.5])
    for zone, shown in (("restricted", [("explanations",), ("explanations_latest",)]), ("public", [])):
        write_catalog(root / zone, [first, second])
        assert ask(root / zone, views) == shown
    assert ask(root / "restricted", "SELECT run_date::VARCHAR, moved FROM explanations") == [("2024-01-01", 0.5)]
    assert ask(root / "restricted", "FROM explanations_latest") == [], "nobody asked for the last night's"
    # A night that supersedes another has none until it is asked; where a file has gone, all are.
    write_catalog(root / "restricted", [make_night(root, "2024-01-01", 3), second])
    assert ask(root / "restricted", views) == []
    file.unlink()
    write_catalog(root / "restricted", [first, second])
    assert ask(root / "restricted", views) == []


def test_no_nights_yet(root: Path) -> None:
    write_catalog(root / "public", [])
    assert ask(root / "public", "SELECT * FROM nights") == []


def test_a_missing_file_is_named_and_the_old_catalog_stays(root: Path) -> None:
    night = make_night(root, "2024-01-01", 1, cohorts={"n": [10]})
    write_catalog(root / "public", [night])
    before = (root / "public" / "catalog.duckdb").read_bytes()
    (root / night["stages"]["aggregate"]["tables"]["cohorts"][0]["path"]).unlink()
    with pytest.raises(StageError, match=r"00000001-00000.parquet is missing.*2024-01-01"):
        write_catalog(root / "public", [night])
    assert (root / "public" / "catalog.duckdb").read_bytes() == before


def test_only_the_owner_reads_the_restricted_catalog_and_nothing_is_left_over(root: Path) -> None:
    for zone, mode in (("public", 0o644), ("restricted", 0o600)):
        write_catalog(root / zone, [])
        assert [file.name for file in (root / zone).iterdir()] == ["catalog.duckdb"]
        assert (root / zone / "catalog.duckdb").stat().st_mode & 0o777 == mode


def test_the_catalog_is_of_the_oldest_storage_version(root: Path) -> None:
    write_catalog(root / "public", [])
    with (root / "public" / "catalog.duckdb").open("rb") as file:
        header = file.read(20)
    # The format's number follows the checksum and the magic word; clients of version 1.0 read up to 64.
    assert (header[8:12], int.from_bytes(header[12:20], "little")) == (b"DUCK", 64)


def test_an_open_reader_keeps_its_catalog_while_a_new_one_takes_its_place(root: Path) -> None:
    first = make_night(root, "2024-01-01", 1, cohorts={"n": [10]})
    write_catalog(root / "public", [first])
    command = [sys.executable, "-c", READER, str(root / "public" / "catalog.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin and reader.stdout
        answers = []
        for replaced in (False, True):
            if replaced:
                write_catalog(root / "public", [first, make_night(root, "2024-01-02", 2, cohorts={"n": [20]})])
            reader.stdin.write("\n")
            reader.stdin.flush()
            answers.append(reader.stdout.readline().strip())
        reader.stdin.close()
    assert answers == ["(1, 10)", "(1, 10)"]
    assert ask(root / "public", "SELECT count(*), max(n) FROM cohorts") == [(2, 20)]
