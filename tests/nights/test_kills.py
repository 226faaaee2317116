"""A stage killed at any moment and run again ends like one that nobody disturbed, and readers notice nothing."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endings import VIEWS, Counts, count_rows, describe_ending, find_differences, find_left, reading
from jobs.lease import read_holder
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import (
    SECOND,
    STAGES,
    CommandLine,
    simulate_rows,
    start,
    write_extract,
)

# A few moments in every run of the tests, several of every stage in the long one.
QUICK = [("score", "driver", 1), *(("publish", "all", seed) for seed in range(1, 5))]
SLOW = [(stage, seed) for stage in STAGES for seed in range(1, 20 if stage == "publish" else 5)]
AFTER_THE_MANIFEST = 0.7  # share of publish's kills: most of what can go wrong is there
MARK = "MINDCENSUS_TEST_KILL"


@dataclass
class Undisturbed:
    """The second night, run without a kill: what it ends in, how long each stage takes, and the lake before each."""

    lake: Path
    book: Path
    extract: Path
    before: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    old_counts: dict[str, Counts] = field(default_factory=dict)
    ending: dict[str, Any] = field(default_factory=dict)

    def arguments(self, stage: str) -> list[object]:
        where = ["--lake", self.lake, "--run-date", SECOND, "--codebook", self.book]
        return [stage, *where, *(["--extract", self.extract] if stage == "validate" else [])]


@pytest.fixture(scope="module")
def undisturbed(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    extract = write_extract(folder / SECOND, simulate_rows(2, SECOND))
    night = Undisturbed(copy_lake(folder), small_night.book, extract)
    night.old_counts = {zone: count_rows(night.lake, zone) for zone in VIEWS}
    for stage in STAGES:
        night.before[stage] = folder / f"before_{stage}"
        shutil.copytree(night.lake, night.before[stage])
        begun = time.monotonic()
        # The training comes anew, as the longest of the stages that write outside the night's folder.
        ended = commands(*night.arguments(stage), *(["--force-retrain"] if stage == "train" else []))
        night.seconds[stage] = time.monotonic() - begun
        assert ended.code == 0, ended.said
    night.counts = {zone: count_rows(night.lake, zone) for zone in VIEWS}
    night.ending = describe_ending(night.lake, SECOND)
    return night


def find_processes(mark: str) -> list[int]:
    """Every process that was started, by however many others, with this mark in its environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                marked = f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes()
                alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            except OSError:
                continue
            if marked and alive:
                found.append(int(folder.name))
    return found


def kill_everything(process: "subprocess.Popen[str]", mark: str) -> None:
    """The driver's process group first, then what is in groups of its own: Spark's Python daemon and its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    for pid in find_processes(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_driver(process: "subprocess.Popen[str]", mark: str) -> None:
    os.kill(process.pid, signal.SIGKILL)


KILLS: dict[str, Callable[["subprocess.Popen[str]", str], None]] = {"all": kill_everything, "driver": kill_driver}


def run_and_kill(night: Undisturbed, stage: str, how: str, moment: random.Random, mark: str) -> None:
    """Starts the stage in a process of its own and kills it at a random moment of its work."""
    more = ["--force-retrain"] if stage == "train" else []
    process = start(*night.arguments(stage), *more, **{MARK: mark})
    assert process.stdout is not None
    threading.Thread(target=process.stdout.read, daemon=True).start()
    wait_for_stage(process, night.lake)
    if stage == "publish" and moment.random() < AFTER_THE_MANIFEST:
        wait_for_manifest(process, night.lake)
        time.sleep(moment.uniform(0, night.seconds[stage]))
    else:
        # A cold process takes longer than the warm one that was timed.
        time.sleep(moment.uniform(0, 2 * night.seconds[stage]))
    KILLS[how](process, mark)
    process.wait(30)


def wait_for_stage(process: "subprocess.Popen[str]", lake: Path) -> None:
    """Until the process holds the lake: before that it only imports."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        holder = read_holder(lake / "restricted" / "leases")
        if holder and holder.pid == process.pid:
            return
        time.sleep(0.01)


def wait_for_manifest(process: "subprocess.Popen[str]", lake: Path) -> None:
    folder = lake / "restricted" / "runs" / f"run_date={SECOND}"
    while process.poll() is None and not list(folder.glob("[0-9]*.json")):
        time.sleep(0.001)


def check_kill(night: Undisturbed, commands: CommandLine, stage: str, how: str, seed: int) -> None:
    moment = random.Random(f"{stage} {how} {seed}")
    shutil.rmtree(night.lake)
    shutil.copytree(night.before[stage], night.lake)
    mark = f"{stage}-{how}-{seed}-{os.getpid()}"
    with reading(night.lake) as reader:
        run_and_kill(night, stage, how, moment, mark)
        for following in STAGES[STAGES.index(stage) :]:
            if following == "publish" and stage != "publish":
                # Nothing of the night can be read until now.
                reader.catch_up()
                for zone, seen in reader.seen.items():
                    assert seen == [night.old_counts[zone]], zone
            more = ["--force-retrain"] if following == "train" else []
            ended = commands(*night.arguments(following), *more)
            assert ended.code == 0, ended.said
        reader.catch_up()
    assert reader.errors == []
    for zone, seen in reader.seen.items():
        assert seen == [night.old_counts[zone], night.counts[zone]], zone
    assert find_differences(describe_ending(night.lake, SECOND), night.ending) == []
    check_nothing_left(night.lake, mark)


def check_nothing_left(lake: Path, mark: str) -> None:
    """No process, no staging, no scratch, and no data file that no manifest names."""
    deadline = time.monotonic() + 20
    while (left := find_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == [], "orphaned processes"
    assert find_left(lake) == []


@pytest.mark.parametrize(("stage", "how", "seed"), QUICK)
def test_a_killed_stage_run_again(
    undisturbed: Undisturbed, commands: CommandLine, stage: str, how: str, seed: int
) -> None:
    check_kill(undisturbed, commands, stage, how, seed)


@pytest.mark.slow
@pytest.mark.parametrize("how", KILLS)
@pytest.mark.parametrize(("stage", "seed"), SLOW)
def test_every_stage_killed_at_several_moments(
    undisturbed: Undisturbed, commands: CommandLine, stage: str, how: str, seed: int
) -> None:
    check_kill(undisturbed, commands, stage, how, seed)
