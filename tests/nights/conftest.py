"""Nights that several tests share: a published small lake, and a warm process that runs commands on copies of it."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from jobs.lake import Lake
from tests.nights.small_night import FIRST, CommandLine, run, simulate_rows, write_codebook, write_extract

Copy = Callable[[Path], Path]


@dataclass(frozen=True)
class SmallNight:
    """A lake in which the first night is published: not to be changed, but to be copied."""

    lake: Path
    book: Path
    extract: Path


@pytest.fixture(scope="session")
def commands() -> Iterator[CommandLine]:
    line = CommandLine()
    yield line
    line.close()


@pytest.fixture(scope="session")
def small_night(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> SmallNight:
    """Made once for all processes of a test run: whoever comes first makes it, the others wait."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "small_night"
    folder.mkdir(exist_ok=True)
    night = SmallNight(folder / "lake", folder / "pocket.yaml", folder / FIRST)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            write_codebook(folder)
            write_extract(night.extract, simulate_rows(1, FIRST))
            named = ["--lake", night.lake, "--run-date", FIRST, "--codebook", night.book, "--extract", night.extract]
            ended = run("run", *named)
            assert ended.code == 0, ended.said
            (folder / "made").touch()
    return night


def repeat_night(lake: Lake, nights: int) -> None:
    """Publishes copies of the small lake's night on the days after it, until there are so many nights."""
    text = next(lake.restricted.glob(f"runs/run_date={FIRST}/*.json")).read_text()
    for back in range(1, nights):
        day = (date.fromisoformat(FIRST) + timedelta(days=back)).isoformat()
        moved = text.replace(f"run_date={FIRST}", f"run_date={day}")
        manifest = json.loads(moved) | {"run_date": day, "token": back + 1}
        named = [f["path"] for s in manifest["stages"].values() for files in s["tables"].values() for f in files]
        for path in (*named, manifest["stages"]["report"]["details"]["report"]):
            (lake.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(lake.root / path.replace(day, FIRST), lake.root / path)
        folder = lake.restricted / "runs" / f"run_date={day}"
        folder.mkdir()
        (folder / f"{back + 1:08d}.json").write_text(json.dumps(manifest))
    (lake.restricted / "token").write_text(str(nights))


@pytest.fixture(scope="session")
def copy_lake(small_night: SmallNight, commands: CommandLine) -> Copy:
    """Copies the small lake to a folder; publishing again gives the copy's catalogs its own paths."""

    def copy(folder: Path) -> Path:
        lake = folder / "lake"
        shutil.copytree(small_night.lake, lake)
        ended = commands("publish", "--lake", lake, "--run-date", FIRST, "--codebook", small_night.book)
        assert ended.code == 0, ended.said
        return lake

    return copy
