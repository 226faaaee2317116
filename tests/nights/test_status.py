"""`mindcensus status` on a real lake, and what failed and killed commands leave for it."""

import json
import os
import signal
from datetime import date
from pathlib import Path

import pytest

from benchmarks.endings import read_manifest
from jobs.attempts import read_attempts
from jobs.errors import DONE, FAILED, LATE
from jobs.lake import Lake
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import FIRST, SECOND, CommandLine, start


@pytest.fixture(scope="module")
def lake(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_lake(tmp_path_factory.mktemp("status"))


def test_a_published_night(commands: CommandLine, lake: Path) -> None:
    ended = commands("status", "--lake", lake, "--expect", FIRST, "--json")
    assert ended.code == DONE, ended.said
    told = json.loads(ended.said)
    manifest = read_manifest(lake, FIRST)
    assert told["state"] == "well"
    assert told["nights"][0]["rows"]["features"] == manifest["rows"]["features"]
    assert told["nights"][0]["set_aside"] == manifest["stages"]["validate"]["details"]["failed_rules"]
    assert (told["making"], told["failed"], told["holder"]) == ([], [], None)
    assert commands("status", "--lake", lake, "--expect", SECOND).code == LATE


def test_what_failed_is_told_until_something_ends_well(
    commands: CommandLine, small_night: SmallNight, lake: Path
) -> None:
    named = ("--lake", lake, "--run-date", SECOND, "--codebook", small_night.book)
    assert commands("validate", *named, "--extract", lake / "nowhere").code == 3
    ended = commands("status", "--lake", lake)
    assert ended.code == FAILED, ended.said
    said = " ".join(ended.said.split())  # as wide as a terminal
    assert "validate" in said and "exit code 3" in said and "no such file or folder" in said
    assert commands("publish", "--lake", lake, "--run-date", FIRST, "--codebook", small_night.book).code == DONE
    assert commands("status", "--lake", lake).code == DONE


def test_a_killed_command_is_told_from_one_at_work(small_night: SmallNight, lake: Path) -> None:
    codebook, extract = small_night.book, small_night.extract
    process = start("validate", "--lake", lake, "--run-date", SECOND, "--codebook", codebook, "--extract", extract)
    # Its first line comes once the night is open.
    assert process.stdout and "stage started" in process.stdout.readline()
    status = ["status", "--lake", lake]
    watching = start(*status, "--json")
    told = json.loads(watching.communicate(timeout=60)[0])
    assert told["state"] == "well" and told["holder"] and told["making"][0]["run_date"] == SECOND
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    attempt = read_attempts(Lake(lake))[-1]
    assert (attempt.run_date, attempt.stage, attempt.ended_at) == (SECOND, "validate", None)
    watching = start(*status, "--expect", str(date.fromisoformat(SECOND)))
    assert "it was killed" in " ".join(watching.communicate(timeout=60)[0].split())
    assert watching.returncode == FAILED
