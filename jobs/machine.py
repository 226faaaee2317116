"""This machine's cores and memory, and how large a Spark session on it is. Of the standard library alone."""

import os
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
# For each core: what a task at work takes of the JVM's heap, and its Python worker with torch beside that. (With 1 GiB
# of heap a core a night of ten million people ended in an error of the JVM, on two cores.)
HEAP_PER_CORE, PYTHON_PER_CORE = 1.15 * GIB, 0.75 * GIB
LEAST_HEAP_PER_CORE = 0.75 * GIB
CGROUP = Path("/sys/fs/cgroup")
HEAP_VARIABLE = "MINDCENSUS_DRIVER_MEMORY"
LEAST_HEAP = 1 * GIB
USABLE = 0.8  # of the memory: the rest is the operating system's, and the JVM's own beside its heap


@dataclass(frozen=True)
class Size:
    """A Spark session's cores, and the heap of its JVM in bytes."""

    cores: int
    heap: int


def measure_machine() -> Size:
    """All cores that this process may use and the memory can serve; a heap that grows with them as far as that goes.

    Memory follows the tasks at work, and those follow the cores: the population's size changes nothing.
    """
    usable = USABLE * memory_limit() - PYTHON_PER_CORE  # the driver's Python
    served = int(usable / (LEAST_HEAP_PER_CORE + PYTHON_PER_CORE))
    cores = max(1, min(count_cores(), served))
    room = usable - PYTHON_PER_CORE * cores
    return Size(cores, int(max(LEAST_HEAP, min(HEAP_PER_CORE * cores, room))))


def count_cores() -> int:
    """Those that this process may run on, or the container's share of them where that is smaller."""
    cores = len(os.sched_getaffinity(0))
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        paths = [CGROUP / file for file in files]
        if all(path.exists() for path in paths):
            quota, period = " ".join(path.read_text() for path in paths).split()
            return min(cores, max(1, int(quota) // int(period))) if quota.isdigit() else cores
    return cores


def choose_heap() -> str:
    """The heap of a session's JVM as Spark reads it: what MINDCENSUS_DRIVER_MEMORY says, else as the machine has it."""
    return os.environ.get(HEAP_VARIABLE) or f"{measure_machine().heap // 2**20}m"


def memory_limit() -> int:
    """Bytes that this process may use: the machine's memory, or the container's limit where that is smaller."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes"):
        if file.exists() and (text := file.read_text().strip()).isdigit():
            return min(machine, int(text))
    return machine
