"""Totals, ratios and standardised means against R's svytotal, svyratio and svystandardize."""

import math

import numpy as np
import pytest

from jobs.linearisation import score_ratio, score_standardised, score_whole_total
from jobs.presentation import log_t_interval, t_interval
from jobs.survey import count_psus, sum_variance
from tests.jobs.golden_survey import add_up, list_psus, read_estimates, read_people, select

TWELVE_DIGITS = 1e-12
# Of the standard population.
SHARES = {"18-39": 0.5, "40-59": 0.3, "60+": 0.2}


def label(row):
    return f"{row['domain']} {row['outcome']}"


def find_se(people, scores, sampled=None):
    everybody = read_people()
    sizes = count_psus(zip(everybody["stratum"], everybody["psu"], strict=True), sampled)
    return math.sqrt(sum_variance(list_psus(people)[0], scores, sizes, "fail"))


@pytest.mark.parametrize("row", read_estimates("taylor", "total"), ids=label)
def test_totals_and_their_log_t_intervals(row):
    people = select(read_people(), row["domain"], row["outcome"])
    scores = add_up(people, people["weight"] * people[row["outcome"]])
    total, se = math.fsum(scores), find_se(people, scores)
    assert (total, se) == pytest.approx((row["estimate"], row["se"]), rel=TWELVE_DIGITS)
    bounds = log_t_interval(total, se, row["df"])
    assert bounds == pytest.approx((row["ci_low"], row["ci_high"]), rel=1e-10)


@pytest.mark.parametrize("row", read_estimates("fpc", "total") + read_estimates("fpc_fraction", "total"), ids=label)
def test_the_finite_population_correction(row):
    everybody = read_people()
    sampled = {stratum: 2 / psus for stratum, psus in zip(everybody["stratum"], everybody["psus"], strict=True)}
    people = select(everybody, row["domain"], row["outcome"])
    se = find_se(people, add_up(people, people["weight"] * people[row["outcome"]]), sampled)
    assert se == pytest.approx(row["se"], rel=TWELVE_DIGITS)


@pytest.mark.parametrize("row", read_estimates("taylor", "ratio"), ids=label)
def test_ratios(row):
    people = select(read_people(), row["domain"], "y", "x")
    sums = [add_up(people, people["weight"] * people[name]) for name in ("y", "x")]
    ratio, scores = score_ratio(*sums)
    se = find_se(people, scores)
    assert (ratio, se) == pytest.approx((row["estimate"], row["se"]), rel=TWELVE_DIGITS)
    assert t_interval(ratio, se, row["df"]) == pytest.approx((row["ci_low"], row["ci_high"]), rel=1e-10)


@pytest.mark.parametrize("row", read_estimates("standardised"), ids=label)
def test_standardised_means_and_proportions(row):
    people = select(read_people(), row["domain"], row["outcome"])
    inside = [people["weight"] * (people["age"] == group) for group in SHARES]
    sum_w = np.array([add_up(people, w) for w in inside])
    sum_wy = np.array([add_up(people, w * people[row["outcome"]]) for w in inside])
    estimate, scores = score_standardised(np.array(list(SHARES.values())), sum_w, sum_wy)
    assert (estimate, find_se(people, scores)) == pytest.approx((row["estimate"], row["se"]), rel=TWELVE_DIGITS)


def test_a_total_of_everybody_where_some_gave_no_answer():
    people = read_people().sort_values(["stratum", "psu"], kind="stable")
    # Classes lie within PSUs here, so that each PSU stands there once for men and once for women.
    inside = [people["sex"] == sex for sex in ("men", "women")]
    answered = people["y"].notna()
    sums = [
        np.concatenate([add_up(people, people["weight"] * values * mask) for mask in inside])
        for values in (1.0, 1.0 * answered, people["y"].fillna(0.0))
    ]
    place = np.repeat([0, 1], len(sums[0]) // 2)
    total, scores = score_whole_total(place, *sums)
    (row,) = read_estimates("whole")
    se = find_se(people, scores.reshape(2, -1).sum(axis=0))
    assert (total, se) == pytest.approx((row["estimate"], row["se"]), rel=TWELVE_DIGITS)


def test_a_class_without_an_answer_is_stood_for_by_everybody():
    # 10 people answered with a mean of 2; 5 more are in a class of nobody who answered.
    total, scores = score_whole_total(
        np.array([0, 0, 1]), np.array([4.0, 8.0, 5.0]), np.array([4.0, 6.0, 0.0]), np.array([4.0, 16.0, 0.0])
    )
    assert total == 2.0 * 12 + 2.0 * 5
    # The scores of the ratio's parts vanish in sum, so that the weights of all people are left.
    assert scores.sum() == pytest.approx(total)
    assert score_whole_total(np.zeros(2, int), *[np.array([1.0, 3.0])] * 2, np.array([2.0, 1.0]))[1] == pytest.approx(
        [2.0, 1.0]
    )


def test_a_ratio_to_the_weight_is_the_mean():
    sum_w, sum_wy = np.array([2.0, 3.0, 5.0]), np.array([1.0, 0.0, 4.0])
    assert score_ratio(sum_wy, sum_w)[0] == 0.5
    one, scores = score_standardised(np.array([1.0]), sum_w[None], sum_wy[None])
    assert one == 0.5
    assert scores == pytest.approx(score_ratio(sum_wy, sum_w)[1])
