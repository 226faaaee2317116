import os

import pytest

from jobs import machine
from jobs.machine import GIB, measure_machine


@pytest.mark.parametrize(
    ("cores", "memory", "heap"),
    [
        (1, 4, 1.25),
        (2, 24, 2.5),
        (2, 5, 1.75),  # .8 x 5 less three Python processes
        (2, 2, 1.0),  # too small: doctor says so
        (16, 128, 20.0),
        (64, 64, 2.45),
    ],
)
def test_a_session_grows_with_cores_and_stays_within_the_memory(cores, memory, heap, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(machine, "memory_limit", lambda: memory * GIB)
    size = measure_machine()
    assert size.cores == cores
    assert size.heap / GIB == pytest.approx(heap)
