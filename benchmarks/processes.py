"""What a command and all processes below it take: seconds of processor time, and memory (PSS), sampled from /proc.

PSS counts a page that several processes share once in all, so that it may be added up over processes.
"""

import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.25  # seconds from one sample to the next
MEMORY_EVERY = 8  # samples: the kernel walks all pages of a process to tell its PSS
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20


@dataclass
class Usage:
    """`samples` are (seconds since the start, processor seconds so far), `memory` (seconds, MiB by kind of process)."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    memory: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """MiB of all processes together, at their most."""
        return sum(self.peak_between(0.0, math.inf).values())

    def peak_between(self, start: float, end: float) -> dict[str, float]:
        """MiB by kind of process at the moment between two when they are most together."""
        parts = [parts for at, parts in self.memory if start <= at <= end]
        return max(parts, key=lambda each: sum(each.values()), default={})

    def cpu_between(self, start: float, end: float) -> float:
        """Processor seconds between two moments, from the samples next to them."""
        return self._cpu_at(end) - self._cpu_at(start)

    def _cpu_at(self, moment: float) -> float:
        return max((cpu for at, cpu in self.samples if at <= moment + EVERY), default=0.0)


class Watch(threading.Thread):
    """Samples the processes of a session (setsid) until it is told to stop."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.usage, self._session, self._ended = Usage(), session, threading.Event()
        self._cpu: dict[int, float] = {}
        self._start = time.monotonic()

    def run(self) -> None:
        while not self._ended.wait(EVERY):
            self._sample()

    def finish(self) -> Usage:
        self._ended.set()
        self.join()
        return self.usage

    def _sample(self) -> None:
        total: dict[str, float] = {}
        weigh = len(self.usage.samples) % MEMORY_EVERY == 0
        for process in list_session(self._session):
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                self._cpu[process] = read_cpu(process)
                if weigh:
                    name, pss = read_memory(process)
                    total[name] = total.get(name, 0.0) + pss
        now = time.monotonic() - self._start
        self.usage.samples.append((now, sum(self._cpu.values())))
        if weigh:
            self.usage.memory.append((now, total))


def list_session(session: int) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(fields[3]) == session:
                yield int(folder.name)


def read_memory(process: int) -> tuple[str, float]:
    """What it is (driver, JVM, Python worker), and its PSS in MiB."""
    folder = Path(f"/proc/{process}")
    command = (folder / "cmdline").read_text().replace("\0", " ")
    name = "JVM" if "java" in command.split(" ")[0] else "worker" if "pyspark" in command else "driver"
    lines = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
    return name, int(lines["Pss"].split()[0]) * 1024 / MIB


def read_cpu(process: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True)
class Ended:
    """A command's lines of standard error with the seconds at which they came, its wall seconds, and its usage."""

    code: int
    lines: list[tuple[float, str]]
    seconds: float
    usage: Usage


def run_watched(command: Sequence[str]) -> Ended:
    """Run a command in a session of its own, so that all of its processes are found, and watch it."""
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    watch = Watch(process.pid)
    watch.start()
    assert process.stderr is not None
    lines = [(time.monotonic() - start, line.rstrip("\n")) for line in process.stderr]
    code = process.wait()
    return Ended(code, lines, time.monotonic() - start, watch.finish())
