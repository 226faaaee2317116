"""Spark sessions: the settings that every stage shares."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from jobs.cluster import SMALL_BUFFERS, cluster_settings, find_master, is_cluster, is_submitted, read_given
from jobs.lake import Lake
from jobs.machine import choose_heap, measure_machine
from jobs.profiling import note_spark
from jobs.progress import show_spark

# For small tables; `validate` takes more for a large extract.
SHUFFLE_PARTITIONS = 8
# Executors log a failed task's exception as an error, and such an exception may quote a row.
LOG_LEVEL = "FATAL"
ATTEMPTS = 2  # at a task on this machine: a worker that the kernel has killed is not the night's end
# A worker's arrays lie in large pages, where the kernel has them for those who ask: see also model/heap.py.
LARGE_PAGES = "glibc.malloc.hugetlb=1"


def settings(lake: Lake) -> dict[str, str]:
    """Ids are pseudonyms before any shuffle; what spills stays under restricted/, encrypted."""
    return {
        "spark.local.dir": str(local_folder(lake)),
        "spark.io.encryption.enabled": "true",
        "spark.sql.shuffle.partitions": str(SHUFFLE_PARTITIONS),
        "spark.sql.adaptive.enabled": "true",
        # A survey has more columns than Spark's hundred, past which it reads and adds up row by row.
        "spark.sql.codegen.maxFields": "10000",
        # Java compiles no longer method; past it Spark's own is cut into small ones instead.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.parquet.compression.codec": "zstd",
        # Spark's default, INT96, is read without its time zone.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.csv.parser.columnPruning.enabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # By rows alone: to know a batch's bytes, Spark goes through all its columns for every row.
        "spark.sql.execution.arrow.maxBytesPerBatch": str(2**31 - 1),
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.python.worker.reuse": "true",
        "spark.executorEnv.GLIBC_TUNABLES": LARGE_PAGES,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "true" if sys.stderr.isatty() else "false",
    }


def local_folder(lake: Lake) -> Path:
    """Where a session's spills lie: each holder of the lake has a folder of its own."""
    return lake.restricted / "spark" / f"{lake.holder_token:08d}"


@contextmanager
def spark_session(lake: Lake, stage: str) -> Iterator[SparkSession]:
    """A session of the stage: under spark-submit where and as large as it says, else as large as this machine."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    lake.check_lease()
    scratch = local_folder(lake)
    # What a killed run left: whoever starts a session holds the lake.
    shutil.rmtree(scratch.parent, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    master = find_master(f"local[{measure_machine().cores},{ATTEMPTS}]")
    chosen = settings(lake)
    own: dict[str, str] = {}
    if not is_submitted():
        own = {"spark.master": master, "spark.driver.memory": choose_heap(), "spark.log.level": LOG_LEVEL}
        own["spark.driver.defaultJavaOptions"] = SMALL_BUFFERS
    if is_cluster(master):
        chosen |= cluster_settings(master, read_given(own))
    builder = SparkSession.builder.appName(f"mindcensus {stage}")
    for key, value in {**chosen, **own}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel(LOG_LEVEL)
    try:
        with show_spark(session.sparkContext):
            yield session
        with suppress(Exception):  # what it asks of the JVM is told for information alone
            note_spark(session)
    finally:
        jvm: Any = session.sparkContext._jvm
        session.stop()
        shutil.rmtree(scratch, ignore_errors=True)
        # The JVM outlives the session: a later stage's workers need the memory of its heap.
        empty_heap(jvm)


def empty_heap(jvm: Any) -> None:
    """Makes a JVM give back the memory of what it has no more use for; Python has the work for a while."""
    with suppress(Exception):
        jvm.java.lang.System.gc()
