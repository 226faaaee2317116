"""A night that the release calendar keeps internal: everything restricted is there, and nothing public has changed."""

import hashlib
from dataclasses import replace
from datetime import date
from pathlib import Path

from benchmarks.endings import read_manifest, read_view
from expectations.codebook import read_codebook
from jobs.earlier import find_last
from jobs.job import Job
from jobs.lake import PUBLIC_TABLES, Lake, Night, StageRecord
from jobs.release_calendar import CORRECTION, decide_release
from jobs.releases import read_earlier
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import FIRST, SECOND, THIRD, CommandLine

CALENDAR = "disclosure: {calendar: {least_days: 7, least_change: 3}}\n"
LATER = "2026-03-20"


def open_again(lake: Lake, run_date: str, sha256: str) -> Night:
    """A night of another date with the first one's people, as if they had been delivered again."""
    made: dict[str, StageRecord] = {}
    for stage in ("validate", "preprocess", "train", "score"):
        record = StageRecord.from_json(read_manifest(lake.root, FIRST)["stages"][stage])
        if stage == "validate":
            codebook = {**record.details["codebook"], "sha256": sha256}
            record = replace(record, details={**record.details, "codebook": codebook})
        made[stage] = replace(record, inputs={name: made[name].digest() for name in record.inputs})
    return lake.open_night(date.fromisoformat(run_date), made.values())


def read_public(lake: Path) -> dict[str, str]:
    """What a reader of public/ sees: its files but for the catalog, and the catalog's answers."""
    files = [file for file in sorted((lake / "public").rglob("*")) if file.name != "catalog.duckdb"]
    seen = {
        str(file.relative_to(lake)): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        for file in files
    }
    views = ("nights", *(f"{table}{which}" for table in PUBLIC_TABLES for which in ("", "_latest")))
    return seen | {view: str(read_view(lake, "public", view)) for view in views}


def test_a_night_too_soon_stays_internal(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    root = copy_lake(tmp_path)
    book_file = tmp_path / "calendar.yaml"
    book_file.write_text(small_night.book.read_text() + CALENDAR)
    book, sha256 = read_codebook(str(book_file))
    lake, before = Lake(root), read_public(root)

    open_again(lake, SECOND, sha256)
    for stage in ("aggregate", "report", "publish"):
        ended = commands(stage, "--lake", root, "--run-date", SECOND, "--codebook", book_file)
        assert ended.code == 0, ended.said
    assert "release: internal, next possible on 2026-03-08" in ended.said
    why = f"fewer than 7 days lie between it and the public release of {FIRST}"
    manifest = read_manifest(root, SECOND)
    assert manifest["release"] == {"public": False, "why": why, "next_possible": "2026-03-08"}
    assert manifest["stages"]["aggregate"]["tables"].keys() == {"cohort_sums", "cohorts_internal"}
    assert read_public(root) == before
    nights = {row[0]: row[2:4] for row in read_view(root, "restricted", "nights")}
    assert nights[date.fromisoformat(SECOND)] == (None, None)
    dates = {row[-1] for row in read_view(root, "restricted", "cohorts_internal")}
    assert dates == {date.fromisoformat(FIRST), date.fromisoformat(SECOND)}
    # Publishing again, and an audit, find the night as it is.
    ended = commands("publish", "--lake", root, "--run-date", SECOND, "--codebook", book_file)
    assert ended.code == 0 and read_public(root) == before
    ended = commands("audit-release", "--lake", root, "--run-date", SECOND)
    assert ended.code == 1 and f"the night of {SECOND} stayed internal" in ended.said

    # The nights after it see the first one alone, with which nothing has changed since.
    def job(run_date: str) -> Job:
        return Job(lake, open_again(lake, run_date, sha256), book, sha256)

    later = job(LATER)
    profiles = later.night.paths("score", "profiles")
    last = find_last(later)
    assert last is not None and last.survey.run_date == date.fromisoformat(FIRST)
    assert [one.run_date for one in read_earlier(lake, later.night.token, book, profiles, tmp_path)] == [FIRST]
    decision = decide_release(later)
    assert decision.why == f"fewer than 3 people came, left or answered anew since the public release of {FIRST}"
    assert (decision.public, decision.next_possible) == (False, date(2026, 3, 21))
    without = book.model_copy(update={"disclosure": book.disclosure.model_copy(update={"calendar": None})})
    assert decide_release(replace(later, book=without)).public
    assert not decide_release(job(THIRD)).public
    assert decide_release(job(FIRST)).why == CORRECTION
