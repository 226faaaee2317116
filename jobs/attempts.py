"""What was tried: a note of every command that works on a night, under restricted/attempts.

A failed night leaves no stage record: without the notes nobody could ask the lake why a date is missing. A note without
an end is of a command at work, or of one that was killed. Of those that ended well a date keeps the last. Notes are
history: nothing reads them but those who watch, and they may be deleted.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from jobs.errors import DONE, exit_code, explain_fault, name_fault
from jobs.lake import Lake, write_atomically

FOLDER = "attempts"


@dataclass(frozen=True)
class Attempt:
    """A command on a night of `run_date`: the stage that it has come to, and how it ended, once it has (times are UTC).

    The sentence is the one that the command said: it holds no answer of a person and no id.
    """

    run_date: str
    stage: str
    started_at: str
    ended_at: str | None = None
    exit_code: int | None = None
    sentence: str | None = None

    @property
    def last_heard(self) -> str:
        return self.ended_at or self.started_at


class Note:
    """The note of the command at work. What cannot be written is let go: the command's own error matters more."""

    def __init__(self, lake: Lake, attempt: Attempt) -> None:
        self.attempt, self._lake = attempt, lake
        name = f"{attempt.started_at.translate({ord(mark): None for mark in '-:.+'})}-{os.getpid()}.json"
        self._file = lake.restricted / FOLDER / f"run_date={attempt.run_date}" / name

    def begin(self, stage: str) -> None:
        self._write(replace(self.attempt, stage=stage))

    def fail(self, error: Exception) -> None:
        sentence = explain_fault(error) or f"a fault of the program, {name_fault(error)}"
        self._write(replace(self.attempt, ended_at=read_clock(), exit_code=exit_code(error), sentence=sentence))

    def succeed(self) -> None:
        self._write(replace(self.attempt, ended_at=read_clock(), exit_code=DONE))
        with suppress(OSError):
            for file in self._file.parent.glob("[0-9]*.json"):
                if file != self._file and (raw := _read(file)) and raw["exit_code"] == DONE:
                    file.unlink(missing_ok=True)

    def _write(self, attempt: Attempt) -> None:
        self.attempt = attempt
        # A command that was called wrongly makes no lake.
        if self._lake.restricted.is_dir():
            with suppress(OSError):
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(self._file, json.dumps(asdict(attempt), indent=1, sort_keys=True))


@contextmanager
def note_attempt(lake: Lake, run_date: date, stage: str) -> Iterator[Note]:
    """Keeps a note of what runs inside, from the first `begin` or from its failure on."""
    note = Note(lake, Attempt(run_date.isoformat(), stage, read_clock()))
    try:
        yield note
    except Exception as error:
        note.fail(error)
        raise
    note.succeed()


def read_attempts(lake: Lake) -> list[Attempt]:
    """All notes in the order in which they were last heard of."""
    files = (lake.restricted / FOLDER).glob("run_date=*/[0-9]*.json")
    return sorted((Attempt(**raw) for raw in map(_read, files) if raw), key=lambda attempt: attempt.last_heard)


def read_clock() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(file.read_text()))
    except FileNotFoundError:  # a later one of its date has ended well in this moment
        return None
