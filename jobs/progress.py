"""Progress of long work, in the log: a line every so often while a stage is at work, with what Spark has done of it."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from pyspark import SparkContext

from model.progress import EVERY

_shown: list[SparkContext] = []  # of the session that is open


@contextmanager
def show_spark(context: SparkContext) -> Iterator[None]:
    """Lets whoever watches the stage see what the session inside does."""
    _shown.append(context)
    try:
        yield
    finally:
        _shown.remove(context)


@contextmanager
def watch_progress(log: Any, every: float = EVERY) -> Iterator[None]:
    """Logs `stage at work` every so many seconds, until what runs inside has ended."""
    done, start = threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(every):
            log.info("stage at work", seconds=round(time.monotonic() - start), **count_tasks())

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def count_tasks() -> dict[str, int]:
    """Of Spark's stages at work: tasks that are done, that run, and that there are. Nothing where none is at work."""
    counts = {"tasks_done": 0, "tasks_running": 0, "tasks": 0}
    with suppress(Exception):  # the session may end while it is asked
        tracker = _shown[-1].statusTracker()
        for stage in filter(None, map(tracker.getStageInfo, tracker.getActiveStageIds())):
            counts["tasks_done"] += stage.numCompletedTasks
            counts["tasks_running"] += stage.numActiveTasks
            counts["tasks"] += stage.numTasks
    return counts if counts["tasks"] else {}


class ModelProgress(logging.Handler):
    """Puts what the model tells of its training into the night's log, with the night's and the stage's names."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().info(record.getMessage(), **getattr(record, "progress", {}))


def hear_model() -> None:
    """Lets the log hear the model's progress, once."""
    heard = logging.getLogger("model.progress")
    heard.setLevel(logging.INFO)
    heard.propagate = False
    heard.handlers = [ModelProgress()]
