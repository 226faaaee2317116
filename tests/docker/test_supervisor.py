"""A stack of small services: their order, what happens when one dies, and that nothing is left of them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stack_services import MARK, Place, Service, fill_in, read_services
from stack_supervisor import Supervisor, find_marked
from tests.docker.conftest import DOCKER


@pytest.fixture
def supervise(tmp_path):
    """A supervisor of shell commands, which is ended with the test."""
    made = []

    def make(**services):
        environment = {**os.environ, MARK: str(tmp_path)}
        run = [Service(name, ("sh", "-c", command), environment, **more) for name, (command, more) in services.items()]
        made.append(Supervisor(tmp_path, run))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.end()


def step_until(supervisor, condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, supervisor.runs
        supervisor.step()
        time.sleep(0.02)


def pid_of(folder, name):
    return int((folder / "pids" / name).read_text())


def test_services_start_in_order(supervise, tmp_path):
    note = f">> {tmp_path}/order"
    supervisor = supervise(
        last=(
            f"echo last {note}; sleep 60",
            {"needs": {"first": "service_healthy", "once": "service_completed_successfully"}},
        ),
        first=(f"echo first {note}; sleep 60", {"health": ("test", "-e", str(tmp_path / "order"))}),
        once=(f"sleep 0.3; echo once {note}", {"restarts": False}),
    )
    step_until(supervisor, lambda: supervisor.ready and (tmp_path / "order").read_text().count("\n") == 3)
    assert (tmp_path / "order").read_text().split() == ["first", "once", "last"]
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["ready"] is True
    assert {name: service["state"] for name, service in status["services"].items()} == {
        "first": "healthy",
        "once": "completed",
        "last": "healthy",
    }


def test_one_that_dies_is_started_again(supervise, tmp_path):
    supervisor = supervise(lasting=("sleep 60", {}))
    step_until(supervisor, lambda: supervisor.ready)
    killed = pid_of(tmp_path, "lasting")
    os.kill(killed, signal.SIGKILL)
    step_until(supervisor, lambda: supervisor.runs["lasting"].restarts == 1 and supervisor.ready)
    assert pid_of(tmp_path, "lasting") != killed


def test_what_one_that_dies_had_started_does_not_go_on(supervise, tmp_path):
    supervisor = supervise(lasting=("sleep 61 & sleep 62", {}))
    step_until(supervisor, lambda: supervisor.ready and len(find_marked(tmp_path)) >= 2)
    before = set(find_marked(tmp_path))
    os.kill(pid_of(tmp_path, "lasting"), signal.SIGKILL)
    step_until(supervisor, lambda: supervisor.runs["lasting"].restarts == 1 and supervisor.ready)
    assert not before & set(find_marked(tmp_path))


def test_one_that_was_to_end_well_and_does_not_ends_the_start(supervise):
    supervisor = supervise(once=("exit 3", {"restarts": False}))
    with pytest.raises(SystemExit, match="once ended with 3"):
        step_until(supervisor, lambda: supervisor.ready)


def test_nothing_is_left_not_even_of_those_who_hide(supervise, tmp_path, monkeypatch):
    monkeypatch.setattr("stack_supervisor.GRACE", 0.5)
    supervisor = supervise(hiding=("trap '' TERM; setsid sleep 60 & sleep 60", {}), mild=("sleep 60", {}))
    step_until(supervisor, lambda: len(find_marked(tmp_path)) >= 3)
    supervisor.end()
    assert find_marked(tmp_path) == []
    assert list((tmp_path / "pids").iterdir()) == []


def test_services_do_not_outlive_a_supervisor_that_is_killed(tmp_path):
    program = f"""
import os, sys, time
sys.path.insert(0, {str(DOCKER)!r})
from pathlib import Path
from stack_services import MARK, Service
from stack_supervisor import Supervisor
marked = dict(os.environ, {MARK}={str(tmp_path)!r})
supervisor = Supervisor(Path(marked[MARK]), [Service("one", ("sleep", "60"), marked)])
while True:
    supervisor.step()
    time.sleep(0.05)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    while not find_marked(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert find_marked(tmp_path) != []
    process.kill()
    process.wait()
    while find_marked(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert find_marked(tmp_path) == []


def test_the_compose_files_services_are_those_of_the_stack(tmp_path):
    ports = {"api": 1, "postgres": 2, "master": 3, "worker-1": 4, "worker-2": 5}
    services = {service.name: service for service in read_services(Place(tmp_path, tmp_path, tmp_path, ports))}
    assert list(services) == [
        *("postgres", "migrate", "pools", "api-server", "dag-processor", "triggerer", "scheduler"),
        *("spark-master", "spark-worker-1", "spark-worker-2"),
    ]
    for service in services.values():
        words = " ".join([*service.command, *service.health, *map(str, service.environment.values())])
        assert "${" not in words and "/run/secrets" not in words and "/data/" not in words
        assert service.environment[MARK] == str(tmp_path)
    assert services["scheduler"].environment["MINDCENSUS_EXTRACT"] == f"{tmp_path}/{{run_date}}"
    assert services["scheduler"].needs["migrate"] == "service_completed_successfully"
    assert services["spark-worker-2"].health[-1] == "localhost:5"


def test_variables_are_filled_in_as_compose_does():
    assert fill_in("a ${A:-x} ${B:-y} ${C} {run_date}", {"A": "1", "B": ""}) == "a 1 y  {run_date}"
