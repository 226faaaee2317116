from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.plausible import COHORTS, PSUS, STRATA, estimate_contrast, make_network, simulate_survey
from expectations.replication import Replication
from jobs.distributions import TOO_FEW, describe_distributions
from jobs.imputation import combine
from jobs.plausible_sums import EDGES, Plan, add_people, choose_steps, count_bins
from jobs.replicate_sums import WEIGHTS
from jobs.replicated_traits import STEP, choose_grids
from jobs.replicates import estimate_replicated
from jobs.survey import CohortRow
from jobs.trait_estimates import estimate_traits
from model.conditioning import condition_on
from model.plausible import FARTHEST, VALUES, EffectiveDraws, Imputer, find_regression

BREAKDOWNS = ((), ("cohort",), ("cohort", "half"))


@pytest.fixture(scope="module")
def made():
    """A survey, what a worker needs, and everybody's values; 30 people have no half."""
    network = make_network(steps=200)
    survey = simulate_survey(network, 5)
    halves = [None] * 30 + ["upper", "lower"] * (len(survey.people) // 2 - 15)
    people = survey.people.append_column("half", pa.array(halves, pa.string()))
    levels = {"cohort": COHORTS, "half": ("lower", "upper", "nobody")}
    psus = [str(number) for number in range(STRATA * PSUS)]
    conditioning = condition_on(BREAKDOWNS, levels, psus, survey.weights)
    imputer = Imputer(conditioning, find_regression(network, conditioning, people).draw(VALUES))
    plan = Plan(imputer, BREAKDOWNS, "", choose_steps(survey.weights.max(), len(people), VALUES))
    return survey, people, plan, network


def add_parts(made, order, cuts):
    _, people, plan, network = made
    total = None
    for rows in np.split(order, cuts):
        part = people.take(pa.array(rows))
        drawn = plan.imputer.draw(network, part)
        found = add_people(part, drawn, plan, EffectiveDraws.of([drawn.effective]).counts)
        total = found if total is None else total.add(found)
    return total


@pytest.fixture(scope="module")
def sums(made):
    return add_parts(made, np.arange(len(made[1])), [])


def estimate(made, sums):
    survey, _, plan, _ = made
    homes = dict(zip(survey.psu.astype(str), survey.stratum.astype(str), strict=True))
    sizes = {str(number): PSUS for number in range(STRATA)}
    return estimate_traits(sums, plan.imputer.conditioning, homes, BREAKDOWNS, ["trait"], sizes)


def test_cells_are_those_of_rubins_rules_over_the_full_design(made, sums):
    survey, people, plan, network = made
    rows = {(row.breakdown, row.cell): row.figures for row in estimate(made, sums)}
    assert set(rows) == {((), ())} | {(("cohort",), (name,)) for name in COHORTS} | {
        (("cohort", "half"), (name, half)) for name in COHORTS for half in ("lower", "upper")
    }
    values = plan.imputer.draw(network, people).values[:, :, 0].T.astype(np.float64)
    for position, name in enumerate(COHORTS):
        found = [estimate_contrast(survey, value, position) for value in values]
        ours = rows[("cohort",), (name,)]
        expected = combine([one for one, _ in found], [variance for _, variance in found], STRATA * (PSUS - 1))
        assert [ours.estimate, ours.se] == pytest.approx([expected.estimate, expected.se], rel=1e-9)
        assert ours.df == int(expected.df) and ours.n == (survey.cohort == position).sum()
    assert sum(rows[("cohort", "half"), cell].n for _, cell in rows if len(cell) == 2) == len(people) - 30


def test_neither_order_nor_partitions_change_a_digit(made, sums):
    order = np.random.default_rng(2).permutation(len(made[1]))
    other = add_parts(made, order, [500, 501, 900])
    for mine, theirs in zip((*sums.domains, *sums.bins), (*other.domains, *other.bins), strict=True):
        np.testing.assert_array_equal(mine.keys, theirs.keys)
        np.testing.assert_array_equal(mine.rows, theirs.rows)
    np.testing.assert_array_equal(sums.effective, other.effective)


@pytest.fixture(scope="module")
def replicated(made):
    """The same survey with thirty replicate weights instead of PSUs; nine orders of magnitude lie between weights."""
    survey, people, plan, network = made
    rng = np.random.default_rng(4)
    weights = survey.weights * np.where(np.arange(len(people)) < 9, 1e-9, 1.0)
    replicates = weights[:, None] * rng.poisson(1.0, (len(people), 30))
    column = pa.array(list(replicates), pa.list_(pa.float64()))
    people = people.set_column(people.column_names.index("weight"), "weight", pa.array(weights))
    people = people.append_column(WEIGHTS, column)
    grids = choose_grids(float(replicates.max()), len(people), FARTHEST)
    return (survey, people, replace(plan, grids=grids), network), np.column_stack([weights, replicates])


def test_by_replicate_weights_each_value_is_estimated_with_each(replicated):
    made, weights = replicated
    _, people, plan, network = made
    replication = Replication(1 / 30, np.ones(30))
    sums = add_parts(made, np.arange(len(people)), [700])
    rows = estimate_traits(
        *(sums, plan.imputer.conditioning, dict.fromkeys(plan.imputer.conditioning.psus, "one"), BREAKDOWNS),
        *(["trait"], {"one": 1}, "fail", replication),
    )
    values = plan.imputer.draw(network, people).values[:, :, 0].astype(np.float64)
    cohort = np.array(people["cohort"].to_pylist())
    for name in COHORTS:
        inside = cohort == name
        means = (weights[inside].T @ values[inside]) / weights[inside].sum(axis=0)[:, None]
        found = [estimate_replicated(mean, replication) for mean in means.T]
        expected = combine([one for one, _ in found], [se**2 for _, se in found], 29)
        ours = next(row.figures for row in rows if row.cell == (name,))
        # Values are taken on a grid: its half step bounds what a mean can move.
        assert ours.estimate == pytest.approx(expected.estimate, abs=STEP / 2)
        assert ours.se == pytest.approx(expected.se, rel=2e-3)
        assert ours.df == int(expected.df)


def test_order_changes_no_digit_of_replicate_sums(replicated):
    made, _ = replicated
    order = np.random.default_rng(3).permutation(len(made[1]))
    one, other = add_parts(made, np.arange(len(order)), []).replicated, add_parts(made, order, [400, 401]).replicated
    assert one.values.keys() == other.values.keys() and len(one.values) == 1 + 2 + 4
    for key in one.values:
        np.testing.assert_array_equal(one.weights[key], other.weights[key])
        np.testing.assert_array_equal(one.values[key], other.values[key])


def test_bins_are_open_at_both_ends_and_closed_below():
    values = np.array([[[-7.0], [-3.0], [0.0]], [[0.49], [2.99], [3.0]]], dtype=np.float32)
    counts = count_bins(values)
    assert counts.shape == (2, len(EDGES) + 1)
    assert np.flatnonzero(counts[0]).tolist() == [0, 1, 7] and np.flatnonzero(counts[1]).tolist() == [7, 12, 13]


def test_shares_are_told_of_large_cells_that_are_shown(made, sums):
    rows = [replace(row, disclosure="shown") for row in estimate(made, sums)]
    small = [shrink(row, 95) if row.cell == (COHORTS[1],) else row for row in rows]
    told = describe_distributions(sums, made[2].imputer.conditioning, BREAKDOWNS, ["trait"], small, small)
    assert {(row["breakdown"], row.get("cohort")) for row in told} == {("all", None), *(("cohort", c) for c in COHORTS)}
    shown, hidden = ([row for row in told if row.get("cohort") == name] for name in COHORTS)
    assert sum(row["share"] for row in shown) == pytest.approx(1, abs=0.05)
    # In truth the cohort's mean is -.25 of a trait whose sd is about 1.
    middle = sum(row["share"] * (row["bin_low"] + 0.25) for row in shown if row["bin_low"] is not None)
    assert -0.5 < middle < 0.0
    assert {(row["share"], row["n"], row["disclosure"], row["reason"]) for row in hidden} == {
        (None, 95, "suppressed", TOO_FEW)
    }


def shrink(row: CohortRow, n: int) -> CohortRow:
    return replace(row, figures=replace(row.figures, n=n))
