"""The attack on public tables: it finds what a missing protection gives away, and nothing where all are in place."""

from dataclasses import replace

import pytest

from benchmarks.disclosure import attack_nights, estimate_night, find_moves, protect_nights, simulate_nights
from jobs.algebra import COUNTING_DF, EXACT, OTHER_BOUNDS, TOO_FINE
from jobs.attack import FEW_CHANGED, FOLLOWS, NARROW, SHOWN_AGAIN, find_exposed
from jobs.disclosure import FEW_MOVED, Move, Release, key_of, protect_rows
from jobs.disclosure_profiles import OPENSAFELY, PROFILES
from tests.jobs.test_disclosure import row

CELLS = {"f": (402, 101), "m": (303, 83), "x": (201, 61), "y": (5, 2)}


def night(cells: dict[str, tuple[int, int]]) -> list:
    """Everybody and by sex, drawn alone and with equal weights."""
    everybody = tuple(map(sum, zip(*cells.values(), strict=True)))
    inflate = everybody[0] / (everybody[0] - 1)
    return [
        row(n, k, cell=cell, se=(k / n * (1 - k / n) / n * inflate) ** 0.5, df=n - 1, deff=1.0)
        for cell, (n, k) in [({}, everybody), *(({"sex": sex}, pair) for sex, pair in cells.items())]
    ]


def find(rows, earlier=()):
    return {(one.cell, one.how) for one in find_exposed(Release("now", rows), earlier, OPENSAFELY)}


def test_a_protected_table_exposes_nothing():
    assert find(protect_rows(night(CELLS))) == set()


def test_without_complementary_suppression_the_small_cell_follows():
    public = protect_rows(night(CELLS))
    alone = [protect_rows([one])[0] for one in night(CELLS)]
    uncovered = [a if p.disclosure == "complementary" else p for a, p in zip(alone, public, strict=True)]
    assert {(("y",), FOLLOWS)} <= find(uncovered)


def test_narrow_bounds_need_no_exact_count():
    """All shown as 5 x 3 = 15 at least leaves a redacted part at most so much, where rounding allows."""
    unrounded = PROFILES["cms"]
    rows = [row(n, outcome="phq9_total", cell=cell) for cell, n in (({}, 905), ({"sex": "f"}, 900), ({"sex": "y"}, 5))]
    public = [protect_rows([one], unrounded)[0] for one in rows]
    found = find_exposed(Release("now", public), [], unrounded)
    assert (("y",), NARROW) in {(one.cell, one.how) for one in found}


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda public, exact: {"se": exact.se}, EXACT),
        (lambda public, exact: {"deff": exact.deff, "se": exact.se}, EXACT),
        (lambda public, exact: {"estimate": exact.estimate}, TOO_FINE),
        (lambda public, exact: {"ci_low": public.ci_low - 0.004}, OTHER_BOUNDS),
        (lambda public, exact: {"df": exact.df}, COUNTING_DF),
    ],
)
def test_a_figure_of_the_exact_count_gives_it_away(change, how):
    rows = night(CELLS)
    public = protect_rows(rows)
    changed = [
        replace(p, figures=replace(p.figures, **change(p.figures, r.figures))) if p.figures.se is not None else p
        for p, r in zip(public, rows, strict=True)
    ]
    assert how in {found for _, found in find(changed)}


def test_few_movers_are_withheld():
    then, now = {**CELLS, "z": (250, 90)}, {**CELLS, "z": (251, 91), "f": (442, 111)}
    before, tonight = protect_rows(night(then)), night(now)
    people, net = {"f": 60, "z": 1}, {"f": 40, "z": 1}
    levels = {key_of(r): r.cell[0] if r.cell else "" for r in tonight}
    moves = {
        key: Move(people.get(sex, 0 if sex else 61), net.get(sex, 0 if sex else 41)) for key, sex in levels.items()
    }
    earlier = [Release("then", before, moves)]
    assert (("z",), FEW_CHANGED) in find(protect_rows(tonight), earlier)
    public = protect_rows(tonight, OPENSAFELY, earlier)
    assert {r.figures.reason for r in public if r.cell == ("z",)} == {FEW_MOVED}
    assert find(public, earlier) == set()


def test_what_was_hidden_stays_hidden_while_nobody_moves():
    before, tonight = protect_rows(night(CELLS)), night(CELLS)
    earlier = [Release("then", before, {key_of(r): Move(0, 0) for r in tonight})]
    assert protect_rows(tonight, OPENSAFELY, earlier) == before
    opened = [protect_rows([one])[0] for one in tonight]
    assert SHOWN_AGAIN in {how for _, how in find(opened, earlier)}


@pytest.mark.parametrize("name", ["opensafely", "cms"])
def test_two_nights_of_people_who_come_and_go(name):
    nights = list(simulate_nights(2, 400, seed=3))
    tables, moves = [estimate_night(people) for people in nights], {(0, 1): find_moves(*nights)}
    public = protect_nights(tables, moves, PROFILES[name])
    assert attack_nights(public, moves, PROFILES[name]) == []


def test_p_of_0_and_1_and_a_cohort_with_nobody():
    rows = night({"f": (400, 0), "m": (300, 300), "x": (200, 60), "w": (90, 30)})
    assert find(protect_rows(rows)) == set()
    nobody = row(1, 0, cell={"sex": "n"})
    empty = replace(nobody, figures=replace(nobody.figures, n=0, n_cases=0, estimate=None, se=None, df=None))
    assert find(protect_rows([*rows, empty])) == set()
