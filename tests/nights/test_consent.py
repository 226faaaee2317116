"""Who has not agreed is counted out by the real command, and nothing else of theirs is kept."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.lake import Lake
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import COLUMNS, SECOND, CommandLine, Ended, simulate_rows

CARE = """\
purpose: {use: care, lawful_basis: consent, retention_days: 400}
consent: {column: agreed, agreed: ["yes"], refused: ["no"]}
"""
REFUSING, SILENT = 7, 3
MARK = "zq-refused-58ac"  # of who refuses, where a code is wanted: a broken row, which quarantine would keep


def write_people(folder: Path, rows: list[list[Any]], codes: dict[int, str]) -> Path:
    folder.mkdir(parents=True)
    lines = [[*COLUMNS, "agreed"], *[[*row, codes.get(place, "yes")] for place, row in enumerate(rows)]]
    (folder / "people.csv").write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def book(small_night: SmallNight, tmp_path_factory: pytest.TempPathFactory) -> Path:
    book = tmp_path_factory.mktemp("consent") / "care.yaml"
    book.write_text(small_night.book.read_text().replace("version: 1", "version: 2") + CARE)
    return book


@pytest.fixture(scope="module")
def lake(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(copy_lake(tmp_path_factory.mktemp("consent_lake")))


def validate(commands: CommandLine, lake: Lake, book: Path, extract: Path) -> Ended:
    return commands("validate", "--lake", lake.root, "--run-date", SECOND, "--codebook", book, "--extract", extract)


def find_values(lake: Lake, value: str) -> list[Path]:
    """The files of the lake that hold the text, as bytes or as a value of a Parquet file."""
    found = []
    for file in (path for path in lake.root.rglob("*") if path.is_file()):
        is_table = file.suffix == ".parquet"
        values = str(pq.read_table(file, partitioning=None).to_pydict()) if is_table else ""
        if value.encode() in file.read_bytes() or value in values:
            found.append(file)
    return found


def test_who_has_not_agreed_is_counted_and_no_more(
    commands: CommandLine, lake: Lake, book: Path, tmp_path: Path
) -> None:
    rows = simulate_rows(2, SECOND)
    # Of the last people some have two rows, and a refusal on either of them counts.
    codes = dict.fromkeys(range(300, 300 + REFUSING), "no") | {200: "no"}
    codes |= dict.fromkeys(range(320, 320 + SILENT), "")
    rows[300][COLUMNS.index("region")] = MARK
    ended = validate(commands, lake, book, write_people(tmp_path / "people", rows, codes))
    assert ended.code == 0, ended.said
    record = json.loads((lake.open_nights()[0].folder / "validate.json").read_text())
    assert record["counts"] == {
        **{"delivered": len(rows), "withdrawn": REFUSING + SILENT + 2, "quarantined": 30, "ineligible": 60},
        **{"duplicates": 19, "accepted": len(rows) - REFUSING - SILENT - 2 - 30 - 60 - 19},
    }
    assert "region_values" in record["details"]["failed_rules"]
    assert find_values(lake, MARK) == []
    accepted = pq.read_table([lake.root / file["path"] for file in record["tables"]["accepted"]], partitioning=None)
    assert set(accepted["agreed"].to_pylist()) == {"yes"}


def test_a_code_never_seen_stops_the_night(commands: CommandLine, lake: Lake, book: Path, tmp_path: Path) -> None:
    extract = write_people(tmp_path / "people", simulate_rows(2, SECOND), {310: "perhaps", 311: "perhaps"})
    ended = validate(commands, lake, book, extract)
    assert ended.code == 3, ended.said
    assert "column agreed: 2 rows have a consent that is neither among" in ended.said and "perhaps" not in ended.said
    assert find_values(lake, "perhaps") == [] and lake.open_nights() == []


def test_nobody_has_agreed(commands: CommandLine, lake: Lake, book: Path, tmp_path: Path) -> None:
    rows = simulate_rows(2, SECOND)
    ended = validate(commands, lake, book, write_people(tmp_path / "people", rows, dict.fromkeys(range(1520), "no")))
    assert ended.code == 3 and "all 1,520 rows are of people who have not agreed" in ended.said
