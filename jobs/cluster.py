"""What Spark has to be told where a cluster's executors do the work: all of it, and only here.

How large the cluster is stands in Spark's own settings (spark.executor.instances, .cores, .memory), given to
spark-submit or in the spark-defaults.conf of SPARK_CONF_DIR, where its secrets stand, too: none of them is ever a
command line's.
"""

import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pyspark import SparkConf, SparkContext

from jobs.machine import HEAP_PER_CORE, PYTHON_PER_CORE

PROJECT = Path(__file__).resolve().parents[1]
QUIET = f"-Dlog4j2.configurationFile=file:{PROJECT}/jobs/templates/executor_log.properties"
MIB = 2**20
# Each thread of a JVM keeps a buffer beside the heap as large as the largest array it has sent: half a gigabyte in all,
# where workers' tables pass through.
SMALL_BUFFERS = f"-Djdk.nio.maxCachedBufferSize={MIB // 4}"
ATTEMPTS = 4  # at a task: executors are lost more often than a machine's own workers
# Five seconds apart: a worker that was cut off for a minute still has what it had shuffled.
FETCHES = 15

log = logging.getLogger(__name__)


def is_submitted() -> bool:
    """Whether spark-submit started this process, and has its settings."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def find_master(local: str) -> str:
    """The master that spark-submit was given, else MINDCENSUS_SPARK_MASTER's, else this machine as `local` has it."""
    if not is_submitted():
        return os.environ.get("MINDCENSUS_SPARK_MASTER", local)
    SparkContext._ensure_initialized()
    return str(SparkConf().get("spark.master", local))


def is_cluster(master: str) -> bool:
    return re.match(r"local(\[|$)", master) is None


def read_given(launch: Mapping[str, str]) -> dict[str, str]:
    """Spark's settings as they were given; starts the JVM, unless it runs, with what it must have from then on."""
    conf = SparkConf(loadDefaults=False).setAll(list(launch.items()))
    SparkContext._ensure_initialized(conf=conf)
    return dict(SparkConf().getAll())


def cluster_settings(master: str, given: Mapping[str, str]) -> dict[str, str]:
    """Settings besides those of `spark.settings`; what was `given` for the cluster's size and addresses stays."""
    if given.get("spark.authenticate") != "true" or given.get("spark.network.crypto.enabled") != "true":
        log.warning(
            "people's answers cross the cluster's network in the clear: set spark.authenticate, its secret and "
            "spark.network.crypto.enabled (docs/operations.md, A cluster)"
        )
    cores = int(given.get("spark.executor.cores", "1"))
    sizes = {
        "spark.executor.cores": str(cores),
        "spark.executor.memory": f"{int(HEAP_PER_CORE * cores) // MIB}m",
        # Of the Python workers; a standalone cluster does not count it.
        "spark.executor.memoryOverhead": f"{int(PYTHON_PER_CORE * (cores + 1)) // MIB}m",
        "spark.task.maxFailures": str(ATTEMPTS),
        "spark.shuffle.io.maxRetries": str(FETCHES),
    }
    if master.startswith("spark://"):
        sizes["spark.driver.host"] = find_own_address(master)
        if "spark.executor.instances" in given:
            sizes["spark.cores.max"] = str(cores * int(given["spark.executor.instances"]))
    return {key: value for key, value in sizes.items() if key not in given} | {
        # The driver's own code, where the executors' machines have it at the same place.
        "spark.executorEnv.PYTHONPATH": str(PROJECT),
        "spark.executor.extraJavaOptions": f"{given.get('spark.executor.extraJavaOptions', '')} {QUIET}".strip(),
        "spark.executor.defaultJavaOptions": SMALL_BUFFERS,
        # The lake's paths are files, whatever the cluster's own file system is.
        "spark.hadoop.fs.defaultFS": "file:///",
    }


def find_own_address(master: str) -> str:
    """This machine's address as a standalone master sees it; nothing is sent."""
    place = urlsplit(master.split(",")[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((place.hostname, place.port or 7077))
        return str(probe.getsockname()[0])
