"""Faults of a running night, each made on real processes and seen to land: `benchmarks.chaos` draws from them."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos_plan import STAGES
from benchmarks.namespaces import Network
from benchmarks.spark_cluster import wait_until
from jobs.lease import find_newest, find_start, read_holder
from jobs.supervised import SUPERVISOR

HELD = 20.0  # seconds that a disk stays full or read-only
CUT = 30.0  # seconds that a worker is cut off
PATIENCE = 180.0  # seconds in which something has to have happened
TICK = 0.05
PIECE = 2**26  # bytes of a full disk


class NotLanded(Exception):
    """The stage was over before the fault came, or the fault could not be seen to have come."""


@dataclass(frozen=True)
class Driver:
    """A stage at work: its process, its lease's token, and the task's process that it works for, where that is told."""

    stage: str
    pid: int
    token: int
    supervisor: int | None


@dataclass(frozen=True)
class Ground:
    """Where faults happen: the lake on a mount of its own, the stack's folder, and the Spark workers' namespaces."""

    mount: Path
    lake: Path
    stack: Path
    network: Network
    draw: random.Random


def find_driver(lake: Path, stage: str) -> Driver | None:
    """The process that holds the lake, where it works at the stage."""
    leases = lake / "restricted" / "leases"
    holder, token = read_holder(leases), find_newest(leases)
    if holder is None:
        return None
    try:
        words = Path(f"/proc/{holder.pid}/cmdline").read_text().split("\0")
        environment = Path(f"/proc/{holder.pid}/environ").read_text().split("\0")
    except OSError:
        return None
    if next((word for word in words if word in STAGES), None) != stage:
        return None
    told = next((line.partition("=")[2] for line in environment if line.startswith(f"{SUPERVISOR}=")), "")
    return Driver(stage, holder.pid, token, int(told) if told.isdigit() else None)


def kill_scheduler(ground: Ground, driver: Driver) -> None:
    file = ground.stack / "pids" / "scheduler"
    killed = int(file.read_text())
    kill(killed)
    wait_until(
        lambda: file.exists() and int(file.read_text()) != killed, "the stack starts another scheduler", PATIENCE
    )


def kill_task(ground: Ground, driver: Driver) -> None:
    """The task's process; the driver that worked for it has to end by itself."""
    if driver.supervisor is None:
        raise NotLanded("the driver does not know for whom it works")
    kill(driver.supervisor)
    wait_until(lambda: find_start(driver.pid) is None, "the orphaned driver ends", PATIENCE)


def kill_driver(ground: Ground, driver: Driver) -> None:
    kill(driver.pid)


def kill_jvm(ground: Ground, driver: Driver) -> None:
    jvms = [pid for pid in [*list_ancestors(driver), *list_descendants(driver.pid)] if read_name(pid) == "java"]
    if not jvms:
        raise NotLanded("the stage has no JVM yet")
    kill(jvms[0])


def kill_spark_worker(ground: Ground, driver: Driver) -> None:
    """The worker's process itself, an executor's or a Python worker's, as the draw has it."""
    workers = [int(file.read_text()) for file in (ground.stack / "pids").glob("spark-worker-*")]
    below = [pid for worker in workers for pid in list_descendants(worker)]
    kill(ground.draw.choice(ground.draw.choice([workers, below or workers])))


def restart_database(ground: Ground, driver: Driver) -> None:
    file = ground.stack / "pids" / "postgres"
    ended = int(file.read_text())
    os.kill(ended, signal.SIGINT)
    wait_until(lambda: file.exists() and int(file.read_text()) != ended, "the stack starts PostgreSQL again", PATIENCE)


def fill_disk(ground: Ground, driver: Driver) -> None:
    filler = ground.mount / "filler"
    try:
        with filler.open("wb") as file:
            taken, piece = 0, PIECE
            # Others write meanwhile, so that no single piece fits: the rest is taken by halves.
            while piece >= os.statvfs(ground.mount).f_frsize:
                try:
                    os.posix_fallocate(file.fileno(), taken, piece)
                    taken += piece
                except OSError:
                    piece //= 2
        if os.statvfs(ground.mount).f_bavail > 0:
            raise NotLanded("the disk has room left")
        wait_for_end(driver, HELD)
    finally:
        filler.unlink(missing_ok=True)


def shut_lake(ground: Ground, driver: Driver) -> None:
    """Read-only for a while: the kernel refuses while a file is open for writing, so it is asked until it agrees."""
    deadline = time.monotonic() + HELD
    while subprocess.run(["mount", "-o", "remount,ro", ground.mount], capture_output=True).returncode:
        if time.monotonic() > deadline or find_start(driver.pid) is None:
            raise NotLanded("the kernel did not make the lake read-only")
        time.sleep(TICK)
    try:
        wait_for_end(driver, HELD)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", ground.mount], check=True)


def stop_holder(ground: Ground, driver: Driver) -> None:
    """Stops the driver with all its processes until another run has taken the lake and done the stage."""
    tree = [driver.pid, *list_descendants(driver.pid), *list_ancestors(driver)]
    words = Path(f"/proc/{driver.pid}/cmdline").read_text().split("\0")
    arguments = [word for word in words[words.index(driver.stage) :] if word]
    with stopped(tree):
        deadline = time.monotonic() + PATIENCE
        while (code := run_beside(driver, arguments)) == 5 and time.monotonic() < deadline:
            time.sleep(1)
        if code:
            raise AssertionError(f"the run that took over {driver.stage} ended with {code}")
    if find_newest(ground.lake / "restricted" / "leases") <= driver.token:
        raise NotLanded("nobody took the lake")
    wait_until(lambda: find_start(driver.pid) is None, "the holder that woke up ends", PATIENCE)


def run_beside(driver: Driver, arguments: list[str]) -> int:
    """The same stage as another process, with the driver's environment but for what ties it to its own spark-submit."""
    raw = Path(f"/proc/{driver.pid}/environ").read_bytes().decode().split("\0")
    tied = ("PYSPARK_GATEWAY", SUPERVISOR, "SPARK_ENV_LOADED", "PYTHONPATH", "_PYSPARK")
    environment = dict(line.split("=", 1) for line in raw if "=" in line and not line.startswith(tied))
    environment["MINDCENSUS_SPARK_MASTER"] = "local[2,2]"
    command = [str(Path(sys.executable).with_name("mindcensus")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, timeout=600).returncode


def cut_worker_off(ground: Ground, driver: Driver) -> None:
    name = ground.draw.choice(ground.network.names)
    ground.network.cut(name)
    try:
        time.sleep(CUT)
    finally:
        ground.network.join(name)


FAULTS: dict[str, Callable[[Ground, Driver], None]] = {
    "scheduler killed": kill_scheduler,
    "task killed": kill_task,
    "driver killed": kill_driver,
    "JVM killed": kill_jvm,
    "Spark worker killed": kill_spark_worker,
    "database restarted": restart_database,
    "disk full": fill_disk,
    "lake read-only": shut_lake,
    "holder stopped": stop_holder,
    "worker cut off": cut_worker_off,
}


def kill(pid: int) -> None:
    """Raises NotLanded where it had ended already."""
    start = find_start(pid)
    if start is None:
        raise NotLanded("the process had ended")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: find_start(pid) != start, "the process dies", PATIENCE)


def wait_for_end(driver: Driver, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while find_start(driver.pid) is not None and time.monotonic() < deadline:
        time.sleep(TICK)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    alive = [pid for pid in pids if find_start(pid) is not None]
    for pid in alive:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in alive:
            if find_start(pid) is not None:
                os.kill(pid, signal.SIGCONT)


def list_ancestors(driver: Driver) -> list[int]:
    """spark-submit's processes above the driver, up to the task's."""
    found, pid = [], read_parent(driver.pid)
    while pid > 1 and pid != driver.supervisor and read_name(pid) in ("java", "bash", "spark-submit"):
        found.append(pid)
        pid = read_parent(pid)
    return found


def list_descendants(pid: int) -> list[int]:
    parents = {
        int(entry.name): read_parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    }
    found, level = [], [pid]
    while level := [child for child, parent in parents.items() if parent in level]:
        found += level
    return found


def read_parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def read_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
