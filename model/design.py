"""The sample's design as the model sees it: sums per PSU, and what their spread says of an estimate.

Stratified, clustered, weighted samples; PSUs with replacement within strata (Taylor linearisation). Shapes: N people,
P columns of scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]


class Ratio(NamedTuple):
    """A figure with its standard error by linearisation, the domain's df, and a 95 % interval where that is above 0."""

    value: float
    se: float
    df: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Design:
    """Weights (N), and the number of each person's PSU (N) and of each PSU's stratum."""

    weights: Floats
    psus: Integers
    strata: Integers

    @staticmethod
    def of(weights: Floats, strata: Sequence[object], psus: Sequence[object]) -> Design:
        """PSUs are told apart by their names alone. Where all are one, nothing is clustered: each person is a PSU."""
        names, psu = np.unique(np.asarray(psus, dtype=str), return_inverse=True)
        home = np.unique(np.asarray(strata, dtype=str), return_inverse=True)[1].astype(np.int64)
        if len(names) == 1:
            return Design(weights, np.arange(len(weights)), home)
        stratum = np.empty(len(names), dtype=np.int64)
        stratum[psu] = home
        return Design(weights, psu.astype(np.int64), stratum)

    @staticmethod
    def unclustered(weights: Floats) -> Design:
        """Each person is a PSU, of one stratum."""
        return Design(weights, np.arange(len(weights)), np.zeros(len(weights), dtype=np.int64))

    def take(self, people: Members | Integers) -> Design:
        """Some of the people, in the full design: a PSU of whom nobody is left counts on, with scores of 0."""
        return Design(self.weights[people], self.psus[people], self.strata)

    def count_df(self, people: Members) -> int:
        """PSUs less strata, of the PSUs in which somebody of `people` (N) has a weight."""
        found = np.unique(self.psus[people & (self.weights > 0)])
        return len(found) - len(np.unique(self.strata[found]))

    def spread(self, scores: Floats) -> Floats:
        """Covariance (P, P) of the totals of scores (N, P), which add up to 0 or nearly so.

        In a stratum of m PSUs, m / (m - 1) times the sums of squares about its mean; a lonely PSU is centred on 0
        (`adjust` in R's survey).
        """
        sums = np.stack([np.bincount(self.psus, column, minlength=len(self.strata)) for column in scores.T], axis=1)
        centre = np.stack([np.bincount(self.strata, column) for column in sums.T], axis=1) / self._sizes[:, None]
        size = self._sizes[self.strata]
        lonely = size == 1
        centred = sums - np.where(lonely[:, None], 0.0, centre[self.strata])
        factor = np.where(lonely, 1.0, size / np.where(lonely, 1.0, size - 1))
        return np.asarray((centred * factor[:, None]).T @ centred)

    def estimate_ratio(self, above: Floats, below: Floats) -> Ratio:
        """Of the weighted totals of two columns (N), both 0 for people outside the domain."""
        total = float(self.weights @ below)
        ratio = float(self.weights @ above) / total
        scores = self.weights * (above - ratio * below) / total
        se, df = math.sqrt(float(self.spread(scores[:, None])[0, 0])), self.count_df(below > 0)
        half = float(stats.t.ppf(0.975, df)) * se if df > 0 else None
        return Ratio(ratio, se, df, *((None, None) if half is None else (ratio - half, ratio + half)))

    @cached_property
    def _sizes(self) -> Floats:
        return np.bincount(self.strata).astype(np.float64)


def judge_working_wald(estimate: Floats, covariance: Floats, working: Floats, df: int) -> float:
    """p of estimate (q) = 0: see `judge_statistic`; the statistic is the Wald test's with the working covariance."""
    statistic = float(estimate @ np.linalg.solve(working, estimate))
    return judge_statistic(statistic, covariance, working, df)


def judge_statistic(statistic: float, covariance: Floats, working: Floats, df: int) -> float:
    """p of a Wald or likelihood ratio statistic that was made with the covariance `working` (q, q), where the estimates
    have `covariance`.

    Rao & Scott (1984), second order: the statistic is a sum of chi-squares times the eigenvalues of working^-1
    covariance, which Satterthwaite's approximation makes one; F with the design's df, as Lumley & Scott (2014). Unlike
    a Wald test with the covariance itself it bears few degrees of freedom beside many parameters. 1 where df <= 0.
    """
    eigenvalues = np.linalg.eigvals(np.linalg.solve(working, covariance)).real
    total, squares = float(eigenvalues.sum()), float(np.square(eigenvalues).sum())
    if df <= 0 or not total > 0:
        return 1.0
    effective = total**2 / squares
    return float(stats.f.sf(statistic / total, effective, df))
