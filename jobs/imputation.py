"""Combine estimates from plausible values: Rubin's rules, with the degrees of freedom of Barnard and Rubin (1999)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from jobs.presentation import ALPHA


@dataclass(frozen=True)
class Combined:
    """An estimate over M completed data sets; `missing` is the share of the variance that the unknown traits add."""

    estimate: float
    se: float
    df: float
    missing: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % t interval."""
        half = float(stdtrit(self.df, 1 - ALPHA / 2)) * self.se
        return self.estimate - half, self.estimate + half


def combine(estimates: Sequence[float], variances: Sequence[float], df: float) -> Combined:
    """T = mean(U) + (1 + 1/M) B over M estimates and their design-based variances, of `df` degrees of freedom each.

    Barnard and Rubin: 1 / (1/nu_m + 1/nu_obs), nu_m = (M - 1) / g^2, nu_obs = (df + 1) / (df + 3) df (1 - g), with g
    the share of T that is (1 + 1/M) B.
    """
    count = len(estimates)
    added = (1 + 1 / count) * float(np.var(estimates, ddof=1))
    total = math.fsum(variances) / count + added
    share = added / total if total > 0 else 0.0
    observed = (df + 1) / (df + 3) * df * (1 - share)
    # With share 1 (no design variance at all) nothing is left of the design's own.
    freedom = 1 / (share**2 / (count - 1) + 1 / observed) if observed > 0 else 0.0
    return Combined(math.fsum(estimates) / count, math.sqrt(total), freedom, share)
