"""Raking against R's rake and calibrate, and margins that cannot be met."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.codebook_parts import Margins
from expectations.errors import ContractBroken
from jobs.calibration import rake_cells
from jobs.replicates import estimate_replicated
from jobs.weighing import rake_replicates
from tests.jobs.golden_survey import read_estimates, read_people, read_weights

SEXES, AGES = ("men", "women"), ("18-39", "40-59", "60+")
CELLS = [{"sex": sex, "age": age} for sex in SEXES for age in AGES]


def read_cells():
    people = read_people()
    weights = people.groupby(["sex", "age"])["weight"].sum()
    return np.array([weights[cell["sex"], cell["age"]] for cell in CELLS])


def make_margins(population):
    sexes, ages = (0.55, 0.45), (0.2, 0.3, 0.5)
    return {
        "sex": {group: population * share for group, share in zip(SEXES, sexes, strict=True)},
        "age": {group: population * share for group, share in zip(AGES, ages, strict=True)},
    }


@pytest.mark.parametrize(
    ("method", "bounds"),
    [("rake", (0.0, math.inf)), ("calibrate", (0.0, math.inf)), ("calibrate_bounded", (0.62, 1.6))],
)
def test_as_in_r(method, bounds):
    weights = read_cells()
    raking = rake_cells(CELLS, weights, make_margins(weights.sum()), bounds)
    expected = {row["domain"]: row["estimate"] for row in read_estimates(method)}
    got = {f"{cell['sex']} {cell['age']}": factor for cell, factor in zip(CELLS, raking.factors, strict=True)}
    assert got == pytest.approx(expected, rel=1e-8)
    report = raking.report(weights)
    assert report["largest_miss"] < 1e-9
    assert bounds[0] <= report["least_factor"] < 1 < report["largest_factor"] <= bounds[1]
    assert report["deff"] > 1


def rake_people(weights, margins):
    """Everybody's raked weights (people, 1 + R)."""
    people, names = read_people(), [f"rep{i}" for i in range(weights.shape[1] - 1)]
    place = [CELLS.index({"sex": sex, "age": age}) for sex, age in zip(people["sex"], people["age"], strict=True)]
    sums = np.zeros((len(CELLS), weights.shape[1]))
    np.add.at(sums, place, weights)
    factors, report = rake_replicates(CELLS, sums, margins, names)
    return weights * factors[place], report


@pytest.mark.parametrize("method", ["BRR", "JKn", "bootstrap"])
def test_each_replicate_is_raked_as_in_r(method):
    people, (weights, replication) = read_people(), read_weights(method)
    raked, _ = rake_people(weights, Margins(counts=make_margins(weights[:, 0].sum())))
    x, answered = people["x"].fillna(0).to_numpy(), people["x"].notna().to_numpy()
    for row in read_estimates(f"calibrate_{method}"):
        inside = answered & ((people["sex"] == row["domain"]).to_numpy() | (row["domain"] == "all"))
        sums = raked[inside].T @ x[inside]
        figures = sums / raked[inside].sum(axis=0) if row["kind"] == "mean" else sums
        assert estimate_replicated(figures, replication) == pytest.approx((row["estimate"], row["se"]), rel=1e-8)


def test_a_replicate_that_the_bounds_stop_is_raked_without_them():
    weights, _ = read_weights("bootstrap")
    raked, report = rake_people(weights, Margins(counts=make_margins(weights[:, 0].sum()), bounds=(0.62, 1.6)))
    assert 0 < report["replicates_without_bounds"] < weights.shape[1] - 1
    assert raked.sum(axis=0) == pytest.approx(np.full(weights.shape[1], weights[:, 0].sum()), rel=1e-8)
    weights[:, 3] *= read_people()["sex"] == "men"
    with pytest.raises(ContractBroken, match="replicate weight rep2: nobody is in sex = women"):
        rake_people(weights, Margins(counts=make_margins(weights[:, 0].sum())))


WEIGHTS = np.array([30.0, 20.0, 10.0, 10.0, 20.0, 30.0])


@pytest.mark.parametrize(
    ("change", "bounds", "message"),
    [
        ({}, (0.9, 1.1), "cannot be met with factors of 0.9 to 1.1: .* = .* comes to .* people of"),
        ({"sex": {"men": 500.0}}, (0.0, math.inf), "people in sex = women for whom `margins` has no count"),
        ({"sex": {"men": 55.0, "women": 65.0, "other": 5.0}}, (0.0, math.inf), "nobody is in sex = other"),
        ({"sex": {"men": 550.0, "women": 450.0}}, (0.0, math.inf), "of sex and age are of 1,000 and 120 people"),
    ],
)
def test_margins_that_cannot_be_met(change, bounds, message):
    with pytest.raises(ContractBroken, match=message):
        rake_cells(CELLS, WEIGHTS, {**make_margins(120.0), **change}, bounds)


def test_people_of_no_group_are_told():
    with pytest.raises(ContractBroken, match="people of no group for whom `margins` has no count of sex"):
        rake_cells([*CELLS, {"sex": None, "age": "60+"}], np.append(WEIGHTS, 1.0), make_margins(121.0))


def test_margins_that_no_weights_can_meet():
    # Men are young and women old, so these two margins contradict each other.
    cells = [{"sex": "men", "age": "young"}, {"sex": "women", "age": "old"}]
    margins = {"sex": {"men": 60.0, "women": 40.0}, "age": {"young": 40.0, "old": 60.0}}
    with pytest.raises(ContractBroken, match="the margins cannot be met: "):
        rake_cells(cells, np.array([50.0, 50.0]), margins)


@given(st.lists(st.floats(-3, 6), min_size=6, max_size=6), st.lists(st.floats(0.5, 2), min_size=5, max_size=5))
@settings(max_examples=50)
def test_margins_are_met_by_weights_over_nine_orders_of_magnitude(exponents, shifts):
    weights = 10.0 ** np.array(exponents)
    wanted = weights * np.outer(shifts[:2], shifts[2:]).ravel()
    margins = {
        "sex": dict(zip(SEXES, wanted.reshape(2, 3).sum(axis=1), strict=True)),
        "age": dict(zip(AGES, wanted.reshape(2, 3).sum(axis=0), strict=True)),
    }
    raked = weights * rake_cells(CELLS, weights, margins).factors
    assert raked.reshape(2, 3).sum(axis=1) == pytest.approx(list(margins["sex"].values()), rel=1e-6)
    assert raked.reshape(2, 3).sum(axis=0) == pytest.approx(list(margins["age"].values()), rel=1e-6)


def test_margins_that_are_met_already_change_nothing():
    margins = {"sex": {"men": 60.0, "women": 60.0}, "age": {"18-39": 40.0, "40-59": 40.0, "60+": 40.0}}
    assert rake_cells(CELLS, WEIGHTS, margins).factors == pytest.approx(np.ones(6), abs=1e-12)
