"""Standardised rates against R's svystandardize, and what of them is public."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.codebook_parts import Standard
from expectations.outcomes import Outcome
from jobs.attack import FOLLOWS, find_exposed
from jobs.disclosure import NEIGHBOUR, Move, Release, key_of
from jobs.disclosure_profiles import PROFILES
from jobs.estimates import Survey, estimate_bases, estimate_rows, list_sums, split_sums
from jobs.following import protect_kinds
from jobs.presentation import korn_graubard, standardised_effective_n
from jobs.standardised import (
    EMPTY_GROUP,
    Groups,
    cross_breakdowns,
    estimate_standardised_rows,
    list_unpublished,
)
from tests.jobs.golden_survey import read_estimates, read_people, select
from tests.jobs.survey_helpers import sum_table

MEAN, HIGH = Outcome("y", "mean", "y"), Outcome("high", "proportion", "high", ">=", 1)
OUTCOMES = [MEAN, HIGH]
STANDARD = Standard(cohort="age", shares={"18-39": 50, "40-59": 30, "60+": 20}, source="the tests")
BREAKDOWNS = [(), ("sex",)]


def estimate(people, breakdowns=BREAKDOWNS, standard=STANDARD):
    """All rows of the breakdowns, and the cells of which the standardised ones are made."""
    unpublished = list_unpublished(breakdowns, standard)
    everything = sum_table(people, list_sums(OUTCOMES), [*breakdowns, *unpublished])
    sums, added = split_sums(everything, breakdowns)
    survey = Survey(date(2026, 3, 1), sums, sorted(set(zip(people["stratum"], people["psu"], strict=True))))
    rows = estimate_rows(survey, OUTCOMES)
    rows += estimate_standardised_rows(survey, everything, OUTCOMES, breakdowns, standard)
    hidden = estimate_bases(replace(survey, sums=added), OUTCOMES)
    return rows, Groups(standard, cross_breakdowns(breakdowns, standard), hidden)


def find(rows, outcome, *cell, kind="standardised"):
    (row,) = [r for r in rows if (r.outcome, r.cell, r.figures.kind) == (outcome, cell, kind)]
    return row


@pytest.mark.parametrize("breakdowns", [BREAKDOWNS, [*BREAKDOWNS, ("age", "sex")]], ids=["unpublished", "published"])
def test_a_nights_rows_are_as_r_has_them(breakdowns):
    rows, _ = estimate(read_people(), breakdowns)
    kinds = {row.breakdown for row in rows if row.figures.kind == "standardised"}
    assert kinds == {(), ("sex",)} and {row.breakdown for row in rows} == set(breakdowns)
    for wanted in read_estimates("standardised"):
        got = find(rows, wanted["outcome"], *(() if wanted["domain"] == "all" else (wanted["domain"],))).figures
        assert [got.estimate, got.se] == pytest.approx([wanted["estimate"], wanted["se"]], rel=1e-12)
        assert (got.df, got.n) == (wanted["df"], len(select(read_people(), wanted["domain"], wanted["outcome"])))


def test_the_interval_of_a_proportion_has_the_standardised_effective_size():
    people = read_people().dropna(subset=["high"])
    got = find(estimate(people)[0], "high").figures
    groups = [people[people["age"] == group] for group in STANDARD.shares]
    p = [np.average(group["high"], weights=group["weight"]) for group in groups]
    n_eff = standardised_effective_n([0.5, 0.3, 0.2], p, [len(group) for group in groups], got.se)
    assert got.ci_method == "korn-graubard"
    bounds = korn_graubard(got.estimate, got.se, got.n, got.df, n_eff)
    assert (got.ci_low, got.ci_high) == pytest.approx(bounds, rel=1e-12)
    assert got.deff == pytest.approx(got.n / n_eff, rel=1e-12)


def test_a_cell_without_one_of_the_groups_is_null_with_its_reason():
    people = read_people()
    people = people[(people["sex"] == "women") | (people["age"] != "60+")]
    rows, groups = estimate(people)
    got = find(rows, "y", "men").figures
    assert (got.estimate, got.se, got.ci_low, got.reason) == (None, None, None, EMPTY_GROUP)
    assert find(rows, "y", "women").figures.estimate is not None
    public = find(protect_kinds(rows, OUTCOMES, {}, groups=groups), "y", "men")
    assert (public.figures.estimate, public.figures.reason) == (None, EMPTY_GROUP)


def test_a_population_like_the_standard_keeps_its_figures():
    people = read_people().assign(age="all")
    rows, _ = estimate(people, standard=Standard(cohort="age", shares={"all": 3}, source="the tests"))
    for outcome in OUTCOMES:
        one, base = find(rows, outcome.name).figures, find(rows, outcome.name, kind=outcome.kind).figures
        names = ("n", "n_cases", "estimate", "se", "df", "ci_low", "ci_high", "presentation")
        assert [getattr(one, name) for name in names] == pytest.approx([getattr(base, name) for name in names])


# ---- what is public ----


def large(seed=0):
    """The golden survey twice over, so that no group is small, with 40 % of cases."""
    draw, people = np.random.default_rng(seed), read_people()
    people = people.loc[people.index.repeat(2)].reset_index(drop=True)
    people = people.assign(sex=draw.choice(["men", "women"], len(people)), high=1.0 * (draw.random(len(people)) < 0.4))
    return people.assign(age=draw.choice(list(STANDARD.shares), len(people)))


def protect(people, breakdowns=BREAKDOWNS, profile="opensafely", earlier=()):
    rows, groups = estimate(people, breakdowns)
    public = protect_kinds(rows, OUTCOMES, {}, PROFILES[profile], earlier, groups)
    assert [(row.place, row.figures.kind) for row in public] == [(r.place, r.figures.kind) for r in rows]
    return rows, public


def test_a_public_figure_is_made_of_its_groups_public_figures():
    rows, public = protect(large(), [*BREAKDOWNS, ("age",)])
    row = find(public, "high")
    shown = [find(public, "high", group, kind="proportion").figures.estimate for group in STANDARD.shares]
    assert row.disclosure == "shown" and None not in shown
    assert row.figures.estimate == pytest.approx(np.dot([0.5, 0.3, 0.2], shown), abs=0.0006)
    assert row.figures.estimate == round(row.figures.estimate, 3)
    base = find(public, "high", kind="proportion").figures
    assert (row.figures.n, row.figures.n_weighted) == (base.n, base.n_weighted)
    assert row.figures.deff is None and row.figures.n_cases is None
    assert float(f"{row.figures.se:.1e}") == row.figures.se
    exact = find(rows, "high").figures
    assert row.figures.estimate == pytest.approx(exact.estimate, abs=0.02)
    assert row.figures.ci_low < row.figures.estimate < row.figures.ci_high


@pytest.mark.parametrize("breakdowns", [[*BREAKDOWNS, ("age",)], [*BREAKDOWNS, ("age",), ("sex", "age")]])
def test_a_small_group_withholds_the_figure_and_what_would_give_it_away(breakdowns):
    people = large()
    few = (people["sex"] == "men") & (people["age"] == "60+")
    people.loc[few, "high"] = 1.0 * (np.arange(few.sum()) < 3)  # 3 cases
    _, public = protect(people, breakdowns)
    men, everybody = find(public, "high", "men"), find(public, "high")
    assert (men.disclosure, men.figures.reason, men.figures.estimate) == ("complementary", NEIGHBOUR, None)
    # The women's groups with the published ones of everybody would give the men's.
    assert find(public, "high", "women").figures.estimate is None
    assert everybody.disclosure == "shown"
    assert find(public, "y", "men").disclosure == "shown"


def test_the_attack_finds_a_group_that_a_standardised_figure_gives_away():
    people = large()
    few = (people["sex"] == "men") & (people["age"] == "60+")
    people.loc[few, "high"] = 1.0 * (np.arange(few.sum()) < 3)
    exact, public = protect(people, [*BREAKDOWNS, ("age",), ("sex", "age")])
    assert find_exposed(Release("now", public), [], PROFILES["opensafely"]) == []
    told = [
        replace(row, figures=one.figures, disclosure="shown") if one.figures.kind == "standardised" else row
        for row, one in zip(public, exact, strict=True)
    ]
    exposed = {
        (one.cell, one.outcome, one.how) for one in find_exposed(Release("now", told), [], PROFILES["opensafely"])
    }
    assert (("men", "60+"), "high", FOLLOWS) in exposed


def test_groups_of_which_few_people_moved_withhold_the_figure():
    people = large()
    _, before = protect(people)
    key = (("sex", "age"), ("men", "60+"), "high", "proportion")

    def compare(moved, rows):
        moves = {key_of(row): Move(40, 0) for row in before if row.figures.kind == "proportion"}
        earlier = [Release("2026-02-28", rows, {**moves, key: Move(moved, 0)})]
        return find(protect(people, earlier=earlier)[1], "high", "men")

    assert find(before, "high", "men").disclosure == "shown"
    assert [compare(moved, before).disclosure for moved in (0, 3, 7, 8)] == ["shown", *["complementary"] * 2, "shown"]


def test_what_was_hidden_stays_hidden_where_nobody_moved():
    people = large()
    _, before = protect(people)
    hidden = [
        replace(row, disclosure="complementary", figures=replace(row.figures, estimate=None))
        if row.figures.kind == "standardised"
        else row
        for row in before
    ]
    moves = {key_of(row): Move(0, 0) for row in before if row.figures.kind in ("mean", "proportion")}
    row = find(protect(people, earlier=[Release("2026-02-28", hidden, moves)])[1], "high", "men")
    assert (row.disclosure, row.figures.estimate) == ("complementary", None)


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(PROFILES)))
@settings(max_examples=6, deadline=None)
def test_no_figure_of_a_withheld_group_can_be_computed(seed, profile):
    """Where all groups but one are shown, the standardised figure would give that one away."""
    people = large(seed)
    people = people[(people["sex"] == "men") | (people["age"] != "60+") | (np.arange(len(people)) % 9 == 0)]
    _, public = protect(people, [*BREAKDOWNS, ("age",), ("sex", "age")], profile)
    figures = {row.place: row for row in public if row.figures.kind in ("mean", "proportion")}
    assert profile == "acro" or any(row.figures.kind == "standardised" and row.figures.estimate for row in public)
    for row in (row for row in public if row.figures.kind == "standardised" and row.figures.estimate is not None):
        crossed = ("age",) if not row.cell else ("sex", "age")
        groups = [figures[crossed, (*row.cell, group), row.outcome] for group in STANDARD.shares]
        assert all(group.disclosure == "shown" for group in groups)
