"""Scores of PSUs: what each adds to the linearised estimate, of which `jobs.survey` takes the variance.

A total's scores are its sums per PSU themselves. Formulas: Särndal, Swensson and Wretman (1992), chapter 5; R's
`svyratio` and `svystandardize` give the same.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def score_ratio(sum_wy: Floats, sum_wx: Floats) -> tuple[float, Floats]:
    """The ratio of two totals, and each PSU's score; sums per PSU over the people with both answers.

    Raises ZeroDivisionError where the denominator's total is 0.
    """
    total = math.fsum(sum_wx)
    ratio = math.fsum(sum_wy) / total
    return ratio, (sum_wy - ratio * sum_wx) / total


def score_whole_total(place: Integers, sum_all: Floats, sum_w: Floats, sum_wy: Floats) -> tuple[float, Floats]:
    """The total of a cell in which some gave no answer, and each PSU's score.

    The people of a weighting class are stood for by those of it who answered, those of a class without answers by
    everybody who did: without it a total is too low. `place` numbers each PSU's class; `sum_all` adds up the weights of
    all people of the cell, `sum_w` and `sum_wy` are over those with an answer, of whom there are some.
    """
    everybody, answered, totals = (np.bincount(place, values) for values in (sum_all, sum_w, sum_wy))
    mean, scores_of_mean = score_ratio(sum_wy, sum_w)
    known = answered > 0
    means = np.where(known, totals / np.where(known, answered, 1.0), mean)
    stands_for = np.where(known, everybody / np.where(known, answered, 1.0), 0.0)
    orphans = math.fsum(everybody[~known])
    scores = stands_for[place] * (sum_wy - means[place] * sum_w) + means[place] * sum_all + orphans * scores_of_mean
    return math.fsum(everybody * means), scores


def score_standardised(shares: Floats, sum_w: Floats, sum_wy: Floats) -> tuple[float, Floats]:
    """The mean that a cell would have with the standard population's groups, and each PSU's score.

    `shares` (groups,) of the standard population add up to 1; `sum_w` and `sum_wy` are (groups, PSUs) over the people
    with an answer, some in every group.
    """
    weights = np.array([math.fsum(row) for row in sum_w])
    means = np.array([math.fsum(row) for row in sum_wy]) / weights
    parts = (shares / weights)[:, None] * (sum_wy - means[:, None] * sum_w)
    return math.fsum(shares * means), parts.sum(axis=0)
