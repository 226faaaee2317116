"""This machine's cores and memory, and how large a Spark session on it is. Of the standard library alone."""

import os
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
# For each core: what a task at work takes of the JVM's heap, and its Python worker with torch beside that.
HEAP_PER_CORE, PYTHON_PER_CORE = 1.25 * GIB, 0.75 * GIB
LEAST_HEAP = 1 * GIB
USABLE = 0.8  # of the memory: the rest is the operating system's, and the JVM's own beside its heap


@dataclass(frozen=True)
class Size:
    """A Spark session's cores, and the heap of its JVM in bytes."""

    cores: int
    heap: int


def measure_machine() -> Size:
    """All cores that this process may use, and a heap that grows with them as far as the memory goes.

    Memory follows the tasks at work, and those follow the cores: the population's size changes nothing.
    """
    cores = len(os.sched_getaffinity(0))
    room = USABLE * memory_limit() - PYTHON_PER_CORE * (cores + 1)
    return Size(cores, int(max(LEAST_HEAP, min(HEAP_PER_CORE * cores, room))))


def memory_limit() -> int:
    """Bytes that this process may use: the machine's memory, or the container's limit where that is smaller."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in map(Path, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if file.exists() and (text := file.read_text().strip()).isdigit():
            return min(machine, int(text))
    return machine
