"""Quantiles and Woodruff's intervals against R's svyquantile, and where they end."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.quantiles import Quantile, estimate_quantile, find_quantile
from jobs.survey import count_psus, sum_variance
from tests.jobs.golden_survey import add_up, list_psus, read_estimates, read_people, select


@pytest.mark.parametrize(
    "row", read_estimates("taylor", "quantile"), ids=lambda row: f"{row['domain']} {row['outcome']}"
)
def test_as_in_r(row):
    everybody = read_people()
    people = select(everybody, row["domain"], "y")
    w, y = people["weight"], people["y"]
    values = np.unique(y)
    weights = np.array([w[y == value].sum() for value in values])
    stratum, _ = list_psus(people)
    sizes = count_psus(zip(everybody["stratum"], everybody["psu"], strict=True))

    def share_se(value):
        share = w[y <= value].sum() / w.sum()
        return math.sqrt(sum_variance(stratum, add_up(people, w * ((y <= value) - share)) / w.sum(), sizes, "fail"))

    share = int(row["outcome"].removeprefix("y_p")) / 100
    got = estimate_quantile(values, weights, share, share_se, row["df"])
    assert (got.estimate, got.ci_low, got.ci_high) == (row["estimate"], row["ci_low"], row["ci_high"])
    assert got.se == (None if row["se"] is None else pytest.approx(row["se"], rel=1e-12))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.1, 1), (0.3, 2), (0.3001, 4), (0.6, 4), (1.0, 8)])
def test_a_share_that_is_reached_exactly_is_the_lower_value(share, expected):
    assert find_quantile(np.array([1, 2, 3, 4, 8]), np.array([0.1, 0.2, 0.0, 0.3, 0.4]), share) == expected


def test_a_bound_outside_the_distribution_is_null_and_so_is_the_se():
    got = estimate_quantile(np.array([0.0, 1.0, 2.0]), np.array([90.0, 8.0, 2.0]), 0.95, lambda value: 0.02, 5)
    assert got == Quantile(1.0, None, 1.0, None)


@pytest.mark.parametrize(("df", "se"), [(0, 0.1), (5, None)])
def test_without_df_or_variance_there_is_an_estimate_alone(df, se):
    got = estimate_quantile(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 0.5, lambda value: se, df)
    assert got == Quantile(0.0, None, None, None)


@given(st.lists(st.tuples(st.integers(0, 27), st.integers(1, 9)), min_size=1, max_size=30), st.integers(1, 99))
def test_whole_weights_mean_so_many_people(rows, percent):
    everybody = sorted(value for value, weight in rows for _ in range(weight))
    values = np.array(sorted({value for value, _ in rows}))
    weights = np.array([float(sum(weight for value, weight in rows if value == v)) for v in values])
    place = -(-percent * len(everybody) // 100) - 1
    assert find_quantile(values, weights, percent / 100) == everybody[place]
