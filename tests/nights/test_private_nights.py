"""Nights whose releases are differentially private: what they say, when they stop, and what they never stand beside."""

import json
from pathlib import Path

import duckdb
import pytest

from benchmarks.endings import read_manifest, read_view
from expectations.codebook import read_codebook
from jobs.lake import Lake
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import FIRST, SECOND, THIRD, CommandLine
from tests.nights.test_internal_nights import open_again, read_public

ONE_RELEASE = "disclosure: {dp: {epsilon: 2, budget: 2, weights: 5, design_effect: 1.5}}\n"
WITHHELD = ("mood_p50", "mood_total_per_sleep_total", "distress_mean", "sleeplessness_mean")


@pytest.fixture
def private(small_night: SmallNight, tmp_path: Path) -> Path:
    book = tmp_path / "private.yaml"
    book.write_text(small_night.book.read_text() + ONE_RELEASE)
    return book


def make_internal(lake: Path) -> None:
    """The first night as one that was never released."""
    [file] = (lake / "restricted" / "runs" / f"run_date={FIRST}").glob("[0-9]*.json")
    manifest = json.loads(file.read_text())
    manifest["release"] = {"public": False, "why": "none yet", "next_possible": None}
    file.write_text(json.dumps(manifest))


def test_the_second_release_is_not_made_where_the_budget_has_one(
    private: Path, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    root = copy_lake(tmp_path)
    make_internal(root)
    _, sha256 = read_codebook(str(private))

    def run_night(run_date: str) -> str:
        open_again(Lake(root), run_date, sha256)
        said = ""
        for stage in ("aggregate", "report", "publish"):
            ended = commands(stage, "--lake", root, "--run-date", run_date, "--codebook", private)
            assert ended.code == 0, ended.said
            said += ended.said
        return said

    run_night(SECOND)
    manifest = read_manifest(root, SECOND)
    assert manifest["release"]["privacy"]["epsilon"] == "2.0"
    assert manifest["stages"]["aggregate"]["tables"].keys() == {
        *("cohort_sums", "cohorts_internal", "cohorts", "quality", "distributions"),
    }
    cohorts = [dict(zip(columns(root, "cohorts"), row, strict=True)) for row in read_view(root, "public", "cohorts")]
    told = {row["outcome"] for row in cohorts if row["estimate"] is not None}
    assert told == {"mood_total", "mood_ge5", "sleep_total"}
    assert {row["disclosure"] for row in cohorts if row["outcome"] in WITHHELD} == {"suppressed"}
    assert all(row["noise_se"] > 0 for row in cohorts if row["estimate"] is not None)
    assert {(row["df"], row["deff"], row["since"]) for row in cohorts} == {(None, None, None)}
    [file] = (root / "public" / "runs" / f"run_date={SECOND}").glob("*.json")
    public = json.loads(file.read_text())
    assert set(public["rows"].values()) == {None}
    assert (public["model_version"], public["model_series"], public["release"]["digest"]) == (None, None, None)
    assert all(row[3] is None for row in read_view(root, "public", "quality"))
    model = manifest["model"]["model_version"]
    [report] = (root / "public" / "reports").glob("latest.html")
    assert model not in report.read_text() and model not in (root / "public" / "files.csv").read_text()

    before = read_public(root)
    assert "release: internal" in run_night(THIRD)
    assert read_manifest(root, THIRD)["release"]["why"].startswith("the privacy budget is spent")
    assert read_public(root) == before
    ended = commands("audit-release", "--lake", root, "--run-date", SECOND)
    assert ended.code == 0 and "epsilon 2.0" in ended.said


def columns(lake: Path, view: str) -> list[str]:
    with duckdb.connect(str(lake / "public" / "catalog.duckdb"), read_only=True) as connection:
        return [column[0] for column in connection.execute(f"FROM {view} LIMIT 0").description]


def test_noise_and_suppression_do_not_share_a_lake(
    private: Path, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    root = copy_lake(tmp_path)
    open_again(Lake(root), SECOND, read_codebook(str(private))[1])
    ended = commands("aggregate", "--lake", root, "--run-date", SECOND, "--codebook", private)
    assert ended.code == 3
    assert f"beside a release by suppression of the same people ({FIRST})" in ended.said
