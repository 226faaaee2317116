"""Faults of the machine in words for people, whoever has told of them."""

import errno

import pytest

from jobs.errors import explain_fault


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (RuntimeError("Caused by: java.io.IOException: No space left on device"), "the disk is full"),
        (
            RuntimeError("java.lang.OutOfMemoryError: Java heap space\n\tat row 17"),
            "set MINDCENSUS_DRIVER_MEMORY higher",
        ),
    ],
)
def test_a_fault_of_the_machine_says_what_to_do(error: Exception, said: str) -> None:
    told = explain_fault(error)
    assert told is not None and said in told and "row 17" not in told


def test_what_nobody_knows_is_not_explained() -> None:
    assert explain_fault(RuntimeError("P000123 answered 3")) is None
