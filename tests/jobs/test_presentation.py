"""Intervals against closed forms, presentation standards in the order that NCHS gives them."""

import math

import pytest
from scipy import stats

from jobs.presentation import (
    effective_n,
    judge_mean,
    judge_proportion,
    korn_graubard,
    logit_interval,
    standardised_effective_n,
    t_interval,
)


def test_korn_graubard_of_a_simple_random_sample_is_clopper_pearson():
    n, x = 200, 30
    p = x / n
    se = math.sqrt(p * (1 - p) / n)
    exact = stats.binomtest(x, n).proportion_ci(method="exact")
    assert korn_graubard(p, se, n, df=n - 1) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_korn_graubard_is_cut_at_n():
    small_se, tiny_se = 0.005, 0.001  # both say that the sample is worth more than its 100 people
    assert korn_graubard(0.3, small_se, 100, 15) == korn_graubard(0.3, tiny_se, 100, 15)


@pytest.mark.parametrize("n", [2, 30, 500])
def test_at_zero_and_one_the_open_limit_stays_at_half_alpha(n):
    rule_of_three = 1 - 0.025 ** (1 / n)
    assert korn_graubard(0.0, 0.0, n, 5) == pytest.approx((0.0, rule_of_three), abs=1e-14)
    assert korn_graubard(1.0, 0.0, n, 5) == pytest.approx((1 - rule_of_three, 1.0), abs=1e-14)


def test_fewer_degrees_of_freedom_widen_every_interval():
    for interval in (t_interval, logit_interval):
        low, high = interval(0.2, 0.02, 15)
        wider_low, wider_high = interval(0.2, 0.02, 3)
        assert wider_low < low < 0.2 < high < wider_high


def test_effective_n_of_a_proportion_without_error_is_n():
    assert effective_n(0.0, 0.0, 40) == 40
    assert effective_n(0.25, 0.0, 40) == math.inf


# p, se, n, df -> presentation: each row passes all the rules above the one that stops it
STANDARDS = [
    (0.50, 0.020, 29, 15, "suppress", "sample"),  # 1. n < 30
    (0.50, 0.100, 99, 15, "suppress", "sample"),  # 1. n_eff = 25
    (0.50, 0.080, 99, 15, "suppress", "wide or wider"),  # 2. width 0.34
    (0.010, 0.004, 9999, 15, "present", None),  # 3. narrow, though 1.9 times the proportion
    (0.030, 0.015, 999, 15, "suppress", "of the proportion"),  # 4. width 0.07, more than twice the proportion
    (0.30, 0.020, 999, 7, "review", "degrees of freedom"),  # 5. df < 8
    (0.010, 0.004, 9999, 7, "review", "degrees of freedom"),  # 5. narrow, df < 8
    (0.0, 0.0, 30, 15, "review", "0 or 1"),  # 5. widths are not judged
    (1.0, 0.0, 30, 15, "review", "0 or 1"),
    (0.0, 0.0, 29, 15, "suppress", "sample"),
    (0.970, 0.015, 999, 15, "footnote", "complement"),  # 6.
    (0.30, 0.020, 999, 15, "present", None),
    (0.30, 0.020, 999, 0, "suppress", "no degrees"),
]


@pytest.mark.parametrize(("p", "se", "n", "df", "presentation", "words"), STANDARDS)
def test_standards_for_proportions(p, se, n, df, presentation, words):
    got, reason = judge_proportion(p, se, n, df)
    assert got == presentation
    assert reason is None if words is None else words in reason


# mean, se, n, df, signed -> presentation
HOUSE_RULE = [
    (3.0, 0.1, 29, 15, False, "suppress"),
    (3.0, 0.1, 99, 15, False, "present"),
    (3.0, 1.0, 99, 15, False, "suppress"),
    (0.0, 0.1, 99, 15, False, "suppress"),
    (0.0, 0.1, 99, 15, True, "present"),
    (3.0, 0.1, 99, 7, False, "review"),
    (3.0, 0.1, 99, 0, False, "suppress"),
]


@pytest.mark.parametrize(("mean", "se", "n", "df", "signed", "presentation"), HOUSE_RULE)
def test_house_rule_for_means(mean, se, n, df, signed, presentation):
    got, reason = judge_mean(mean, se, n, df, signed)
    assert got == presentation
    assert (reason is None) == (presentation == "present")


def test_a_standardised_proportion_of_one_group_is_the_plain_one():
    n_eff = standardised_effective_n([1.0], [0.3], [200], 0.04)
    assert n_eff == pytest.approx(effective_n(0.3, 0.04, 200), rel=1e-14)
    assert korn_graubard(0.3, 0.04, 200, 20, n_eff) == pytest.approx(korn_graubard(0.3, 0.04, 200, 20), rel=1e-12)


def test_the_effective_size_of_a_standardised_proportion_by_hand():
    # Simple random sample: .25 x .09 / 50 + .25 x .25 / 100 = .00045 + .000625; deff = .0025 / .001075
    assert standardised_effective_n([0.5, 0.5], [0.1, 0.5], [50, 100], 0.05) == pytest.approx(150 * 0.001075 / 0.0025)
    assert standardised_effective_n([0.5, 0.5], [0.0, 0.0], [50, 100], 0.0) == 150
    assert standardised_effective_n([0.5, 0.5], [0.1, 0.5], [50, 100], 0.0) == math.inf
