"""Scores of PSUs: what each adds to the linearised estimate, of which `jobs.survey` takes the variance.

A total's scores are its sums per PSU themselves. Formulas: Särndal, Swensson and Wretman (1992), chapter 5; R's
`svyratio` and `svystandardize` give the same.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def score_ratio(sum_wy: Floats, sum_wx: Floats) -> tuple[float, Floats]:
    """The ratio of two totals, and each PSU's score; sums per PSU over the people with both answers.

    Raises ZeroDivisionError where the denominator's total is 0.
    """
    total = math.fsum(sum_wx)
    ratio = math.fsum(sum_wy) / total
    return ratio, (sum_wy - ratio * sum_wx) / total


def score_standardised(shares: Floats, sum_w: Floats, sum_wy: Floats) -> tuple[float, Floats]:
    """The mean that a cell would have with the standard population's groups, and each PSU's score.

    `shares` (groups,) of the standard population add up to 1; `sum_w` and `sum_wy` are (groups, PSUs) over the people
    with an answer, some in every group.
    """
    weights = np.array([math.fsum(row) for row in sum_w])
    means = np.array([math.fsum(row) for row in sum_wy]) / weights
    parts = (shares / weights)[:, None] * (sum_wy - means[:, None] * sum_w)
    return math.fsum(shares * means), parts.sum(axis=0)
