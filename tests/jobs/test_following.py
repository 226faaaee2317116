"""What follows from means and proportions is published as they are: no more, and never beside a hidden figure."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.outcomes import Outcome
from jobs.bounding import BOUNDING
from jobs.disclosure import TOO_FEW_CASES, Move, Release, key_of, round_digits
from jobs.followers import TOO_FEW_BEYOND
from jobs.following import protect_kinds
from jobs.survey import CohortRow, Estimate

HIGH = Outcome("a_ge3", "proportion", "a_total", ">=", 3)
MEAN = Outcome("a_total", "mean", "a_total")
TENTH = Outcome("a_p10", "quantile", "a_total", level=0.1)
RATIO = Outcome("a_ge3_per_a_total", "ratio", "a_total", ">=", 3, over=MEAN)
OUTCOMES = [HIGH, MEAN, TENTH, RATIO]
SINCE = date(2026, 2, 1)
KINDS = {"a_ge3": ("proportion", "total", "change"), "a_total": ("mean", "change")}
KINDS |= {"a_p10": ("quantile",), "a_ge3_per_a_total": ("ratio",)}


def make_figures(kind: str, n: int, cases: int) -> Estimate:
    values = {"proportion": cases / n, "total": cases * 101.7, "change": 0.01234, "mean": 3.456, "quantile": 1.0}
    value = values.get(kind, cases / n / 3.456)
    numbers = (n * 101.7, value, 0.1 * value + 0.001, 12, value * 0.8, value * 1.2)
    n_cases = cases if kind in ("proportion", "total") else None
    return Estimate(kind, n, n_cases, *numbers, "t", 1.5, "present", None)


def make_rows(cells: dict[str, tuple[int, int]]) -> list[CohortRow]:
    return [
        CohortRow(("sex",), (level,), outcome, make_figures(kind, n, cases), since=SINCE if kind == "change" else None)
        for level, (n, cases) in cells.items()
        for outcome, kinds in KINDS.items()
        for kind in kinds
    ]


def protect(cells, before=()):
    rows = make_rows(cells)
    public = protect_kinds(rows, OUTCOMES, dict(before))
    assert [(row.place, row.figures.kind) for row in public] == [(r.place, r.figures.kind) for r in rows]
    return {(row.cell[0], row.outcome, row.figures.kind): row for row in public}


BEFORE = {(("sex",), ("men",), "a_ge3"): 0.2, (("sex",), ("men",), "a_total"): 3.4}


def test_public_figures_are_made_of_public_figures():
    rows = protect({"men": (1003, 203), "women": (998, 301)}, BEFORE)
    share, total = rows["men", "a_ge3", "proportion"].figures, rows["men", "a_ge3", "total"].figures
    assert total.estimate == round_digits(share.estimate * share.n_weighted, 3)
    assert (total.n, total.n_weighted, total.n_cases, total.deff) == (share.n, share.n_weighted, None, None)
    assert total.ci_low < total.estimate < total.ci_high
    change = rows["men", "a_ge3", "change"]
    assert change.figures.estimate == pytest.approx(share.estimate - 0.2, abs=1e-12)
    assert change.since == SINCE
    unknown = rows["women", "a_ge3", "change"].figures
    assert (unknown.estimate, unknown.reason) == (None, "the earlier release does not show the figure")


def test_a_rare_outcome_among_many_keeps_its_number_of_people():
    # The share is published to a tenth of a point, which is .001.
    total = protect({"men": (1_000_000, 1_402), "women": (998, 301)})["men", "a_ge3", "total"].figures
    assert total.estimate == round_digits(1_400 * 101.7, 3)
    assert total.ci_low < 1_402 * 101.7 < total.ci_high


def simple_figures(kind: str, n: int, cases: int, people: int) -> Estimate:
    """A simple random sample's with equal weights, everybody a PSU of their own."""
    p, weight = cases / n, 100.0
    se = (p * (1 - p) / n) ** 0.5 if kind != "total" else weight * (cases * (1 - cases / people)) ** 0.5
    value = p if kind == "proportion" else cases * weight
    return Estimate(kind, n, cases, n * weight, value, se, n - 4, 0.0, 1.0, "t", 1.0, "present", None)


def test_the_figures_of_a_count_are_those_of_all_that_round_to_it():
    def publish(n: int, cases: int) -> list[CohortRow]:
        cells = {(): (200, 90), ("men",): (n, cases), ("women",): (200 - n, 90 - cases)}
        rows = [
            CohortRow(("sex",) if cell else (), cell, "a_ge3", simple_figures(kind, *counts, people=200))
            for cell, counts in cells.items()
            for kind in ("proportion", "total")
        ]
        return [row for row in protect_kinds(rows, OUTCOMES, {}) if row.cell == ("men",)]

    assert {row.disclosure for row in publish(60, 20)} == {"shown"}
    for n, cases in [(58, 18), (59, 22), (60, 20), (61, 19), (62, 21)]:
        assert publish(n, cases) == publish(60, 20), (n, cases)


def test_a_mean_that_bounds_a_withheld_share_goes_with_it():
    def publish(mean: float, cases: int) -> dict[str, CohortRow]:
        share, score = make_figures("proportion", 60, cases), replace(make_figures("mean", 60, cases), estimate=mean)
        rows = [CohortRow((), (), "a_ge3", share), CohortRow((), (), "a_total", replace(score, se=0.01))]
        return {row.outcome: row for row in protect_kinds(rows, OUTCOMES, {})}

    # Of 60 people with a mean of .19, three can have 3 or more; with .21 four can.
    assert {row.figures.reason for row in publish(0.19, 2).values()} == {TOO_FEW_CASES, BOUNDING}
    assert publish(0.21, 2)["a_total"].disclosure == publish(0.19, 20)["a_total"].disclosure == "shown"


def test_a_mean_near_the_ceiling_bounds_the_few_below_a_cut():
    """With 14.81 on average of at most 15, no more than 5 of 60 can have 12 or less."""
    cut = Outcome("a_ge13", "proportion", "a_total", ">=", 13, span=(0.0, 15.0))

    def publish(mean: float, cases: int) -> str | None:
        share, score = make_figures("proportion", 60, cases), replace(make_figures("mean", 60, cases), estimate=mean)
        rows = [CohortRow((), (), "a_ge13", share), CohortRow((), (), "a_total", replace(score, se=0.01))]
        return protect_kinds(rows, [cut, MEAN], {})[1].figures.reason

    assert (publish(14.85, 58), publish(14.75, 58), publish(14.85, 40)) == (BOUNDING, None, None)


def test_an_emptied_cell_has_the_rows_of_the_others():
    full = {"men": (203, 60), "women": (198, 61), "others": (5, 2)}
    then = protect_kinds(make_rows(full), OUTCOMES, BEFORE)
    base = [row for row in then if row.figures.kind in ("mean", "proportion")]
    moves = {key_of(row): Move(5, -5) if row.cell == ("others",) else Move(0, 0) for row in base}
    del full["others"]
    public = protect_kinds(make_rows(full), OUTCOMES, BEFORE, earlier=[Release("2026-02-01", then, moves)])
    kinds = {cell: [(r.outcome, r.figures.kind) for r in public if r.cell == (cell,)] for cell in (*full, "others")}
    assert kinds["others"] == kinds["men"] == kinds["women"]
    assert [row.cell for row in public] == sorted(row.cell for row in public)
    assert all(row.figures.n is None for row in public if row.cell == ("others",))


def test_a_quantile_with_few_people_beyond_it_is_withheld():
    rows = protect({"men": (69, 30), "women": (400, 100)})
    assert rows["men", "a_total", "mean"].disclosure == "shown"
    tenth = rows["men", "a_p10", "quantile"]
    assert (tenth.disclosure, tenth.figures.estimate, tenth.figures.reason) == ("suppressed", None, TOO_FEW_BEYOND)
    assert rows["women", "a_p10", "quantile"].figures.estimate == 1.0


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=2, max_size=4))
@settings(max_examples=60)
def test_nothing_is_shown_beside_a_hidden_figure(counts):
    rows = protect({f"g{i}": (n, min(cases, n)) for i, (n, cases) in enumerate(counts)})
    for (level, outcome, kind), row in rows.items():
        figures = row.figures
        assert figures.n_cases is None and figures.deff is None
        beside = ("a_ge3", "proportion") if outcome.startswith("a_ge3") else ("a_total", "mean")
        other = rows[level, *beside]
        if other.figures.estimate is None and kind not in ("mean", "proportion"):
            made_of = replace(figures, n=None, n_weighted=None, df=None)
            values = [made_of.estimate, made_of.se, made_of.ci_low, made_of.ci_high]
            assert values == [None] * 4
            assert row.disclosure == other.disclosure
        if other.figures.n is None:
            assert figures.n is None and figures.n_weighted is None and figures.df is None
