"""Feedback through whole nights by the real command: what is kept of it, what it says, and what goes with a person."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.lake import Lake, StageRecord
from jobs.pseudonym import digest_ids, key_file, read_key
from tests.expectations.test_care import LINE
from tests.expectations.test_feedback import CARE, FEEDBACK
from tests.nights.small_night import CODEBOOK, COLUMNS, SECOND, THIRD, CommandLine, Ended, simulate_rows
from tests.nights.test_person import TABLE

HEAD = "respondent,said_at,helpful,severity"
MARK = "zq-unknown-31bd"  # an id that nobody has
# Of people who are accepted.
BROKEN = (
    "P000700,2026-03-09,1,ill",  # after the night
    "P000701,2026-03-01,5,none",
    "P000702,2026-03-01,1,dreadful",
    "P000703,2026-03-01,,",
    "P000704,soon,0,",
)


def find_totals(rows: Iterable[list[Any]]) -> dict[str, int | None]:
    """Mood of people whose answers are complete, as a clinician might look at it."""
    items = [COLUMNS.index(f"mood_{number}") for number in (1, 2, 3)]
    found: dict[str, int | None] = {}
    for row in rows:
        one, two, calm = (row[place] for place in items)
        found[row[0]] = one + two + 3 - calm if min(one, two, calm) >= 0 and one <= 3 else None
    return found


def say_feedback(rows: list[list[Any]]) -> list[str]:
    """Of people from the 800th on, most with high totals: what they and a clinician say."""
    draw, lines = np.random.default_rng(3), []
    for person, total in find_totals(rows[800:1500]).items():
        if total is not None and draw.random() < (0.7 if total >= 5 else 0.25):
            ill = draw.random() < 1 / (1 + np.exp(3.5 - 0.7 * total))
            lines.append(f"{person},{SECOND}T01:00:00,{draw.integers(0, 2)},{'ill' if ill else 'none'}")
    again = [line.replace(SECOND, "2026-02-20") for line in lines[:7]]
    return [*lines, *again, *BROKEN, f"{MARK},2026-03-01,1,ill", ",2026-03-01,1,ill"]


def write(folder: Path, rows: list[list[Any]], feedback: list[str], head: str = HEAD) -> Path:
    folder.mkdir(parents=True)
    lines = [[*COLUMNS, "agreed"], *[[*row, "yes"] for row in rows]]
    (folder / "people.csv").write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    (folder / "feedback.csv").write_text("\n".join([head, *feedback]) + "\n")
    return folder


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    book = tmp_path_factory.mktemp("feedback") / "care.yaml"
    text = CODEBOOK.replace("label: low mood", "label: low mood, risk: true")
    book.write_text(text + CARE + FEEDBACK)
    return book


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = simulate_rows(2, SECOND)
    return write(tmp_path_factory.mktemp("said") / "extract", rows, say_feedback(rows))


@dataclass(frozen=True)
class Published:
    """A lake with one night, its manifest, and what was delivered for it."""

    lake: Lake
    manifest: dict[str, Any]
    extract: Path
    said: str

    def read(self, stage: str, table: str) -> list[dict[str, Any]]:
        files = StageRecord.from_json(self.manifest["stages"][stage]).tables[table]
        return [row for f in files for row in pq.read_table(self.lake.root / f.path, partitioning=None).to_pylist()]

    def find_person(self, delivered: str) -> str:
        (pseudonym,) = digest_ids([delivered.encode()], read_key(key_file(self.lake)))
        assert pseudonym
        return pseudonym


@pytest.fixture(scope="module")
def night(commands: CommandLine, book: Path, extract: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    lake = Lake(tmp_path_factory.mktemp("feedback_lake") / "lake")
    ended = commands("run", "--lake", lake.root, "--run-date", SECOND, "--codebook", book, "--extract", extract)
    assert ended.code == 0, ended.said
    (manifest,) = lake.manifests()
    return Published(lake, manifest, extract, ended.said)


def test_every_row_is_accepted_set_aside_superseded_or_counted_out(night: Published) -> None:
    delivered = len((night.extract / "feedback.csv").read_text().splitlines()) - 1
    counts = night.manifest["stages"]["validate"]["details"]["feedback"]
    kept, broken = night.read("validate", "feedback"), night.read("validate", "feedback_quarantine")
    assert (
        counts["delivered"] == delivered == sum(counts[f] for f in ("accepted", "quarantined", "superseded", "unknown"))
    )
    # Of the people from the 800th on all are accepted; nobody is who the last two rows speak of.
    assert counts == {
        **{"delivered": delivered, "accepted": delivered - 14, "quarantined": 5, "superseded": 7, "unknown": 2}
    }
    assert len(kept) == counts["accepted"] == len({row["person_id"] for row in kept})
    assert {row["given_at"].date().isoformat() for row in kept} == {SECOND}
    reasons = {row["person_id"]: row["failed_rules"] for row in broken}
    assert [reasons[night.find_person(line[:7])] for line in BROKEN] == [
        *(["feedback_given_at"], ["feedback_helpful_values"], ["feedback_confirmed_values"]),
        *(["feedback_empty"], ["feedback_given_at"]),
    ]
    held = [file for file in night.lake.root.rglob("*") if file.is_file() and MARK.encode() in file.read_bytes()]
    assert held == [] and MARK not in night.said


def test_the_cut_stays_and_corrected_figures_stand_beside_it(night: Published) -> None:
    told = night.manifest["stages"]["aggregate"]["details"]["feedback"]
    kept = night.read("validate", "feedback")
    assert told["helpful"] == {
        "yes": sum(row["helpful"] is True for row in kept),
        "no": sum(row["helpful"] is False for row in kept),
    }
    rows = night.read("aggregate", "calibration")
    assert sum(row["verified"] for row in rows) == told["verified"] == len(kept)
    assert sum(row["cases"] for row in rows) == told["cases"] == sum(row["confirmed"] == "high" for row in kept)
    chances = [row["probability"] for row in rows]
    assert chances == sorted(chances) and all(row["low"] < row["probability"] < row["high"] for row in rows)
    # The simulated clinician's own curve.
    assert all(row["low"] < 1 / (1 + np.exp(3.5 - 0.7 * row["total"])) < row["high"] for row in rows)
    sensitivity = told["accuracy"]["sensitivity"]
    assert sensitivity["low"] < sensitivity["corrected"] < sensitivity["high"] < sensitivity["verified"]
    features = {row["person_id"]: row for row in night.read("preprocess", "features")}
    assert sum(row["mood_confirmed"] is not None for row in features.values()) == len(kept)
    bands = {"low": (0, 5), "high": (5, 99)}
    for row in features.values():
        if row["mood_band"]:
            low, high = bands[row["mood_band"]]
            assert low <= row["mood_total"] < high
    model = night.lake.root / night.manifest["stages"]["train"]["details"]["folder"]
    card = (model / "card.md").read_text()
    assert "What clinicians found" in card and "severity that a clinician found" in card
    assert f"found {told['cases']:,} of them to be at the cut (≥ 5)" in card


def test_a_page_says_what_clinicians_found_of_others_with_as_many_points(
    commands: CommandLine, night: Published, tmp_path: Path
) -> None:
    line = {**LINE, "languages": {"en": "English", "zh": "英语"}}
    (tmp_path / "table.yaml").write_text(TABLE)
    review = {"table": "table.yaml", "reviewer": "a test", "reviewed_on": "2026-01-01"}
    review["sha256"] = hashlib.sha256(TABLE.encode()).hexdigest()
    (tmp_path / "care.yaml").write_text(json.dumps({"help_lines": [line], "advice": [review]}))
    row = next(row for row in night.read("preprocess", "features") if row["mood_total"] == 6)
    chance = next(one for one in night.read("aggregate", "calibration") if one["total"] == 6)
    for language, words in (("en", "clinicians would find about"), ("zh", "临床医生大约会认为")):
        ended = commands(
            *("person", "--lake", night.lake.root, "--care", tmp_path / "care.yaml", row["person_id"]),
            *("--reason", "asked by the person", "--lang", language),
        )
        assert ended.code == 0, ended.said
        page = Path(ended.said.splitlines()[0])
        assert words in page.read_text()
    told = json.loads(page.with_name(page.name.replace(".zh.html", ".json")).read_text())
    found = told["traits"][0]["scale"]
    assert found["band"] == "high" and found["confirmed"]["band"] == "high"
    assert found["confirmed"]["probability"] == pytest.approx(chance["probability"], abs=5e-4)
    assert told["traits"][1]["scale"]["confirmed"] is None


def test_a_person_is_given_what_they_said_and_takes_it_with_them(
    commands: CommandLine, night: Published, tmp_path: Path
) -> None:
    lake, ids = Lake(shutil.copytree(night.lake.root, tmp_path / "lake")), tmp_path / "id"
    delivered = (night.extract / "feedback.csv").read_text().splitlines()[1].split(",")[0]
    person = night.find_person(delivered)
    ids.write_text(f"{delivered}\n")
    exported = json.loads(commands("export-person", "--lake", lake.root, "--id-file", ids, "--reason", "asked").said)
    (found,) = exported["nights"]
    assert found["tables"]["feedback"][0]["person_id"] == person
    ended = commands("withdraw", "--lake", lake.root, "--list", ids, "--erase", "--reason", "asked")
    assert ended.code == 0, ended.said
    for table in ("feedback", "feedback_quarantine", "features"):
        for file in (lake.root / "restricted" / table).rglob("*.parquet"):
            assert person not in pq.read_table(file, partitioning=None)["person_id"].to_pylist()


def test_too_much_broken_feedback_stops_the_night(
    commands: CommandLine, night: Published, book: Path, tmp_path: Path
) -> None:
    rows = simulate_rows(2, SECOND)
    few = [f"P{number:06d},2026-03-01,1,dreadful" for number in range(900, 905)]
    for name, feedback, head, code, sentence in (
        ("broken", few, HEAD, 4, "5 of 5 rows of feedback break a rule"),
        ("columns", few, HEAD.replace("severity", "grade"), 3, "feedback.csv: the feedback has no column severity"),
    ):
        extract = write(tmp_path / name, rows, feedback, head)
        ended = validate(commands, night.lake, book, extract)
        assert ended.code == code and sentence in ended.said and "dreadful" not in ended.said, ended.said
    assert night.lake.open_nights() == []


def test_nobody_has_said_anything_yet(commands: CommandLine, night: Published, book: Path, tmp_path: Path) -> None:
    lake = Lake(shutil.copytree(night.lake.root, tmp_path / "lake"))
    ended = validate(commands, lake, book, write(tmp_path / "silent", simulate_rows(2, SECOND), []))
    assert ended.code == 0, ended.said
    record = json.loads((lake.open_nights()[0].folder / "validate.json").read_text())
    assert record["details"]["feedback"] == dict.fromkeys(
        ("delivered", "accepted", "quarantined", "superseded", "unknown"), 0
    )


def validate(commands: CommandLine, lake: Lake, book: Path, extract: Path) -> Ended:
    return commands("validate", "--lake", lake.root, "--run-date", THIRD, "--codebook", book, "--extract", extract)
