"""The whole stack: from nothing to a healthy scheduler, a death, an end, and a second start on the same folder."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stack_supervisor import find_marked
from tests.docker.conftest import DOCKER

SECONDS = 600


def stack(*arguments):
    return [sys.executable, str(DOCKER / "stack.py"), *map(str, arguments)]


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def read_status(folder):
    file = folder / "status.json"
    return json.loads(file.read_text()) if file.exists() else {"ready": False}


@pytest.mark.slow
def test_a_stack_starts_mends_itself_ends_and_starts_again(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack", numbered=True)
    for parent in (folder, *folder.parents):  # PostgreSQL's user goes through
        if parent.is_relative_to("/tmp") and parent != parent.parent and os.access(parent, os.W_OK):
            parent.chmod(parent.stat().st_mode | 0o011)
    for start in range(2):
        process = subprocess.Popen(stack("start", "--folder", folder))
        try:
            wait_until(lambda: read_status(folder)["ready"])
            assert process.poll() is None
            if start == 0:
                for service, sign in (("scheduler", signal.SIGKILL), ("postgres", signal.SIGINT)):
                    ended = int((folder / "pids" / service).read_text())
                    os.kill(ended, sign)
                    wait_until(lambda service=service: read_status(folder)["services"][service]["restarts"] == 1)
                wait_until(lambda: read_status(folder)["ready"])
            assert subprocess.run(stack("status", "--folder", folder), check=False).returncode == 0
            assert subprocess.run(stack("start", "--folder", folder), check=False).returncode == 1
        finally:
            assert subprocess.run(stack("stop", "--folder", folder), check=False).returncode == 0
            process.wait(60)
        assert find_marked(folder) == []
