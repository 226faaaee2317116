"""One Spark session for all tests that need one."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings
from pyspark.sql import SparkSession

from tests.nights.small_night import QUICK_JVM

# No example has a deadline: a busy machine is no fault.
settings.register_profile("mindcensus", deadline=None)
settings.load_profile("mindcensus")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_SUBMIT_OPTS"] = QUICK_JVM
    session = (
        SparkSession.builder.master("local[2]")
        .appName("mindcensus tests")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.driver.memory", "2g")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    # Its farewell at exit would find the streams closed.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    yield session
    session.stop()


@pytest.fixture
def own_logs() -> Iterator[None]:
    """The logs of a command in the test's own process go to the test's own stream; afterwards all is as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
