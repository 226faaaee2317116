"""The access log: it only grows, several may write to it, and any change to what it says is found."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.audit import FIRST, Head, check_pseudonym, check_reason, log_access, name_user, read_entries, verify_log
from jobs.cli import main
from jobs.errors import AuditBroken, UsageError
from jobs.lake import Lake, write_atomically

PERSON = "ab" * 32
LENGTH = 6


def make_log(folder: Path, entries: int = LENGTH) -> Lake:
    lake = Lake(folder)
    lake.prepare()
    for number in range(1, entries + 1):
        log_access(lake, "explain", [PERSON], f"reason {number}")
    return lake


def log_of(lake: Lake) -> Path:
    return lake.restricted / "audit" / "log.jsonl"


def test_an_entry_says_who_when_why_whom_and_by_what(tmp_path: Path) -> None:
    lake = make_log(tmp_path / "lake")
    first, second, *_ = read_entries(lake)
    assert {name: first[name] for name in ("number", "who", "command", "person", "reason", "previous")} == {
        **{"number": 1, "who": name_user(), "command": "explain", "person": PERSON, "reason": "reason 1"},
        "previous": FIRST,
    }
    assert second["previous"] != FIRST and first["at"].endswith("+00:00")
    assert verify_log(lake).entries == LENGTH
    assert stat.S_IMODE(log_of(lake).stat().st_mode) == 0o600
    assert stat.S_IMODE(log_of(lake).parent.stat().st_mode) == 0o700


WRITER = """
import sys
from pathlib import Path
from jobs.audit import log_access
from jobs.lake import Lake
for turn in range(20):
    log_access(Lake(Path(sys.argv[1])), "explain", [None, None], "beside others")
"""


def test_several_writers_make_one_chain(tmp_path: Path) -> None:
    lake = make_log(tmp_path / "lake", 1)
    command = [sys.executable, "-c", WRITER, str(lake.root)]
    writers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert verify_log(lake).entries == 1 + 2 * 20 * 2


def change(line: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[:line], lines[line].replace(b"reason", b"excuse"), *lines[line + 1 :]]


@pytest.mark.parametrize(
    ("harm", "where"),
    [
        (change(2), "between the entries 3 and 4"),
        (change(LENGTH - 1), f"at entry {LENGTH}: it was changed"),
        (lambda lines: [*lines[:2], *lines[3:]], "between the entries 2 and 4"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "between the entries 0 and 2"),
        (lambda lines: lines[:-2], f"it ends with entry {LENGTH - 2} and had {LENGTH}"),
        (lambda lines: [], f"it ends with entry 0 and had {LENGTH}"),
        (lambda lines: [*lines[:3], b"\x00" * 40 + b"\n", *lines[4:]], "at entry 4: the line is no entry"),
        (lambda lines: [*lines[:-1], lines[-1][:-9]], f"at entry {LENGTH}: the line is no entry"),
    ],
)
def test_what_was_done_to_it_is_found(
    harm: Callable[[list[bytes]], list[bytes]], where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = make_log(tmp_path / "lake")
    lines = log_of(lake).read_bytes().splitlines(keepends=True)
    log_of(lake).write_bytes(b"".join(harm(lines)))
    assert main(["audit-log", "verify", "--lake", str(lake.root)]) == 3
    said = capsys.readouterr().err
    assert where in said and len(said.splitlines()) == 1 and PERSON not in said


@pytest.fixture(scope="module")
def two_entries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, bytes]:
    lake = make_log(tmp_path_factory.mktemp("log") / "lake", 2)
    return lake, log_of(lake).read_bytes()


@given(place=st.integers(0, 10**6), bits=st.integers(1, 255))
def test_no_changed_byte_goes_unseen(two_entries: tuple[Lake, bytes], place: int, bits: int) -> None:
    lake, written = two_entries
    content = bytearray(written)
    content[place % len(content)] ^= bits
    log_of(lake).write_bytes(bytes(content))
    with pytest.raises(AuditBroken):
        verify_log(lake)


def test_nothing_is_added_to_a_damaged_end(tmp_path: Path) -> None:
    lake = make_log(tmp_path / "lake")
    whole = log_of(lake).read_bytes()
    for content in (whole[:-1], whole.replace(b"reason 6", b"excuse 6")):
        log_of(lake).write_bytes(content)
        with pytest.raises(AuditBroken):
            log_access(lake, "explain", [PERSON], "once more")
        assert log_of(lake).read_bytes() == content


def test_a_log_without_its_head_may_have_been_cut(tmp_path: Path) -> None:
    lake = make_log(tmp_path / "lake")
    head, lines = lake.restricted / "audit" / "head.json", log_of(lake).read_bytes().splitlines(keepends=True)
    head.unlink()
    log_of(lake).write_bytes(b"".join(lines[:2]))
    for use in (lambda: verify_log(lake), lambda: log_access(lake, "explain", [PERSON], "once more")):
        with pytest.raises(AuditBroken, match=r"head\.json is missing"):
            use()


def test_a_writer_that_was_stopped_at_its_first_entry_is_made_good(tmp_path: Path) -> None:
    lake = make_log(tmp_path / "lake", 1)
    write_atomically(lake.restricted / "audit" / "head.json", json.dumps(asdict(Head())))
    assert verify_log(lake).entries == 1


def test_a_writer_that_was_stopped_is_made_good(tmp_path: Path) -> None:
    """Its whole lines are entries that nobody has said to be there; an unfinished one was shown nothing for."""
    lake = make_log(tmp_path / "lake", 2)
    head = lake.restricted / "audit" / "head.json"
    told = head.read_text()
    log_access(lake, "explain", [PERSON], "stopped")
    write_atomically(head, told)
    with log_of(lake).open("ab") as log:
        log.write(b'{"at": "2026-')
    assert verify_log(lake).entries == 3
    log_access(lake, "explain", [PERSON], "after it")
    assert [entry["reason"] for entry in read_entries(lake)] == ["reason 1", "reason 2", "stopped", "after it"]
    assert verify_log(lake).entries == 4


def test_a_lake_without_a_log_has_no_entries(tmp_path: Path) -> None:
    assert verify_log(Lake(tmp_path / "nowhere")) == Head()
    assert not (tmp_path / "nowhere").exists()


def test_a_reason_is_needed_and_a_pseudonym() -> None:
    for reason in (None, "", " \t"):
        with pytest.raises(UsageError, match="is read for a reason: say it by --reason TEXT"):
            check_reason(reason)
    with pytest.raises(UsageError, match="more than 500 characters"):
        check_reason("x" * 501)
    assert check_reason(" asked by the person ") == "asked by the person"
    for text in ("P000300", PERSON.upper(), PERSON + "\n", ""):
        with pytest.raises(UsageError, match="no pseudonym") as told:
            check_pseudonym(text)
        assert "P000300" not in str(told.value)
