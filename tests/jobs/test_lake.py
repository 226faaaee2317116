"""The lake: whose turn it is, what is in the making, and what a manifest makes real."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import LakeHeld, StageError
from jobs.lake import DataFile, Lake, StageRecord, write_atomically
from jobs.publish import build_manifest

DAY = date(2026, 1, 1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    return lake


def test_people_are_for_the_owner_alone(lake: Lake) -> None:
    assert lake.restricted.stat().st_mode & 0o777 == 0o700
    assert lake.public.stat().st_mode & 0o777 == 0o755


def test_two_processes_never_hold_the_lake_together(lake: Lake) -> None:
    holder = f"""
import sys
from pathlib import Path
from jobs.lake import Lake
with Lake(Path({str(lake.root)!r})).hold():
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(LakeHeld, match="another run holds the lake"), lake.hold():
        pass
    other.kill()  # a process that is seen to be gone holds nothing
    other.wait()
    with lake.hold():
        pass


def test_tokens_only_rise(lake: Lake) -> None:
    first, second = lake.open_night(DAY), lake.open_night(DAY)
    assert (first.token, second.token) == (1, 2)
    assert lake.current_night(DAY).token == 2
    for night in (first, second):
        (night.folder / "night.json").unlink()
        night.folder.rmdir()
    assert lake.open_night(DAY).token == 3


def test_a_date_that_nobody_opened_is_told(lake: Lake) -> None:
    with pytest.raises(StageError, match="no night of 2026-01-01 is in the making"):
        lake.current_night(DAY)


def test_a_stage_that_has_not_run_is_told(lake: Lake) -> None:
    with pytest.raises(StageError, match="score has not run for 2026-01-01"):
        lake.open_night(DAY).read("score")


def test_adopted_files_are_named_by_content(lake: Lake) -> None:
    night = lake.open_night(DAY)
    file = night.scratch("stage") / "part-0.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), file)
    (adopted,) = night.adopt([file], "features")
    assert adopted.rows == 3
    assert adopted.path == f"restricted/features/run_date=2026-01-01/00000001-00000-{adopted.sha256[:16]}.parquet"
    assert (lake.root / adopted.path).stat().st_mode & 0o777 == 0o600


def test_a_record_comes_back_as_it_was_written(lake: Lake) -> None:
    night = lake.open_night(DAY)
    record = StageRecord("score", {"train": "x"}, {"profiles": (DataFile("p", 1, 2, "s"),)}, {"profiles": 1}, {"a": 1})
    night.write(record)
    assert night.read("score") == record


def test_the_digest_is_of_content_and_not_of_time() -> None:
    record = StageRecord("score", tables={"profiles": (DataFile("p", 1, 2, "s"),)}, seconds=1.0)
    later = StageRecord("score", tables={"profiles": (DataFile("p", 1, 2, "s"),)}, seconds=2.0)
    other = StageRecord("score", tables={"profiles": (DataFile("p", 1, 2, "t"),)}, seconds=1.0)
    assert record.digest() == later.digest() != other.digest()


def make_records(**changes: int) -> dict[str, StageRecord]:
    counts = {"delivered": 10, "accepted": 5, "quarantined": 2, "duplicates": 1, "ineligible": 2}
    features = changes.pop("features", 5)
    details = {"codebook": {"name": "small", "version": 1, "sha256": "0"}}
    return {
        "validate": StageRecord("validate", counts={**counts, **changes}, details=details),
        "preprocess": StageRecord("preprocess", counts={"features": features}),
        "train": StageRecord("train", details={"model_version": "m"}),
        "score": StageRecord("score", counts={"profiles": 5}),
    }


def test_the_sum_of_the_manifest_holds(lake: Lake) -> None:
    rows = build_manifest(lake.open_night(DAY), make_records())["rows"]
    assert rows["delivered"] == 10


@pytest.mark.parametrize("change", [{"delivered": 11}, {"features": 4}, {"quarantined": 1}, {"ineligible": 3}])
def test_a_lost_row_stops_the_night(lake: Lake, change: dict[str, int]) -> None:
    with pytest.raises(StageError, match="rows were lost or doubled"):
        build_manifest(lake.open_night(DAY), make_records(**change))


def test_an_atomic_write_leaves_the_old_file_where_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "a.json"
    file.parent.mkdir()
    write_atomically(file, "old")
    with pytest.raises(OSError):
        write_atomically(file.with_name("x" * 300), "new")
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    assert file.read_text() == "old"
