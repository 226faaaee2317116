"""A stage killed at any moment and run again ends like one that nobody disturbed, and readers notice nothing."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import (
    SECOND,
    STAGES,
    CommandLine,
    read_manifest,
    read_view,
    simulate_rows,
    start,
    write_extract,
)

VIEWS = {
    "public": ("cohorts", "cohorts_latest", "quality", "quality_latest", "distributions", "nights"),
    "restricted": ("accepted", "quarantine", "design", "features", "profiles", "profiles_latest", "cohorts_internal"),
}
# A few moments in every run of the tests, several of every stage in the long one.
QUICK = [("score", "driver", 1), *(("publish", "all", seed) for seed in range(1, 5))]
SLOW = [(stage, seed) for stage in STAGES for seed in range(1, 20 if stage == "publish" else 5)]
AFTER_THE_MANIFEST = 0.7  # share of publish's kills: most of what can go wrong is there
MARK = "MINDCENSUS_TEST_KILL"
Counts = tuple[tuple[str, int], ...]


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
    night.ending = describe_ending(night.lake)
    return night


def count_rows(lake: Path, zone: str) -> Counts:
    with duckdb.connect(str(lake / zone / "catalog.duckdb"), read_only=True) as connection:
        counted = [connection.execute(f"SELECT count(*) FROM {view}").fetchone() for view in VIEWS[zone]]
    return tuple((view, row[0]) for view, row in zip(VIEWS[zone], counted, strict=True) if row)


def describe_ending(lake: Path) -> dict[str, Any]:
    """All rows of the lake, the report, and the manifest: apart from tokens, timings and what is made of them."""
    people = {view: read_view(lake, zone, view) for zone, views in VIEWS.items() for view in views if view != "nights"}
    manifest = read_manifest(lake, SECOND)
    page = (lake / manifest["stages"]["report"].pop("details")["report"]).read_text()
    report = page.replace(f"{manifest['token']:08d}", "TOKEN")
    return people | {"report": report, **flatten(_forget_token(manifest, f"{manifest['token']:08d}"))}


def flatten(value: Any, path: str = "manifest") -> dict[str, Any]:
    """One entry a leaf, so that a difference names its place."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in parts for name, leaf in flatten(part, f"{path}.{key}").items()}
    return {path: value}


def _forget_token(value: Any, token: str) -> Any:
    if isinstance(value, dict):
        # `inputs` digest the files' names, and a name begins with the token.
        dropped = ("token", "seconds", "inputs")
        return {name: _forget_token(part, token) for name, part in value.items() if name not in dropped}
    if isinstance(value, list):
        return [_forget_token(part, token) for part in value]
    return value.replace(token, "TOKEN") if isinstance(value, str) else value


class Reader(threading.Thread):
    """Counts the rows of every view again and again, by new connections, as dashboards would."""

    def __init__(self, lake: Path) -> None:
        super().__init__(daemon=True)
        self._lake, self._ended, self._rounds = lake, threading.Event(), 0
        self.seen: dict[str, list[Counts]] = {zone: [] for zone in VIEWS}
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            for zone, seen in self.seen.items():
                try:
                    counted = count_rows(self._lake, zone)
                except duckdb.Error as error:
                    self.errors.append(str(error))
                    continue
                if not seen or seen[-1] != counted:
                    seen.append(counted)
            self._rounds += 1
            self._ended.wait(0.02)

    def catch_up(self) -> None:
        """Until it has counted everything once more: the round that is under way may have begun before."""
        wanted = self._rounds + 2
        while self._rounds < wanted and self.is_alive():
            time.sleep(0.01)

    def finish(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def reading(lake: Path) -> Iterator[Reader]:
    reader = Reader(lake)
    reader.start()
    try:
        yield reader
    finally:
        reader.finish()


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
    lock = (lake / "restricted" / "lock").stat()
    held = f":{lock.st_ino} "
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        rows = [row for row in Path("/proc/locks").read_text().splitlines() if held in row and str(process.pid) in row]
        if rows:
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
    ending = describe_ending(night.lake)
    differing = [name for name in {**ending, **night.ending} if ending.get(name) != night.ending.get(name)]
    assert differing == []
    check_nothing_left(night.lake, mark)


def check_nothing_left(lake: Path, mark: str) -> None:
    """No process, no staging, no scratch, and no data file that no manifest names."""
    deadline = time.monotonic() + 20
    while (left := find_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == [], "orphaned processes"
    assert list((lake / "restricted" / "staging").iterdir()) == []
    # Of the process that is still warm there may be folders, but no files.
    assert [path for path in (lake / "restricted" / "spark").rglob("*") if not path.is_dir()] == []
    assert [path for path in lake.rglob(".*.tmp") if path.name != ".tmp"] == []
    manifests = [read_manifest(lake, folder.name.removeprefix("run_date=")) for folder in list_nights(lake)]
    named = {f["path"] for m in manifests for s in m["stages"].values() for fs in s["tables"].values() for f in fs}
    assert {str(path.relative_to(lake)) for path in lake.rglob("*.parquet")} == named
    reports = {m["stages"]["report"]["details"]["report"] for m in manifests}
    assert {str(path.relative_to(lake)) for path in lake.rglob("reports/run_date=*/*.html")} == reports


def list_nights(lake: Path) -> list[Path]:
    return sorted((lake / "restricted" / "runs").iterdir())


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
