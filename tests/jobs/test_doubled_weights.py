"""Weights have no unit: doubling every one doubles totals and their standard errors, and changes nothing else."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.codebook_parts import Standard
from expectations.outcomes import Outcome
from jobs.estimates import Survey, estimate_rows, list_sums, split_sums
from jobs.quantiles import estimate_quantile
from jobs.standardised import estimate_standardised_rows, list_unpublished
from jobs.survey import count_psus, estimate_domain
from tests.jobs.survey_helpers import sum_people, sum_table

MEAN, HIGH = Outcome("y", "mean", "y"), Outcome("high", "proportion", "y", ">=", 4)
OUTCOMES = [MEAN, HIGH, Outcome("high_per_y", "ratio", "y", ">=", 4, over=MEAN)]
BREAKDOWNS = [(), ("sex",)]
STANDARD = Standard(cohort="age", shares={"young": 1, "old": 2}, source="the tests")
OF_TOTALS = ("estimate", "se", "ci_low", "ci_high")


def simulate(seed, people):
    draw = np.random.default_rng(seed)
    answers = draw.integers(0, 8, people).astype(float)
    return pd.DataFrame({
        "weight": draw.lognormal(5, 1, people),
        "stratum": draw.choice(["a", "b", "c"], people),
        "psu": draw.choice(["1", "2", "3"], people),
        "sex": draw.choice(["men", "women"], people),
        "age": draw.choice(["young", "old"], people),
        "y": np.where(draw.random(people) < 0.1, np.nan, answers),
    })  # fmt: skip


def estimate(people, design, earlier=None):
    sums = sum_table(people, list_sums(OUTCOMES), [*BREAKDOWNS, *list_unpublished(BREAKDOWNS, STANDARD)])
    survey = Survey(date(2026, 3, 1), split_sums(sums, BREAKDOWNS)[0], design, "adjust")
    rows = estimate_rows(survey, OUTCOMES, earlier)
    rows += estimate_standardised_rows(survey, sums, OUTCOMES, BREAKDOWNS, STANDARD)
    return survey, {(row.cell, row.outcome, row.figures.kind): row.figures for row in rows}


@given(st.integers(0, 2**32 - 1), st.integers(2, 120))
@settings(max_examples=5, deadline=None)
def test_doubling_every_weight_doubles_totals_alone(seed, people):
    before, now = simulate(seed, people), simulate(seed + 1, people)
    design = [(stratum, psu) for stratum in "abc" for psu in "123"]
    doubled = [night.assign(weight=2 * night["weight"]) for night in (before, now)]
    once = estimate(now, design, estimate(before, design)[0])[1]
    twice = estimate(doubled[1], design, estimate(doubled[0], design)[0])[1]
    assert once.keys() == twice.keys()
    assert {kind for *_, kind in once} >= {"mean", "proportion", "total", "ratio", "standardised"}
    for key, figures in once.items():
        for name, value in vars(figures).items():
            scale = 2 if name == "n_weighted" or (key[2] == "total" and name in OF_TOTALS) else 1
            got = getattr(twice[key], name)
            # The design effect counts the people that a sample without replacement leaves out: it hangs on weights.
            if name != "deff":
                same = pytest.approx(scale * value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
                assert got == same, (key, name)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=20, deadline=None)
def test_doubling_every_weight_changes_no_quantile(seed, level):
    people = simulate(seed, 80).dropna()
    sizes = count_psus(zip(people["stratum"], people["psu"], strict=True))

    def find(one):
        summed = one.groupby("y")["weight"].sum().sort_index()

        def share_se(value):
            share = one.assign(below=1.0 * (one["y"] <= value))
            return estimate_domain(sum_people(share, "below"), sizes, "proportion", "adjust").se

        return estimate_quantile(summed.index.to_numpy(), summed.to_numpy(), level, share_se, 6)

    assert find(people) == find(people.assign(weight=2 * people["weight"]))
