"""A training spread over a cluster's executors: pyspark's TorchDistributor starts a rank on each.

Of one machine, and of features that are one row group, a training stays in the driver. Files and names go to the ranks,
a model comes back: people are read from the lake by whoever learns from them.
"""

import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch.distributed as dist
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from jobs.cluster import find_master, is_cluster
from jobs.lake import Lake
from jobs.spark import spark_session
from model.errors import ModelError
from model.fitting import Fitted, Task, TrainingSettings, fit
from model.heap import keep_freed_memory
from model.inputs import survey_inputs
from model.network import ProfileNetwork
from model.spec import FeatureSpec
from model.threads import fix_threads
from model.training import Fit

EXECUTORS_SECONDS = 60.0  # until those that the cluster should have are there
ADDRESS_OF = 0x8915  # SIOCGIFADDR of linux/sockios.h
ALONE: tuple[int, Fit] = (1, fit)


@contextmanager
def share_training(lake: Lake, features: Sequence[Path], device: str) -> Iterator[tuple[int, Fit]]:
    """How many ranks a training of these features has, and what takes its steps.

    Several where the master is a cluster's, spark.executor.instances is more than one, and the work is the processors':
    as many as there are executors, and row groups at most.
    """
    if not is_cluster(find_master("local")) or device != "cpu":
        yield ALONE
        return
    with spark_session(lake, "train") as spark:
        groups = sum(pq.read_metadata(path).num_row_groups for path in features)
        ranks = min(groups, wait_for_executors(spark))
        yield (ranks, partial(fit_on_executors, ranks)) if ranks > 1 else ALONE


def wait_for_executors(spark: SparkSession) -> int:
    """How many of the executors that were asked for have come within a minute."""
    wanted = int(spark.conf.get("spark.executor.instances", "1") or 1)
    tracker: Any = spark.sparkContext._jsc.sc().statusTracker()
    deadline = time.monotonic() + EXECUTORS_SECONDS
    found = 0
    while found < wanted and time.monotonic() < deadline:
        found = len(tracker.getExecutorInfos()) - 1  # the driver is among them
        time.sleep(0.2)
    return min(found, wanted)


def fit_on_executors(
    ranks: int, network: ProfileNetwork, task: Task, folder: Path, progress: bool
) -> Fitted[ProfileNetwork]:
    """As `fit`, by ranks that each read their shard of the row groups. The progress is not shown."""
    distributor = TorchDistributor(num_processes=ranks, local_mode=False, use_gpu=False)
    # It says at length what the stage's own log says.
    distributor.logger.setLevel(logging.WARNING)
    ended = distributor.run(fit_rank, network, list(task.paths), task.spec, task.settings, task.files, folder)
    if isinstance(ended, ModelError):
        raise ended
    assert isinstance(ended, Fitted)
    return ended


def fit_rank(
    network: ProfileNetwork,
    paths: list[Path],
    spec: FeatureSpec,
    settings: TrainingSettings,
    files: list[str],
    folder: Path,
) -> Fitted[ProfileNetwork] | ModelError:
    """One rank's part: every rank ends with the same network. A ModelError is all ranks', and is told by the driver."""
    os.umask(0o077)
    keep_freed_memory()
    os.environ["GLOO_SOCKET_IFNAME"] = find_interface(os.environ["MASTER_ADDR"])
    dist.init_process_group("gloo")
    try:
        with fix_threads(settings.threads):
            inputs = survey_inputs(paths, spec, settings.weight_column)
            task = Task(paths, spec, settings, inputs, files, dist.get_rank())
            return fit(network, task, folder, progress=False)
    except ModelError as error:
        return error
    except Exception as error:
        # Its own words may quote a row, and would lie in a log.
        raise RuntimeError(f"a rank of the training ended by {type(error).__name__}") from None
    finally:
        dist.destroy_process_group()


def find_interface(master: str) -> str:
    """The network interface from which the first rank's machine is reached; a host name may name another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((master, 1))
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                told = fcntl.ioctl(probe.fileno(), ADDRESS_OF, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(told[20:24]) == own:
                    return name
    raise ModelError(f"Training stopped: this machine's address {own} is of none of its network interfaces.")
