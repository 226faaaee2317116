"""A stage that was started for somebody ends with them: an orphan would hold the lake for nobody."""

import os
import select
import threading
from contextlib import suppress

import structlog

from jobs.errors import FAULT

SUPERVISOR = "MINDCENSUS_SUPERVISOR"  # the id of the process for which the command works, where there is one


def end_with_supervisor() -> None:
    """Ends this process, as a SIGKILL would, once the supervisor is gone, or spark-submit whose driver it is.

    Stages leave nothing that can be read before they are done, so this may come at any moment.
    """
    watched = [int(pid) for pid in (os.environ.get(SUPERVISOR, ""),) if pid.isdigit()]
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        watched.append(os.getppid())
    if watched:
        threading.Thread(target=_wait_and_end, args=(watched,), name="supervisor", daemon=True).start()


def _wait_and_end(watched: list[int]) -> None:
    poll = select.poll()
    try:
        for pid in watched:
            poll.register(os.pidfd_open(pid), select.POLLIN)
        poll.poll()
    except ProcessLookupError:
        pass  # gone before it could be watched
    with suppress(OSError):  # who listened may be gone, too
        structlog.get_logger().error("stage ended", why="the process that it was started for has gone")
    os._exit(FAULT)
