"""Feedback through whole nights by the real command: what is kept of it, what it says, and what goes with a person."""

import hashlib
import json
import shutil
from collections import Counter
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
MARK, REFUSING = "zq-unknown-31bd", "P000709"  # an id that nobody has; somebody who has not agreed
BROKEN = {
    "P000701,2026-03-01,5,none": "feedback_helpful_values",
    "P000702,2026-03-01,1,dreadful": "feedback_confirmed_values",
    "P000703,2026-03-01,,": "feedback_empty",
    "P000704,soon,0,": "feedback_given_at",
    "P000705,2026-03-01,,ill": "feedback_contradicted",
    "P000705,2026-03-01,,none": "feedback_contradicted",
}
APART = ("P000706,2026-03-02,,ill", "P000706,2026-03-02T02:00:00,1,")  # a clinician, then the person
OLD = "P000708,2026-01-01,,ill"  # before the answers: not about them
COUNTED_OUT = {
    "P000700,2026-03-09,1,ill": "later",
    "P000707,2026-03-01": "malformed",
    f"{REFUSING},2026-03-01,1,ill": "unknown",
    f"{MARK},2026-03-01,1,ill": "unknown",
    ",2026-03-01,1,ill": "unknown",
}


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
    return [*lines, *again, *BROKEN, *APART, OLD, *COUNTED_OUT]


def write(folder: Path, rows: list[list[Any]], feedback: list[str], head: str = HEAD) -> Path:
    folder.mkdir(parents=True)
    lines = [[*COLUMNS, "agreed"], *[[*row, "no" if row[0] == REFUSING else "yes"] for row in rows]]
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
    assert counts == {
        **{"delivered": delivered, "quarantined": len(BROKEN), "superseded": 7, **Counter(COUNTED_OUT.values())},
        "accepted": delivered - len(BROKEN) - 7 - len(COUNTED_OUT),
    }
    kept = {row["person_id"]: row for row in night.read("validate", "feedback")}
    assert len(kept) == counts["accepted"] - 1  # of one person two rows are kept
    both = kept[night.find_person("P000706")]
    assert (both["helpful"], both["confirmed"]) == (True, "high")
    assert both["confirmed_at"] < both["given_at"]
    broken = [(row["person_id"], *row["failed_rules"]) for row in night.read("validate", "feedback_quarantine")]
    assert sorted(broken) == sorted((night.find_person(line[:7]), rule) for line, rule in BROKEN.items())
    for somebody in (MARK, night.find_person(REFUSING), night.find_person(MARK)):
        files = [file for file in night.lake.root.rglob("*") if file.is_file()]
        assert [file for file in files if somebody.encode() in file.read_bytes()] == []
        assert somebody not in night.said
    for table in ("feedback", "feedback_quarantine"):
        assert night.find_person(REFUSING) not in {row["person_id"] for row in night.read("validate", table)}


def test_the_cut_stays_and_corrected_figures_stand_beside_it(night: Published) -> None:
    told = night.manifest["stages"]["aggregate"]["details"]["feedback"]
    kept = night.read("validate", "feedback")
    assert told["helpful"] == {
        "yes": sum(row["helpful"] is True for row in kept),
        "no": sum(row["helpful"] is False for row in kept),
    }
    features = {row["person_id"]: row for row in night.read("preprocess", "features")}
    looked_at = [row for row in features.values() if row["mood_confirmed"] is not None]
    assert features[night.find_person(OLD[:7])]["mood_confirmed"] is None
    assert len(looked_at) == len([row for row in kept if row["confirmed"]]) - 1
    told_of = [row for row in looked_at if row["mood_total"] is not None]
    assert told["verified"] == len(told_of)
    assert told["cases"] == sum(row["mood_confirmed"] == "high" for row in told_of)
    rows = night.read("aggregate", "calibration")
    chances = [row["probability"] for row in rows]
    assert chances == sorted(chances) and all(row["low"] < row["probability"] < row["high"] for row in rows)
    # The simulated clinician's own curve.
    assert all(row["low"] < 1 / (1 + np.exp(3.5 - 0.7 * row["total"])) < row["high"] for row in rows)
    sensitivity = told["accuracy"]["sensitivity"]
    assert sensitivity["low"] < sensitivity["corrected"] < sensitivity["high"] < sensitivity["verified"]
    bands = {"low": (0, 5), "high": (5, 99)}
    for row in features.values():
        if row["mood_band"]:
            low, high = bands[row["mood_band"]]
            assert low <= row["mood_total"] < high
    trained = night.manifest["stages"]["train"]["details"]
    assert trained["confirmed"]["learned"] and trained["confirmed"]["people"] >= 100
    model = night.lake.root / trained["folder"]
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
    before = {row["person_id"] for row in night.read("validate", "feedback")} - {person}
    assert commands("rotate-key", "--lake", lake.root, "--reason", "a new year").code == 0
    files = list((lake.root / "restricted" / "feedback").rglob("*.parquet"))
    after = {one for file in files for one in pq.read_table(file, partitioning=None)["person_id"].to_pylist()}
    assert len(after) == len(before) and not after & before


def test_too_much_broken_feedback_stops_the_night(
    commands: CommandLine, night: Published, book: Path, tmp_path: Path
) -> None:
    rows = simulate_rows(2, SECOND)
    few = [f"P{number:06d},2026-03-01,1,dreadful" for number in range(900, 920)]
    for name, feedback, head, code, sentence in (
        ("broken", few, HEAD, 4, "20 of 20 rows of feedback break a rule"),
        ("columns", few, HEAD.replace("severity", "grade"), 3, "feedback.csv: the feedback has no column severity"),
    ):
        extract = write(tmp_path / name, rows, feedback, head)
        ended = validate(commands, night.lake, book, extract)
        assert ended.code == code and sentence in ended.said and "dreadful" not in ended.said, ended.said
    assert night.lake.open_nights() == []


def test_a_few_broken_rows_stop_nobody_and_ids_that_nobody_has_are_told_of(
    commands: CommandLine, night: Published, book: Path, tmp_path: Path
) -> None:
    fates = ("delivered", "accepted", "quarantined", "superseded", "later", "unknown", "malformed")
    for name, feedback, seen, warned in (
        ("silent", [], {}, []),
        ("few", ["P000900,2026-03-01,1,dreadful"], {"delivered": 1, "quarantined": 1}, []),
        (
            "strangers",
            [f"X{number},2026-03-01,1,ill" for number in range(30)],
            {"delivered": 30, "unknown": 30},
            [
                {
                    "rule": "feedback",
                    "message": "of 30 rows of feedback 30 are about nobody who is accepted, 0 cannot be read",
                }
            ],
        ),
    ):
        lake = Lake(shutil.copytree(night.lake.root, tmp_path / name))
        ended = validate(commands, lake, book, write(tmp_path / f"{name}_extract", simulate_rows(2, SECOND), feedback))
        assert ended.code == 0, ended.said
        details = json.loads((lake.open_nights()[0].folder / "validate.json").read_text())["details"]
        assert details["feedback"] == {**dict.fromkeys(fates, 0), **seen}
        assert [one for one in details["warnings"] if one["rule"] == "feedback"] == warned


def validate(commands: CommandLine, lake: Lake, book: Path, extract: Path) -> Ended:
    return commands("validate", "--lake", lake.root, "--run-date", THIRD, "--codebook", book, "--extract", extract)
