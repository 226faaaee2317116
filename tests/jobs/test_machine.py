import os

import pytest

from jobs import machine
from jobs.machine import GIB, measure_machine


@pytest.mark.parametrize(
    ("cores", "memory", "used", "heap"),
    [
        (1, 4, 1, 1.15),
        (2, 24, 2, 2.3),
        (2, 5, 2, 1.75),  # .8 x 5 less three Python processes
        (2, 2, 1, 1.0),  # too small: doctor says so
        (16, 128, 16, 18.4),
        (64, 64, 33, 25.7),
    ],
)
def test_a_session_grows_with_cores_and_stays_within_the_memory(cores, memory, used, heap, monkeypatch):
    monkeypatch.setattr(machine, "count_cores", lambda: cores)
    monkeypatch.setattr(machine, "memory_limit", lambda: memory * GIB)
    size = measure_machine()
    assert size.cores == used
    assert size.heap / GIB == pytest.approx(heap)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_a_container_has_the_cores_that_it_was_given(files, cores, monkeypatch, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.count_cores() == cores


def test_who_runs_it_may_say_how_large_the_heap_is(monkeypatch):
    monkeypatch.setattr(machine, "measure_machine", lambda: machine.Size(2, 3 * GIB))
    monkeypatch.delenv("MINDCENSUS_DRIVER_MEMORY", raising=False)
    assert machine.choose_heap() == "3072m"
    monkeypatch.setenv("MINDCENSUS_DRIVER_MEMORY", "1g")
    assert machine.choose_heap() == "1g"
