"""Nights that several tests share: a published small lake, and a warm process that runs commands on copies of it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
def small_night(tmp_path_factory: pytest.TempPathFactory) -> SmallNight:
    folder = tmp_path_factory.mktemp("small_night")
    night = SmallNight(folder / "lake", write_codebook(folder), write_extract(folder / FIRST, simulate_rows(1, FIRST)))
    ended = run("run", "--lake", night.lake, "--run-date", FIRST, "--codebook", night.book, "--extract", night.extract)
    assert ended.code == 0, ended.said
    return night


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
