"""From a figure to its night's release, codebook, model and code."""

import csv
from pathlib import Path

import duckdb
import pytest

from jobs.catalog import write_catalog
from jobs.cli import main
from jobs.provenance import NIGHT_TYPES, describe_night, hash_code, list_files, name_figure
from tests.jobs.test_catalog import make_night

pytestmark = pytest.mark.usefixtures("own_logs")


def make_known_night(root: Path) -> dict[str, object]:
    night = make_night(root, "2024-01-02", 7, cohorts={"n": [10]}, features={"mood": [1]})
    for file in night["stages"]["aggregate"]["tables"]["cohorts"]:
        file["sha256"] = "f1" * 32
    night["codebook"] = {"name": "pocket", "version": 3, "sha256": "b0" * 32}
    night["stages"]["report"] = {"tables": {}, "details": {"report": "public/reports/run_date=2024-01-02/7.html"}}
    return {**night, "mindcensus": "0.1.0", "code_sha256": "c0" * 32}


def test_the_nights_of_both_catalogs_name_release_codebook_model_and_code(tmp_path: Path) -> None:
    night = make_known_night(tmp_path)
    for zone in ("public", "restricted"):
        (tmp_path / zone).mkdir(exist_ok=True)
        write_catalog(tmp_path / zone, [night])
        with duckdb.connect(str(tmp_path / zone / "catalog.duckdb"), read_only=True) as connection:
            row = connection.execute(f"SELECT {', '.join(list(NIGHT_TYPES)[1:])} FROM nights").fetchone()
        assert row == tuple(list(describe_night(night).values())[1:])
    assert describe_night(night) == {
        "run_date": "2024-01-02",
        "token": 7,
        "manifest": "runs/run_date=2024-01-02/00000007.json",
        "report": "reports/run_date=2024-01-02/7.html",
        "codebook": "pocket",
        "codebook_version": 3,
        "codebook_sha256": "b0" * 32,
        "model_version": "m7",
        "model_series": None,
        "mindcensus": "0.1.0",
        "code_sha256": "c0" * 32,
    }


def test_the_list_of_files_has_public_tables_alone_by_paths_in_their_zone(tmp_path: Path) -> None:
    (row,) = csv.DictReader(list_files([make_known_night(tmp_path)], ["cohorts", "quality"]).splitlines())
    assert (tmp_path / "public" / row["path"]).is_file()
    assert (row["table"], row["rows"], row["sha256"]) == ("cohorts", "1", "f1" * 32)
    assert row["manifest"] == "runs/run_date=2024-01-02/00000007.json" and row["model_series"] == ""


def test_a_figure_has_a_name_of_its_own_that_fits_an_anchor() -> None:
    assert name_figure("phq9_ge10", "proportion", {}) == "phq9_ge10.proportion.all"
    cell = {"sex": "men", "employment": "not in labour force"}
    assert name_figure("phq9_ge10", "total", cell) == "phq9_ge10.total.sex=men.employment=not_in_labour_force"


def test_an_installation_tells_its_version_and_digest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert hash_code() in capsys.readouterr().out
