"""What `mindcensus status` makes of manifests, stage records and notes of attempts: no night is run here."""

import io
import json
import os
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from expectations.errors import ContractBroken
from jobs.attempts import note_attempt, read_attempts
from jobs.errors import DONE, DRIFTED, FAILED, LATE, LakeHeld, UsageError
from jobs.lake import Lake
from jobs.status import print_status, read_status

MANIFEST = {
    "token": 1,
    "codebook": {"name": "pocket", "sha256": "c0de"},
    "model": {"model_version": "2026-03-01-87d139846466", "series": "2026-03-01-87d139846466", "reason": None},
    "rows": {"delivered": 9_876_543, "features": 9_000_000, "quarantined": 543, "duplicates": 70_000}
    | {"ineligible": 806_000, "withdrawn": 0, "profiles": 9_000_000},
    "release": {"public": False, "why": "too soon", "next_possible": "2026-03-08"},
    "stages": {"validate": {"seconds": 100.4, "details": {"failed_rules": {"age_range": 543}, "warnings": []}}},
}


def publish(lake: Lake, day: str, drift: float | None = None, warnings: tuple[str, ...] = ()) -> None:
    manifest = json.loads(json.dumps(MANIFEST)) | {"run_date": day}
    if drift is not None:
        manifest["model"]["drift"] = {"limit": 0.25, "items": {"mood_1": drift, "mood_2": 0.0}, "profiles": {}}
    told = [{"rule": rule, "message": "words"} for rule in warnings]
    manifest["stages"]["validate"]["details"]["warnings"] = told
    folder = lake.restricted / "runs" / f"run_date={day}"
    folder.mkdir()
    (folder / "00000001.json").write_text(json.dumps(manifest))


def attempt(lake: Lake, day: str, error: Exception | None = None) -> None:
    """A command on a night that comes to its second stage, and ends there with the error, or well."""
    try:
        with note_attempt(lake, date.fromisoformat(day), "validate") as note:
            note.begin("preprocess")
            if error:
                raise error
    except type(error or None):  # type: ignore[misc]
        pass


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    return lake


# published days of March (and the drift of the last), commands (day and how it ended), the expected day, the judgement
CASES = """
    published   drift   commands          expected   judgement
    -           -       -                 -          well
    -           -       -                 2          late
    1,2         -       1ok,2ok           2          well
    1           -       1ok               2          late
    1           0.26    1ok               1          drifted
    1           0.26    1ok               2          late
    1           0.25    1ok               1          well
    1           -       1ok,2broken       2          failed
    1,2         -       2broken,2ok       2          well
    1,3         -       2broken,3ok       3          well
    1           -       1ok,2killed       2          failed
    1           -       2killed,2ok       1          well
"""
CODES = {"well": DONE, "late": LATE, "failed": FAILED, "drifted": DRIFTED}


@pytest.mark.parametrize("case", [line.split() for line in CASES.strip().splitlines()[1:]], ids=" ".join)
def test_judgement(lake, case):
    published, drift, commands, expected, judgement = case
    days = [f"2026-03-{int(day):02}" for day in published.split(",") if day != "-"]
    for day in days:
        publish(lake, day, float(drift) if drift != "-" and day == days[-1] else None)
    for command in commands.split(",") if commands != "-" else ():
        day, how = f"2026-03-{int(command[0]):02}", command[1:]
        if how == "killed":
            leave_unended(lake, day)
        else:
            attempt(lake, day, ContractBroken("column age is missing") if how == "broken" else None)
    wanted = None if expected == "-" else date(2026, 3, int(expected))
    assert read_status(lake).judge(wanted) == CODES[judgement]


def leave_unended(lake: Lake, day: str) -> None:
    """What a command leaves that was killed: its note, without an end."""
    attempt(lake, day, ContractBroken("…"))
    (file,) = (lake.restricted / "attempts" / f"run_date={day}").glob("*.json")
    raw = json.loads(file.read_text())
    file.write_text(json.dumps(raw | {"ended_at": None, "exit_code": None, "sentence": None}))


def test_a_failure_of_the_extract_leaves_its_sentence_and_a_fault_only_its_name(lake):
    attempt(lake, "2026-03-01", ContractBroken("column age is missing"))
    attempt(lake, "2026-03-01", ValueError("somebody's answer"))
    attempt(lake, "2026-03-01", LakeHeld("another run holds the lake"))
    told = [(one.stage, one.exit_code, one.sentence) for one in read_attempts(lake)]
    assert told == [
        ("preprocess", 3, "column age is missing"),
        ("preprocess", 1, "a fault of the program, ValueError"),
        ("preprocess", 5, "another run holds the lake"),
    ]
    assert all(oct(file.stat().st_mode)[-3:] == "600" for file in lake.restricted.rglob("attempts/*/*.json"))


def test_of_commands_that_ended_well_a_date_keeps_the_last(lake):
    for error in (None, ContractBroken("broken"), None, None):
        attempt(lake, "2026-03-01", error)
    assert [one.exit_code for one in read_attempts(lake)] == [3, 0]


def test_a_command_at_work_has_not_failed_and_others_are_kept_out(lake):
    attempt(lake, "2026-03-01", ContractBroken("broken"))
    with lake.hold(), note_attempt(lake, date(2026, 3, 1), "validate") as note:
        note.begin("validate")
        attempt(lake, "2026-03-01", LakeHeld("another run holds the lake"))
        status = read_status(lake)
        assert status.holder
        assert status.judge(None) == DONE
    assert read_status(lake).judge(None) == DONE
    assert read_status(lake).holder is None


def test_a_note_that_cannot_be_written_hides_no_error(lake):
    (lake.restricted / "attempts").write_text("in the way")
    with pytest.raises(ContractBroken, match="broken"), note_attempt(lake, date(2026, 3, 1), "validate") as note:
        note.begin("validate")
        raise ContractBroken("broken")


def test_there_is_no_lake(tmp_path):
    with pytest.raises(UsageError, match="there is no lake"):
        read_status(Lake(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_the_table_fits_a_terminal_of_80_columns_with_ten_million_people(lake):
    publish(lake, "2026-03-01")
    publish(lake, "2026-03-02", drift=0.31, warnings=("answer_shares", "new_columns"))
    lake.open_night(date(2026, 3, 3))
    attempt(lake, "2026-03-03", ContractBroken("column age is missing: " + "ask for a complete delivery " * 5))
    console = Console(file=io.StringIO(), width=80, highlight=False)
    assert print_status(read_status(lake), None, False, console) == FAILED
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    told = " ".join(printed.split())
    for words in (
        "failed: the last night is 2026-03-02",
        "2026-03-02 9,876,543 9,000,000 543 0.31! 100 2026-03-01 internal",
        "543 quarantined, 70,000 duplicates, 806,000 ineligible, 0 withdrawn; by rule: age_range 543",
        "the extract's answer_shares moved past the codebook's limit; answers 0.310 (mood_1), profiles none; limit",
        "internal: too soon; next possible on 2026-03-08",
        "in the making 2026-03-03, since",
        "lake free",
        "exit code 3: column age is missing",
    ):
        assert words in told, told


def test_json_holds_the_same(lake, capsys):
    publish(lake, "2026-03-02", drift=0.31)
    os.utime(lake.restricted / "runs" / "run_date=2026-03-02" / "00000001.json", (0, 0))
    assert print_status(read_status(lake), date(2026, 3, 3), True) == LATE
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "late"
    assert told["nights"][0]["published_at"] == "1970-01-01T00:00:00+00:00"
    assert told["nights"][0]["drift"] == {"limit": 0.25, "answers": {"key": "mood_1", "psi": 0.31}, "profiles": None}
    assert told["nights"][0]["release"]["next_possible"] == "2026-03-08"


def test_after_a_public_release_the_calendar_says_when_the_next_may_be(lake):
    publish(lake, "2026-03-02")
    assert read_status(lake).next_release == date(2026, 3, 8), "as the internal night's manifest says"
    file = lake.restricted / "runs" / "run_date=2026-03-02" / "00000001.json"
    file.write_text(file.read_text().replace('"public": false', '"public": true'))
    assert read_status(lake).next_release is None
    (lake.restricted / "codebooks").mkdir()
    (lake.restricted / "codebooks" / "c0de.yaml").write_text("disclosure: {calendar: {least_days: 7}}")
    assert read_status(lake).next_release == date(2026, 3, 9)
