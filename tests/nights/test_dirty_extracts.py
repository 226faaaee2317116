"""Random dirty extracts through the real commands: every row has the fate that the oracle says, and none is lost.

MINDCENSUS_DIRTY_EXTRACTS says how many. Many to a night, they go through the two stages that decide about rows; the
first night can be run to its end, too.
"""

import hmac
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.nights.dirty import (
    BOOK,
    CODES,
    COLUMNS,
    DAYS,
    RULES,
    RUN_DATE,
    Judged,
    clean_extract,
    draw_extract,
    faulty_extract,
    judge,
)
from tests.nights.small_night import CommandLine

EXTRACTS = int(os.environ.get("MINDCENSUS_DIRTY_EXTRACTS", "20"))
FIRST_NIGHT, A_NIGHT = 20, 100
PEOPLE = 400
KEPT = COLUMNS[1:-1]  # the id is a pseudonym, the note is not in the codebook
FATES = ("accepted", "quarantined", "duplicate", "ineligible")


def draw_extracts(count: int) -> list[str]:
    """Different ones, the same every time. None is judged as it is drawn: a night for each would take hours.

    The first is not drawn, and has every fault there is.
    """
    drawn = {faulty_extract(): None}

    @settings(
        max_examples=2 * count,  # it draws some of them twice
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(draw_extract())
    def collect(extract: str) -> None:
        drawn.setdefault(extract)

    collect()
    assert len(drawn) >= count
    return list(drawn)[:count]


@dataclass(frozen=True)
class Night:
    """A delivery of many extracts, what the oracle says of each, and what the commands made of it."""

    parts: dict[str, str]
    judged: dict[str, list[Judged]]
    key: bytes
    records: dict[str, Any]
    lake: Path

    def read(self, stage: str, table: str) -> list[dict[str, Any]]:
        files = [self.lake / file["path"] for file in self.records[stage]["tables"][table]]
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def pseudonym(self, row: Judged) -> str | None:
        raw = row.fields["id"] if row.fields else ""
        return hmac.new(self.key, raw.encode(), "sha256").hexdigest() if raw else None

    def expected(self, fate: str) -> Iterator[tuple[str, Judged]]:
        return ((name, row) for name, rows in self.judged.items() for row in rows if row.fate == fate)


class Deliveries:
    """A lake, and nights of packed extracts in it."""

    def __init__(self, folder: Path, commands: CommandLine) -> None:
        self.folder, self.commands, self.lake = folder, commands, folder / "lake"
        (folder / "dirty.yaml").write_text(BOOK, encoding="utf-8")

    def deliver(self, name: str, extracts: Sequence[str]) -> dict[str, str]:
        (self.folder / name).mkdir()
        parts = {}
        for number, extract in enumerate([clean_extract(PEOPLE), *extracts]):
            file = f"part-{number:04d}.csv"
            parts[file] = extract.replace("@", f"E{number}")
            (self.folder / name / file).write_bytes(parts[file].encode())
        return parts

    def run(self, command: str, name: str) -> None:
        book = self.folder / "dirty.yaml"
        options = ["--lake", self.lake, "--run-date", RUN_DATE, "--codebook", book, "--extract", self.folder / name]
        ended = self.commands(command, *options)
        assert ended.code == 0, ended.said

    def decide(self, name: str, extracts: Sequence[str]) -> Night:
        """A night as far as the two stages that decide about rows."""
        parts = self.deliver(name, extracts)
        for stage in ("validate", "preprocess"):
            self.run(stage, name)
        folder = max((self.lake / "restricted/staging").iterdir())
        records = {stage: json.loads((folder / f"{stage}.json").read_text()) for stage in ("validate", "preprocess")}
        return self.gather(parts, records)

    def gather(self, parts: dict[str, str], records: dict[str, Any]) -> Night:
        key = (self.lake / "restricted/keys/pseudonym.key").read_bytes().strip()
        return Night(parts, {name: judge(text) for name, text in parts.items()}, key, records, self.lake)


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory, commands: CommandLine) -> Deliveries:
    return Deliveries(tmp_path_factory.mktemp("dirty"), commands)


@pytest.fixture(scope="module")
def extracts() -> list[str]:
    return draw_extracts(EXTRACTS)


@pytest.fixture(scope="module")
def first_night(deliveries: Deliveries, extracts: list[str]) -> Night:
    return deliveries.decide("first", extracts[:FIRST_NIGHT])


def test_extracts_are_dirty_in_every_way(extracts: list[str]) -> None:
    judged = [row for extract in extracts for row in judge(extract)]
    assert {row.fate for row in judged} == set(FATES)
    assert {rule for row in judged for rule in row.rules} == set(RULES)


def test_every_row_has_its_fate(first_night: Night) -> None:
    check_night(first_night)


def test_every_broken_rule_is_counted(first_night: Night) -> None:
    rules = Counter(rule for rows in first_night.judged.values() for row in rows for rule in row.rules)
    assert first_night.records["validate"]["details"]["failed_rules"] == rules


@pytest.mark.slow
def test_many_more_extracts(deliveries: Deliveries, extracts: list[str], first_night: Night) -> None:
    if EXTRACTS <= FIRST_NIGHT:
        pytest.skip(f"MINDCENSUS_DIRTY_EXTRACTS is {EXTRACTS}: all of them are in the first night")
    for start in range(FIRST_NIGHT, EXTRACTS, A_NIGHT):
        check_night(deliveries.decide(str(start), extracts[start : start + A_NIGHT]))


@pytest.mark.slow
def test_the_manifest_of_a_dirty_night_adds_up(deliveries: Deliveries, first_night: Night) -> None:
    deliveries.run("run", "first")
    (file,) = (deliveries.lake / "restricted/runs" / f"run_date={RUN_DATE}").iterdir()
    manifest = json.loads(file.read_text())
    fates = Counter(row.fate for rows in first_night.judged.values() for row in rows)
    assert manifest["rows"] == {
        "delivered": sum(fates.values()),
        "features": fates["accepted"],
        "quarantined": fates["quarantined"],
        "withdrawn": 0,
        "duplicates": fates["duplicate"],
        "ineligible": fates["ineligible"],
        "profiles": fates["accepted"],
    }
    night = deliveries.gather(first_night.parts, manifest["stages"])
    profiles = {row["person_id"] for row in night.read("score", "profiles")}
    assert profiles == {row["person_id"] for row in night.read("validate", "accepted")}


def check_night(night: Night) -> None:
    """Every row of every part lies where the oracle says, and the sums of the two stages agree with it."""
    counts = night.records["validate"]["counts"] | night.records["preprocess"]["counts"]
    where = ("features", "quarantined", "duplicates", "ineligible")
    assert counts["delivered"] == sum(counts[name] for name in where)
    assert counts["delivered"] == sum(len(rows) for rows in night.judged.values())
    for fate, name in zip(FATES, ("features", "quarantined", "duplicates", "ineligible"), strict=True):
        assert counts[name] == sum(1 for _ in night.expected(fate)), name
    check_accepted(night)
    check_quarantine(night)


def check_accepted(night: Night) -> None:
    """Row by row, and the answers of the features."""
    found = Counter(
        (r["source_file"], r["person_id"], r["day"], r["s"], r["p"]) for r in night.read("validate", "accepted")
    )
    rows = [(name, night.pseudonym(row), row.fields) for name, row in night.expected("accepted") if row.fields]
    expected = Counter((name, person, DAYS[f["day"]], f["s"], f["p"]) for name, person, f in rows)
    assert found - expected == Counter() == expected - found
    answers = Counter((r["person_id"], r["a"], r["b"]) for r in night.read("preprocess", "features"))
    assert answers == Counter((person, CODES[fields["A"]], CODES[fields["B"]]) for _, person, fields in rows)


def check_quarantine(night: Night) -> None:
    """Row by row: the fields as they were delivered, in their place the rules that they break."""
    found = Counter(
        (r["source_file"], r["person_id"], tuple(r["failed_rules"]), *[r[column] for column in KEPT])
        for r in night.read("validate", "quarantine")
    )
    expected = Counter(
        (name, night.pseudonym(row), row.rules, *[(row.fields or {}).get(column) or None for column in KEPT])
        for name, row in night.expected("quarantined")
    )
    assert found - expected == Counter() == expected - found
