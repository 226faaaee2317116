"""Whose turn it is on a lake: a lease that its holder renews, under a fencing token that only rises.

Each lease is a file restricted/leases/<token>.json; the highest token's is in force. It is taken by an exclusive
create, so that of two who try one succeeds, on a shared folder as on a disk. It is free once its holder has let go or
is seen to have ended, and where nobody has renewed it for a while: its holder was stopped or cut off. Such a holder may
wake up later, so `check` comes before everything that others can see.
(Fencing: Kleppmann, Designing Data-Intensive Applications, chapter 8.)
"""

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.errors import LakeHeld, LeaseLost

SECONDS = 60.0  # without a renewal: then others may take the lease
BEATS = 12  # renewals in that time


@dataclass(frozen=True)
class Holder:
    """A process that holds a lake, and what tells whether it is still there."""

    host: str
    machine: str  # the kernel's boot and the process's id namespace: within one, process ids can be looked up
    pid: int
    started: str  # in the kernel's ticks since its boot: process ids come again
    since: str
    ended: bool = False

    @staticmethod
    def of_this_process() -> "Holder":
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return Holder(socket.gethostname(), find_machine(), os.getpid(), find_start(os.getpid()) or "", since)

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; of another machine's nothing is known."""
        return self.ended or (self.machine == find_machine() and find_start(self.pid) != self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """A lease in force, renewed by a thread until it is let go. A waking holder of an old one is told by `check`."""

    def __init__(self, folder: Path, token: int, holder: Holder, seconds: float) -> None:
        self.folder, self.token, self._holder = folder, token, holder
        self._file = name_lease(folder, token)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, args=(seconds / BEATS,), name="lease", daemon=True)
        self._thread.start()

    @staticmethod
    def take(folder: Path, seconds: float = SECONDS) -> "Lease":
        """Takes the lake's lease. `folder` is `restricted/leases`.

        Raises LakeHeld where another process holds it, or was quicker.
        """
        quicker = f"another run was quicker to take the lake {folder.parent.parent}: wait until it ends"
        newest = find_newest(folder)
        token = newest + 1
        holder = Holder.of_this_process()
        scratch = folder / f".{token:08d}.{uuid.uuid4().hex}.tmp"
        try:
            scratch.write_text(json.dumps(asdict(holder)))
            if newest:
                _check_free(name_lease(folder, newest), scratch, seconds)
            os.link(scratch, name_lease(folder, token))
        except FileExistsError:
            raise LakeHeld(quicker) from None
        finally:
            scratch.unlink(missing_ok=True)
        if find_newest(folder) != token:
            # Between the look and the create a whole lease came and went, its file with it.
            name_lease(folder, token).unlink()
            raise LakeHeld(quicker)
        for file in folder.glob("[0-9]*.json"):
            if int(file.stem) < token:
                file.unlink(missing_ok=True)
        return Lease(folder, token, holder, seconds)

    def check(self) -> None:
        """Raises LeaseLost where another process has taken the lake since."""
        if find_newest(self.folder) != self.token:
            raise LeaseLost(
                "this run stood still for so long that another one took the lake: it is given up, and changes nothing"
            )

    def let_go(self) -> None:
        """Frees the lake; the file stays, so that its token is never given again."""
        self._done.set()
        self._thread.join()
        with suppress(OSError):
            # Whoever looks next sees that the process is gone, or waits.
            scratch = self._file.with_name(f".{self._file.name}.tmp")
            scratch.write_text(json.dumps(asdict(replace(self._holder, ended=True))))
            if find_newest(self.folder) == self.token:
                scratch.replace(self._file)
            scratch.unlink(missing_ok=True)

    def _renew(self, pause: float) -> None:
        while not self._done.wait(pause):
            # A full or read-only disk may let it in again before the lease runs out.
            with suppress(OSError):
                os.utime(self._file)


def name_lease(folder: Path, token: int) -> Path:
    return folder / f"{token:08d}.json"


def find_newest(folder: Path) -> int:
    """The highest token that was ever given; 0 before the first."""
    return max((int(file.stem) for file in folder.glob("[0-9]*.json")), default=0)


def read_holder(folder: Path) -> Holder | None:
    """Who holds the lake, as far as its lease's file tells; None where nobody does."""
    newest = find_newest(folder)
    holder = _read(name_lease(folder, newest)) if newest else None
    return None if holder is None or holder.is_gone() else holder


def find_machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"


def find_start(pid: int) -> str | None:
    """When a process started; None where there is none, or only what its parent has not yet taken note of."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _read(file: Path) -> Holder | None:
    try:
        return Holder(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None


def _check_free(file: Path, scratch: Path, seconds: float) -> None:
    holder = _read(file)
    if holder is None or holder.is_gone():
        return
    with suppress(FileNotFoundError):
        # Both times are the file system's own, so that no two machines' clocks are compared.
        unrenewed = abs(scratch.stat().st_mtime - file.stat().st_mtime)
        if unrenewed < seconds:
            raise LakeHeld(f"another run holds the lake {file.parents[2]} ({holder}): wait until it ends")
