"""Who stands for whom: classes counted from judged rows, and the factors of weights, by hand."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.errors import ContractBroken
from jobs.nonresponse import (
    Class,
    add_classes,
    classes_from_json,
    classes_to_json,
    count_classes,
    find_factors,
    report_factors,
    response_rates,
)
from jobs.response import rate_response

# Dashes are nulls. b has a good row beside a bad one; c has two bad rows, one with a weight; f has no stratum.
ROWS = """
person fate        w    s malformed
a      accepted    2    x false
b      quarantined 9    x false
b      accepted    4    x false
c      quarantined -    x false
c      quarantined 3    x false
d      quarantined -1   x false
e      accepted    5    y false
f      quarantined 7    - false
g      ineligible  8    y false
-      quarantined 1    y false
-      quarantined 1    y false
h      quarantined 100  y true
i      quarantined 0    z false
"""


def read_judged(text):
    _, *rows = [line.split() for line in text.strip().splitlines()]
    cells = [[None if cell == "-" else cell for cell in row] for row in rows]
    person, fate, w, s, malformed = zip(*cells, strict=True)
    return pa.table({
        "person_id": pa.array(person, pa.string()),
        "fate": pa.array(fate).dictionary_encode(),
        "w": pa.array([None if cell is None else float(cell) for cell in w], pa.float64()),
        "s": pa.array(s, pa.string()).dictionary_encode(),
        "malformed": pa.array([cell == "true" for cell in malformed]),
    })  # fmt: skip


def count(table):
    return count_classes(table, "w", "s", "accepted", "quarantined")


EXPECTED = {
    "x": Class(kept=2, kept_weight=6.0, lost=2, lost_weight=3.0, unweighted=1),
    "y": Class(kept=1, kept_weight=5.0, lost=2, lost_weight=2.0),
    "z": Class(lost=1),
    None: Class(lost=2, unweighted=2),
}


def test_classes_by_hand():
    assert add_classes([count(read_judged(ROWS))]) == EXPECTED
    assert classes_from_json(classes_to_json(EXPECTED)) == EXPECTED


def test_factors_by_hand():
    # x: 6 + 3 + one of the mean 3 = 12 of 6; y: 5 + 2 = 7 of 5; two without a class have the mean 11 / 3.
    whole = 1 + 2 * 11 / 3 / 19
    factors = find_factors(EXPECTED)
    assert factors == pytest.approx({"x": 2 * whole, "y": 1.4 * whole}, rel=1e-14)
    assert report_factors(EXPECTED, factors) == {
        "classes": 2,
        "classes_adjusted": 2,
        "least_factor": factors["y"],
        "largest_factor": factors["x"],
        "lost_people": 7,
        "lost_people_without_class": 3,
    }


CLASS = st.builds(
    Class, st.integers(1, 9), st.floats(1e-3, 1e6), st.integers(0, 5), st.floats(0, 1e6), st.integers(0, 3)
)


@given(st.dictionaries(st.sampled_from("abcd"), CLASS, min_size=1))
def test_the_total_is_that_of_everybody_who_was_eligible(classes):
    factors = find_factors(classes)
    expected = [c.kept_weight + c.lost_weight + c.unweighted * c.kept_weight / c.kept for c in classes.values()]
    got = [factors[name] * found.kept_weight for name, found in classes.items()]
    assert got == pytest.approx(expected, rel=1e-12)


def test_where_nobody_is_lost_no_digit_of_a_weight_changes():
    assert find_factors({"x": Class(3, 0.1), "y": Class(2, 1e9)}) == {"x": 1.0, "y": 1.0}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({None: Class(lost=1, unweighted=1)}, "no accepted row has a weight above 0"),
        ({"x": Class(1, 1e-300, 1, 1e300)}, "too large to be added up"),
    ],
)
def test_weights_that_nothing_can_be_made_of(classes, message):
    with pytest.raises(ContractBroken, match=message):
        find_factors(classes)


@given(st.lists(st.sampled_from(ROWS.strip().splitlines()[1:]), max_size=12))
def test_nobody_is_counted_twice_or_forgotten(lines):
    table = read_judged("\n".join(["person fate w s malformed", *lines])) if lines else read_judged(ROWS).slice(0, 0)
    rows = table.to_pylist()
    kept = {row["person_id"] for row in rows if row["fate"] == "accepted"}
    bad = [row["person_id"] for row in rows if row["fate"] == "quarantined"]
    people = len({person for person in bad if person} - kept) + bad.count(None)
    assert sum(found.lost for found in count(table).values()) == people
    assert sum(found.kept for found in count(table).values()) == sum(row["fate"] == "accepted" for row in rows)


def test_response_rates_come_from_rounded_figures():
    classes = {"x": Class(kept=903, kept_weight=90_301.0, lost=96, lost_weight=9_600.0)}
    assert response_rates(classes) == (903, 999, 90_301.0, 99_901.0)
    response, mood, rare = rate_response(classes, {"mood": 877, "rare": 3}, 903)
    assert (response["rows"], response["rate"], response["rate_weighted"]) == (905, 0.905, round(90_300 / 99_900, 3))
    assert (mood["reason"], mood["rows"], mood["rate"], mood["disclosure"]) == (
        "mood",
        875,
        round(875 / 905, 3),
        "shown",
    )
    assert (rare["rows"], rare["rate"], rare["disclosure"]) == (None, None, "suppressed")
    assert math.isclose(rate_response({}, {"mood": 900}, 900)[0]["rate"], 1.0)
