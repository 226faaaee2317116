"""A command whose supervisor is killed ends by itself."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

WORKS = """
import time
from jobs.supervised import end_with_supervisor
end_with_supervisor()
print("works", flush=True)
time.sleep(300)
"""
SUPERVISES = f"""
import os, subprocess, sys
os.environ["MINDCENSUS_SUPERVISOR"] = str(os.getpid())
child = subprocess.Popen([sys.executable, "-c", {WORKS!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip(), flush=True)
child.wait()
"""


@pytest.fixture
def supervisor() -> Iterator["subprocess.Popen[str]"]:
    """A process with a supervised one, which has begun to work; its standard error is that one's, too."""
    command = [sys.executable, "-c", SUPERVISES]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "works\n"
    yield process
    process.kill()
    process.communicate(timeout=60)


def test_an_orphan_ends(supervisor: "subprocess.Popen[str]") -> None:
    supervisor.kill()
    supervisor.communicate(timeout=60)  # the pipe closes when both have ended


def test_who_has_a_supervisor_works_on(supervisor: "subprocess.Popen[str]") -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.wait(1)


def test_a_supervisor_that_is_gone_already() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    ended = subprocess.run(
        [sys.executable, "-c", WORKS],
        env={"MINDCENSUS_SUPERVISOR": str(gone.pid)},
        stdin=subprocess.PIPE,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
