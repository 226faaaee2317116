"""The access log: who has read one person's data, when and why, as a chain of lines that only grows.

`restricted/audit/log.jsonl` has a JSON object a line, each with the sha256 of the line before it, so that no entry can
be changed or removed without breaking the chain. `head.json` beside it says how long the log is and how it ends. An
entry is on the disk before anything is shown. Whoever may write to the folder could make the whole chain anew: only a
copy of its last hash kept elsewhere tells (Schneier and Kelsey 1999, on logs of untrusted machines).
"""

import fcntl
import hashlib
import json
import os
import pwd
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from jobs.errors import AuditBroken, UsageError
from jobs.lake import Lake, flush, write_atomically

FOLDER, LOG, HEAD = "audit", "log.jsonl", "head.json"
FIRST = "0" * 64  # what the first entry follows
LONGEST_REASON = 500  # characters
PSEUDONYM = re.compile(r"[0-9a-f]{64}\Z")
NOBODY = 2**32 - 1  # the kernel's login id of a process that nobody logged in for
BEGIN_ANEW = "restore restricted/audit from a back-up, or keep it aside as evidence: a new log begins without it"


@dataclass(frozen=True)
class Head:
    """How the log stands: its entries, its bytes, and the sha256 of its last line."""

    entries: int = 0
    size: int = 0
    last: str = FIRST

    def follow(self, line: bytes) -> "Head":
        return Head(self.entries + 1, self.size + len(line), hashlib.sha256(line).hexdigest())


def check_reason(reason: str | None) -> str:
    """The reason as it is kept. Raises UsageError where there is none, or one that is too long to be one."""
    told = (reason or "").strip()
    if not told:
        raise UsageError("one person's data is read for a reason: say it by --reason TEXT; it goes to the access log")
    if len(told) > LONGEST_REASON:
        raise UsageError(f"--reason: more than {LONGEST_REASON} characters; say it shortly, and name nobody")
    return told


def check_pseudonym(text: str) -> str:
    """Raises UsageError where it is none: a delivered id, given by mistake, must not get into the log."""
    if not PSEUDONYM.match(text):
        raise UsageError("--person-id is no pseudonym: give a `person_id` of the profiles, 64 hexadecimal characters")
    return text


def log_access(lake: Lake, command: str, people: Sequence[str | None], reason: str) -> None:
    """An entry for each of the pseudonyms (None: nobody in particular), on the disk when this returns.

    Raises AuditBroken where the log does not end as it did when it was last written to.
    """
    folder = lake.restricted / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "who": name_user(), "command": command}
    with _lock(folder), _open_log(folder) as log:
        head = _mend_end(log, _read_head(folder))
        if not head.entries:  # an entry without a head beside it would look like a cut log
            write_atomically(folder / HEAD, json.dumps(asdict(head)))
        for person in people:
            entry = {**told, "number": head.entries + 1, "person": person, "reason": reason, "previous": head.last}
            line = json.dumps(entry, sort_keys=True).encode() + b"\n"
            log.write(line)
            head = head.follow(line)
        log.flush()
        os.fsync(log.fileno())
        write_atomically(folder / HEAD, json.dumps(asdict(head)))
        flush(folder)


def verify_log(lake: Lake) -> Head:
    """Reads the whole chain. Raises AuditBroken, which says at which entry it breaks."""
    folder = lake.restricted / FOLDER
    if not (folder / LOG).exists() and not (folder / HEAD).exists():
        return Head()
    with _lock(folder), _open_log(folder) as log:
        told, head = _read_head(folder), Head()
        log.seek(0)
        for line in log:
            if not line.endswith(b"\n") and head.entries >= told.entries:
                break  # begun and never finished: nothing was shown for it
            head = _follow(head, line)
            if head.entries == told.entries and head != told:
                raise AuditBroken(f"the access log breaks at entry {head.entries}: it was changed: {BEGIN_ANEW}")
        if head.entries < told.entries:
            raise AuditBroken(
                f"the access log is cut: it ends with entry {head.entries} and had {told.entries}: {BEGIN_ANEW}"
            )
        return head


def read_entries(lake: Lake) -> Iterator[dict[str, Any]]:
    """All entries, oldest first, as they were written."""
    file = lake.restricted / FOLDER / LOG
    if file.exists():
        with file.open("rb") as log:
            yield from (json.loads(line) for line in log if line.endswith(b"\n"))


def name_user() -> str:
    """The user of the operating system, and who had logged in where that is somebody else (by sudo)."""
    own = os.getuid()
    try:
        login = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        login = NOBODY
    return _name(own) if login in (own, NOBODY) else f"{_name(own)} (logged in as {_name(login)})"


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # in a container
        return f"user {user}"


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One writer at a time, of whatever process."""
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open_log(folder: Path) -> BinaryIO:
    handle = os.open(folder / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(handle, "r+b")


def _read_head(folder: Path) -> Head:
    try:
        return Head(**json.loads((folder / HEAD).read_text()))
    except FileNotFoundError:
        if (folder / LOG).stat().st_size:
            raise AuditBroken(f"the access log's {HEAD} is missing: it may have been cut: {BEGIN_ANEW}") from None
        return Head()
    except (ValueError, TypeError):
        raise AuditBroken(f"the access log's {HEAD} is damaged: {BEGIN_ANEW}") from None


def _mend_end(log: BinaryIO, head: Head) -> Head:
    """The head with what a writer added that was stopped before it had said so; an unfinished line goes."""
    if os.fstat(log.fileno()).st_size < head.size:
        raise AuditBroken(f"the access log is cut: it had {head.entries} entries: {BEGIN_ANEW}")
    if head.entries and hashlib.sha256(_read_last(log, head.size)).hexdigest() != head.last:
        raise AuditBroken(f"the access log breaks at entry {head.entries}: it was changed: {BEGIN_ANEW}")
    log.seek(head.size)
    for line in log.readlines():
        if line.endswith(b"\n"):
            head = _follow(head, line)
    log.truncate(head.size)
    log.seek(head.size)
    return head


def _read_last(log: BinaryIO, size: int) -> bytes:
    start = max(0, size - 8 * LONGEST_REASON - 4096)  # a character takes six bytes at most, `\uffff`
    log.seek(start)
    return log.read(size - start).splitlines(keepends=True)[-1]


def _follow(head: Head, line: bytes) -> Head:
    number = head.entries + 1
    try:
        entry = json.loads(line)
        number_told, previous = entry["number"], entry["previous"]
    except (ValueError, KeyError, TypeError):
        raise AuditBroken(f"the access log breaks at entry {number}: the line is no entry: {BEGIN_ANEW}") from None
    if previous != head.last:
        raise AuditBroken(
            f"the access log breaks between the entries {head.entries} and {number_told}: one was changed or removed: "
            f"{BEGIN_ANEW}"
        )
    return head.follow(line)
