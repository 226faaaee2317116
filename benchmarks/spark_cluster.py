"""A Spark standalone cluster on one machine: a master and two workers, each in a network namespace of its own.

The driver stays on this machine, in client mode, and the lake is a folder that all of them see.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyspark

from benchmarks.namespaces import Network, make_network

MASTER, WORKERS = "master", ("worker-1", "worker-2")
PORT, PAGE = 7077, 8080
CORES, MEMORY = 1, "1g"  # of each worker's executor
WORKER_MEMORY = "2g"
START_SECONDS = 300.0
HOME = Path(pyspark.__file__).parent
PROJECT = Path(__file__).resolve().parents[1]
# What the processes of a namespace are, by a word of their command lines.
KINDS = {
    "worker": "org.apache.spark.deploy.worker.Worker",
    "executor": "CoarseGrainedExecutorBackend",
    "python": "-m pyspark.",
}


@dataclass(frozen=True)
class Cluster:
    """`folder` has the daemons' logs, the workers' folders and Spark's settings with the cluster's secret."""

    network: Network
    folder: Path
    lake: Path

    @property
    def master(self) -> str:
        return f"spark://{self.network.address(MASTER)}:{PORT}"

    @property
    def settings(self) -> Path:
        """The folder that SPARK_CONF_DIR names."""
        return self.folder / "conf"

    def environment(self) -> dict[str, str]:
        """What a driver is started with, besides what it has."""
        return {
            "MINDCENSUS_SPARK_MASTER": self.master,
            "SPARK_CONF_DIR": str(self.settings),
            "SPARK_HOME": str(HOME),
            "PYSPARK_PYTHON": sys.executable,
        }

    def start_master(self) -> None:
        place = ["--host", self.network.address(MASTER), "--port", str(PORT), "--webui-port", str(PAGE)]
        self._start(MASTER, "org.apache.spark.deploy.master.Master", *place)

    def start_worker(self, name: str) -> None:
        place = ["--host", self.network.address(name), "--cores", str(CORES), "--memory", WORKER_MEMORY]
        folder = ["--work-dir", str(self.folder / name)]
        self._start(name, "org.apache.spark.deploy.worker.Worker", *place, *folder, self.master)

    def pids(self, name: str, kind: str) -> list[int]:
        """Processes of a worker's machine: "worker" (Spark's daemon), "executor" (its JVM) or "python"."""
        return [pid for pid in self.network.pids(name) if KINDS[kind] in read_command(pid)]

    def kill(self, name: str, *kinds: str) -> list[int]:
        """SIGKILL to the processes of these kinds; returns them."""
        killed = [pid for kind in kinds for pid in self.pids(name, kind)]
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return killed

    def wait_for_workers(self, count: int = len(WORKERS)) -> None:
        """Until the master has so many workers that are alive. Raises TimeoutError."""
        wait_until(lambda: self._count_workers() == count, f"the master has {count} workers", START_SECONDS)

    def _count_workers(self) -> int:
        with suppress(OSError), urllib.request.urlopen(self._page, timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
        return -1

    @property
    def _page(self) -> str:
        return f"http://{self.network.address(MASTER)}:{PAGE}/json/"

    def _start(self, name: str, daemon: str, *arguments: str) -> None:
        programs = str(Path(sys.executable).parent)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SPARK", "PYSPARK", "PYTHON"))},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SPARK_HOME": str(HOME),
            "SPARK_CONF_DIR": str(self.settings),
            "SPARK_LOCAL_IP": self.network.address(name),
            # Spills hold people's answers: in the folder that is for the lake's owner alone.
            "SPARK_LOCAL_DIRS": str(self.lake / "restricted" / "spark"),
            "SPARK_DAEMON_MEMORY": "512m",
            # They have little to do, and should not compile for it.
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [*self.network.enter(name), str(HOME / "bin" / "spark-class"), daemon, *arguments]
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o077, cwd=self.folder
            )


@contextmanager
def start_cluster(folder: Path, lake: Path, settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A master and two workers that it knows, with more of Spark's `settings`; nothing of them is left afterwards.

    `folder` is new, and stays. Raises NamespaceError where this machine cannot make namespaces, and TimeoutError.
    """
    (folder / "conf").mkdir(parents=True, mode=0o700)
    with make_network((MASTER, *WORKERS)) as network:
        cluster = Cluster(network, folder, lake.resolve())
        write_settings(cluster.settings / "spark-defaults.conf", settings or {})
        cluster.start_master()
        for name in WORKERS:
            cluster.start_worker(name)
        cluster.wait_for_workers()
        yield cluster


def write_settings(file: Path, more: Mapping[str, str]) -> None:
    """For master, workers and drivers alike; for their owner alone, since the cluster's secret is among them."""
    settings = {
        "spark.authenticate": "true",
        "spark.authenticate.secret": secrets.token_hex(32),
        "spark.network.crypto.enabled": "true",
        "spark.master.rest.enabled": "false",
        "spark.executor.instances": str(len(WORKERS)),
        "spark.executor.cores": str(CORES),
        "spark.executor.memory": MEMORY,
        **more,
    }
    file.touch(mode=0o600)
    file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))


def read_command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Raises TimeoutError, which says what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {seconds:.0f} seconds this did not happen: {what}")
        time.sleep(0.05)
