"""Pages about single people by the real command: for whom they are made, for whom not, and when they go."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.analyses import FOLDER, SUMMARY, name_analysis
from jobs.analysing import open_desk
from jobs.audit import read_entries
from jobs.errors import StageError
from jobs.lake import Lake
from jobs.person import analyse_person
from jobs.pseudonym import digest_ids, key_file, read_key
from jobs.withdrawn import block_people
from tests.expectations.test_care import LINE
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import FIRST, CommandLine, Ended

CARE = """\
purpose: {use: care, lawful_basis: consent, retention_days: 400}
consent: {column: agreed, agreed: ["yes"], refused: ["no"]}
"""
LEFT = 60  # people of whom pages are made
TABLE = """\
advice: pocket
rules:
  - {key: high, scale: mood, bands: [high], say: {en: Talk about mood., zh: 谈谈情绪。}, source: tests}
  - {key: open, risk: unanswered, say: {en: Ask., zh: 询问。}, source: tests}
"""


@pytest.fixture(scope="module")
def care(small_night: SmallNight, copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> SmallNight:
    """The night as if its people had agreed: its manifest names a codebook for care, whose first item is of risk."""
    folder = tmp_path_factory.mktemp("person")
    lake, book = copy_lake(folder), folder / "book.yaml"
    text = small_night.book.read_text().replace("label: low mood", "risk: true, label: low mood")
    book.write_text(text + CARE)
    before, after = (hashlib.sha256(one.read_bytes()).hexdigest() for one in (small_night.book, book))
    (manifest,) = (lake / "restricted" / "runs").rglob("*.json")
    manifest.write_text(manifest.read_text().replace(before, after))
    (lake / "restricted" / "codebooks" / f"{after}.yaml").write_text(book.read_text())
    (folder / "table.yaml").write_text(TABLE)
    digest = hashlib.sha256(TABLE.encode()).hexdigest()
    review = {"table": "table.yaml", "reviewer": "a test", "reviewed_on": "2026-01-01", "sha256": digest}
    line = {**LINE, "languages": {"en": "English", "zh": "英语"}}
    settings = {"help_lines": [line], "advice": [review], "compare": ["sex"]}
    (folder / "care.yaml").write_text(json.dumps(settings))
    responsible = {"clinician": "whoever is on duty", "responds_within_hours": 24}
    (folder / "duty.yaml").write_text(json.dumps({**settings, "responsible": responsible}))
    return SmallNight(lake, book, folder)


def ask(commands: CommandLine, care: SmallNight, *more: object, settings: str = "care.yaml") -> Ended:
    return commands("person", "--lake", care.lake, "--care", care.extract / settings, *more)


def find_person(lake: Lake, delivered: str) -> str:
    (pseudonym,) = digest_ids([delivered.encode()], read_key(key_file(lake)))
    assert pseudonym
    return pseudonym


def test_a_page_and_json_are_made_and_go_with_the_person(
    commands: CommandLine, care: SmallNight, tmp_path: Path
) -> None:
    lake, ids = Lake(care.lake), tmp_path / "id"
    ids.write_text("P000300\n")
    person = find_person(lake, "P000300")
    ended = ask(commands, care, "--id-file", ids, "--reason", "asked by the person", "--lang", "zh")
    assert ended.code == 0 and "P000300" not in ended.said and person not in ended.said, ended.said
    page = Path(ended.said.splitlines()[0])
    told = json.loads(page.with_name(page.name.replace(".zh.html", ".json")).read_text())
    assert [path.stat().st_mode & 0o777 for path in (page, page.parent, page.parent.parent)] == [0o600, 0o700, 0o700]
    assert [entry["person"] for entry in read_entries(lake)] == [person]
    files = list((care.lake / "restricted" / "profiles").rglob("*.parquet"))
    profile = next(
        row for f in files for row in pq.read_table(f, partitioning=None).to_pylist() if row["person_id"] == person
    )
    trait = told["traits"][0]
    assert trait["reference"]["percentile"] == pytest.approx(profile["distress_percentile"], abs=0.06)
    group = trait["group"]
    assert group["cohorts"] == {"sex": profile["sex"]} and group["low"] <= group["percentile"] <= group["high"]
    assert abs(group["percentile"] - trait["reference"]["percentile"]) < 15 and trait["changes"] == []
    assert told["answered_at"].startswith("2026-03-01T08:00") and trait["answers"]
    assert set(told["limits"]) == {"en", "zh"}
    # What is held about a person has what was told of them; who withdraws has no page.
    exported = json.loads(commands("export-person", "--lake", care.lake, "--id-file", ids, "--reason", "asked").said)
    assert exported["analyses"] == [told]
    ended = commands("withdraw", "--lake", care.lake, "--list", ids, "--reason", "asked by the person")
    assert ended.code == 0 and not page.exists(), ended.said
    ended = ask(commands, care, person, "--reason", "a mistake")
    assert ended.code == 2 and "this person has withdrawn" in ended.said


def test_everybody_needs_somebody_on_duty_and_is_sorted_by_need(commands: CommandLine, care: SmallNight) -> None:
    ended = ask(commands, care, "--everybody", "--reason", "a weekly look")
    assert ended.code == 2 and "the care file has to name who looks at it" in ended.said
    lake = Lake(care.lake)
    everybody = pq.read_table(care.lake / "restricted" / "features", columns=["person_id", "mood_1"]).to_pylist()
    # Pages of fewer people are soon made: of those first who left the item of risk open.
    everybody.sort(key=lambda row: (row["mood_1"], row["person_id"]))
    with lake.hold():
        block_people(lake, sorted(row["person_id"] for row in everybody[LEFT // 2 : -LEFT // 2]))
    entries = len(list(read_entries(lake)))
    ended = ask(commands, care, "--everybody", "--reason", "a weekly look", settings="duty.yaml")
    assert ended.code == 0, ended.said
    summary = json.loads(Path(ended.said.splitlines()[0]).with_suffix(".json").read_text())
    people = summary["people"]
    assert len(list(read_entries(lake))) == entries + len(people) and LEFT - 1 <= len(people) <= LEFT
    assert people[0]["risk_present"] and not people[-1]["risk_present"]
    assert [one["risk_present"] for one in people] == sorted((one["risk_present"] for one in people), reverse=True)
    advice = {rule for one in people for rule in one["advice"]}
    assert advice == {"high", "open"}


def test_pages_of_who_is_not_in_the_newest_night_go(commands: CommandLine, care: SmallNight) -> None:
    folder = care.lake / "restricted" / FOLDER / f"run_date={FIRST}"
    one = next(file for file in sorted(folder.glob("*.json")) if file.stem != SUMMARY)
    # As of somebody who was in an earlier night, and what a removal that was killed left of another.
    left = [
        folder / f"{name_analysis(end * 64)}.{kind}" for end, kind in (("0", "json"), ("0", "zh.html"), ("1", "html"))
    ]
    for file in left:
        file.write_text("told")
    ended = commands("publish", "--lake", care.lake, "--run-date", FIRST, "--codebook", care.book)
    assert ended.code == 0, ended.said
    assert one.exists() and not any(file.exists() for file in left) and not list(folder.glob(f"{SUMMARY}.*"))


def test_no_page_is_left_of_a_night_that_another_one_has_followed_meanwhile(care: SmallNight) -> None:
    desk = open_desk(Lake(care.lake), care.extract / "care.yaml")
    before = replace(desk, manifest={**desk.manifest, "token": desk.manifest["token"] - 1})
    folder = care.lake / "restricted" / FOLDER / f"run_date={FIRST}"
    person = json.loads(next(f for f in folder.glob("*.json") if f.stem != SUMMARY).read_text())["person_id"]
    with pytest.raises(StageError, match="a night was published while pages were made"):
        analyse_person(before, person, "a test", "en")
    assert not list(folder.glob(f"{name_analysis(person)}.*"))
    assert analyse_person(desk, person, "a test", "en").exists()


def test_what_is_refused(commands: CommandLine, care: SmallNight, small_night: SmallNight) -> None:
    entries = list(read_entries(Lake(care.lake)))
    for lake, more, code, sentence in (
        (care.lake, ["0" * 64], 2, "one person's data is read for a reason"),
        (care.lake, ["P000301", "--reason", "a test"], 2, "--person-id is no pseudonym"),
        (small_night.lake, ["0" * 64, "--reason", "a test"], 2, "the purpose of pocket is statistics"),
        (care.lake, ["0" * 64, "--reason", "a test"], 2, "no help line is configured"),
    ):
        ended = commands("person", "--lake", lake, *more)
        assert ended.code == code and sentence in ended.said and "P000301" not in ended.said, ended.said
    assert list(read_entries(Lake(care.lake))) == entries
    ended = ask(commands, care, "0" * 64, "--reason", "a test")
    assert ended.code == 2 and "the last published one, has this pseudonym" in ended.said
