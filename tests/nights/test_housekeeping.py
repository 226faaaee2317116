"""Old nights' people go and what later nights need stays; a back-up is judged as if the lake were lost."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from benchmarks.endings import read_view
from jobs.lake import PEOPLE_TABLES, Lake
from jobs.retain import Removed, retain
from tests.nights.conftest import Copy, SmallNight, repeat_night
from tests.nights.small_night import FIRST, CommandLine

NIGHTS, KEPT = 14, 10  # the last ten are always kept: later releases are compared with them
TODAY = date.fromisoformat(FIRST) + timedelta(days=NIGHTS)


@pytest.fixture
def lake(copy_lake: Copy, tmp_path: Path) -> Lake:
    """A lake of as many nights, the first one's copies."""
    lake = Lake(copy_lake(tmp_path))
    repeat_night(lake, NIGHTS)
    return lake


def list_people(lake: Lake, day: str) -> list[Path]:
    return [file for table in PEOPLE_TABLES for file in lake.restricted.glob(f"{table}/run_date={day}/*.parquet")]


def test_people_of_old_nights_go(lake: Lake, commands: CommandLine, small_night: SmallNight) -> None:
    ended = commands("retain", "--lake", lake.root, "--run-date", TODAY + timedelta(days=31), "--keep-days", 31)
    assert ended.code == 0, ended.said
    told = json.loads(next(line for line in ended.said.splitlines() if "retained" in line))
    assert (told["nights"], told["given_up"]) == (NIGHTS - KEPT, 0)

    days = sorted({str(row[-1]) for row in read_view(lake.root, "restricted", "profiles")})
    assert days == [manifest["run_date"] for manifest in lake.manifests()][-KEPT:]
    assert list_people(lake, FIRST) == [] and list_people(lake, days[0]) != []
    estimates = {str(row[-1]) for row in read_view(lake.root, "restricted", "cohorts_internal")}
    assert len(estimates) == NIGHTS
    assert len(lake.manifests()) == NIGHTS

    # The night that went cannot be taken up again, and says why.
    where = ["--lake", lake.root, "--run-date", FIRST, "--codebook", small_night.book]
    for command in ("validate", "score", "explain"):
        ended = commands(command, *where)
        assert ended.code == 1 and f"people's tables of the night of {FIRST} were removed on" in ended.said

    # Broken off after the record was written, it is done again; done again, it does nothing.
    gone = lake.restricted / "features" / f"run_date={FIRST}"
    name = json.loads((lake.retired / "00000001.json").read_text())["files"][0]
    gone.mkdir(exist_ok=True)
    (lake.root / name).write_bytes(b"left")
    assert retain(lake, TODAY, 31) == Removed(1, 1, 4, 0)
    assert retain(lake, TODAY, 31) == Removed()


def test_a_stated_retention_counts_where_it_is_shorter(lake: Lake) -> None:
    (book,) = (lake.restricted / "codebooks").iterdir()
    book.write_text(book.read_text() + "purpose: {retention_days: 31}\n")
    removed = retain(lake, TODAY + timedelta(days=31), 400)
    assert (removed.nights, removed.overdue) == (NIGHTS - KEPT, KEPT)


def test_a_night_in_the_making_is_given_up_after_the_stated_days(lake: Lake) -> None:
    (book,) = (lake.restricted / "codebooks").iterdir()
    book.write_text(book.read_text() + "purpose: {retention_days: 31}\n")
    lake.open_night(date.fromisoformat(FIRST))
    assert retain(lake, TODAY + timedelta(days=31), 400).given_up == 1


def test_a_lake_is_kept_for_a_month_at_least(lake: Lake, commands: CommandLine) -> None:
    ended = commands("retain", "--lake", lake.root, "--run-date", TODAY, "--keep-days", 30)
    assert ended.code == 2 and "--keep-days 30" in ended.said


def test_a_night_that_was_never_published_is_given_up(lake: Lake) -> None:
    old, new = lake.open_night(date.fromisoformat(FIRST)), lake.open_night(TODAY)
    assert retain(lake, TODAY + timedelta(days=31), 40).given_up == 1
    assert (old.folder.exists(), new.folder.exists()) == (False, True)


def test_a_whole_back_up_would_do(lake: Lake, commands: CommandLine, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(lake.root, backup)
    shutil.rmtree(backup / "restricted" / "runs" / f"run_date={lake.manifests()[-1]['run_date']}")
    ended = commands("drill", "--backup", backup, "--lake", lake.root)
    assert ended.code == 0, ended.said
    told = json.loads(next(line for line in ended.said.splitlines() if "restored" in line))
    assert (told["nights"], told["behind"], told["last"]) == (NIGHTS - 1, 1, lake.manifests()[-2]["run_date"])
    assert not (lake.restricted / "drill").exists()


def harm(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("pattern", "change", "sentence"),
    [
        ("restricted/profiles/run_date=2026-03-05/*.parquet", Path.unlink, "profiles/run_date=2026-03-05"),
        ("public/cohorts/run_date=2026-03-05/*.parquet", harm, "is damaged"),
        ("restricted/models/*/weights.safetensors", harm, "weights.safetensors is damaged"),
        ("restricted/keys/*.key", Path.unlink, "the pseudonym key of its last night"),
        ("restricted/runs", shutil.rmtree, "is no back-up of a lake"),
    ],
)
def test_a_back_up_that_would_not_do(
    lake: Lake, commands: CommandLine, tmp_path: Path, pattern, change, sentence
) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(lake.root, backup)
    change(next(backup.glob(pattern)))
    ended = commands("drill", "--backup", backup, "--lake", lake.root)
    assert ended.code == 1 and sentence in ended.said
    assert not (lake.restricted / "drill").exists()


def test_an_empty_folder_is_no_back_up(lake: Lake, commands: CommandLine, tmp_path: Path) -> None:
    assert commands("drill", "--backup", tmp_path / "none", "--lake", lake.root).code == 1
