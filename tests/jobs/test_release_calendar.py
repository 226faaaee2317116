"""When a night is released: each case states the releases so far, the night, and what becomes of it."""

from datetime import date

import pytest

from expectations.codebook_parts import Calendar
from jobs.lake import list_public
from jobs.release_calendar import CORRECTION, Decision, decide_by_date

# days of March that were released, the night, whether it is released, and the first day on which one can be
CASES = """
    released   night   public   next
    -          1       yes      -
    1          2       no       8
    1          7       no       8
    1          8       yes      -
    1,8        9       no       15
    1,8        1       yes      -
    10         5       no       17
    1,10       5       no       17
    1,15       8       yes      -
    1,12       6       no       19
    20         3       yes      -
"""


@pytest.mark.parametrize("case", [line.split() for line in CASES.strip().splitlines()[1:]], ids=" ".join)
def test_releases_lie_seven_days_apart(case):
    days, night, public, possible = case
    released = [date(2026, 3, int(day)) for day in days.split(",") if day != "-"]
    got = decide_by_date(date(2026, 3, int(night)), released, Calendar(least_days=7))
    assert got.public == (public == "yes")
    assert got.next_possible == (None if possible == "-" else date(2026, 3, int(possible)))
    assert (got.why is None) == (got.public and int(night) not in [day.day for day in released])


def test_a_correction_goes_out_and_says_why():
    decision = decide_by_date(date(2026, 3, 8), [date(2026, 3, 8)], Calendar(least_days=7))
    assert decision == Decision(True, CORRECTION)


def test_a_decision_is_read_as_it_was_written():
    for decision in (Decision(True), Decision(False, "too soon", date(2026, 3, 8))):
        assert Decision.from_json(decision.to_json()) == decision
    assert Decision.from_json(None) == Decision(True)  # nights of before the calendar


def test_manifests_of_before_the_calendar_are_public():
    manifests = [{"release": None}, {}, {"release": {"profile": "cms"}}, {"release": {"public": False}}]
    assert list_public(manifests) == manifests[:3]
