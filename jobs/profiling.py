"""Where the time of a night's stages went: Python functions of the driver, and the stages of Spark's jobs.

Names and figures alone: no value of a row can stand in what is written.
"""

import cProfile
import pstats
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

MOST = 15  # rows of a table: the dearest
MEBI = 2**20


@dataclass
class Recorder:
    """What is told of a stage while it runs."""

    spark: list[dict[str, Any]] = field(default_factory=list)


recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def profile_stage(folder: Path, stage: str) -> Iterator[None]:
    """Profile the stage that runs inside, and write `<stage>.md` into `folder` whether it ends well or not."""
    told = Recorder()
    token = recorder.set(told)
    functions = cProfile.Profile()
    start, cpu = time.monotonic(), time.process_time()
    try:
        with functions:
            yield
    finally:
        recorder.reset(token)
        seconds = time.monotonic() - start, time.process_time() - cpu
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stage}.md").write_text(_write(stage, seconds, told.spark, functions))


def note_spark(session: SparkSession) -> None:
    """Note the stages of a session's jobs; does nothing where nobody profiles."""
    told = recorder.get()
    if told is None:
        return
    context = session.sparkContext
    gateway: Any = context._gateway
    store = context._jsc.sc().statusStore()
    # Its last arguments ask for quantiles of the tasks, which are not needed.
    found = store.stageList(None, False, False, gateway.new_array(gateway.jvm.double, 0), None)
    for stage in (found.apply(number) for number in range(found.size())):
        told.spark.append(
            {
                "stage": stage.stageId(),
                "what": re.sub(r"/\S*/(?=\S+/)", "", stage.name()),  # a file's folders say nothing
                "tasks": stage.numTasks(),
                "run s": stage.executorRunTime() / 1e3,
                "cpu s": stage.executorCpuTime() / 1e9,
                "gc s": stage.jvmGcTime() / 1e3,
                "read MiB": (stage.inputBytes() + stage.shuffleReadBytes()) / MEBI,
                "written MiB": (stage.outputBytes() + stage.shuffleWriteBytes()) / MEBI,
                "spilled MiB": stage.diskBytesSpilled() / MEBI,
            }
        )


def _write(stage: str, seconds: tuple[float, float], spark: list[dict[str, Any]], functions: cProfile.Profile) -> str:
    parts = [
        f"# {stage}: {seconds[0]:.1f} s, {seconds[1]:.1f} s of them the driver's own processor time\n",
        "## Spark's stages, by the time of their tasks\n",
        _tabulate(sorted(spark, key=lambda row: -row["run s"])[:MOST]) if spark else "None.\n",
        "## Python functions of the driver, by the time in themselves\n",
        _tabulate(_rank_functions(functions)),
    ]
    return "\n".join(parts)


def _rank_functions(functions: cProfile.Profile) -> list[dict[str, Any]]:
    """Waiting for the JVM or for a socket shows as a function, too."""
    found: dict[tuple[str, int, str], Any] = pstats.Stats(functions).stats  # type: ignore[attr-defined]
    worst = sorted(found.items(), key=lambda pair: -pair[1][2])[:MOST]
    return [
        {
            "function": f"{name} ({'/'.join(Path(file).parts[-2:])}:{line})",
            "calls": calls,
            "self s": own,
            "total s": total,
        }
        for (file, line, name), (_, calls, own, total, _) in worst
    ]


def _tabulate(rows: list[dict[str, Any]]) -> str:
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads)]
    lines += [[f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
