"""Design-based means and proportions of a domain, from sums per PSU: by Taylor linearisation, or replicate weights.

Stratified, clustered, weighted samples; PSUs with replacement within strata. A domain is estimated on the full design:
its strata keep the number of PSUs that they have in the design, and a PSU without anybody of the domain contributes
zero. Variances, degrees of freedom, design effects and lonely PSUs as in R's `survey` (svymean on a subset of the
design, degf, deff=TRUE, survey.lonely.psu with survey.adjust.domain.lonely=FALSE).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from expectations.errors import ContractBroken
from jobs.presentation import (
    Interval,
    Presentation,
    judge_mean,
    judge_proportion,
    korn_graubard,
    logit_interval,
    t_interval,
)
from jobs.replicates import ReplicateSums

Kind = Literal["mean", "proportion", "standardised", "total", "ratio", "quantile", "change"]
LonelyPsu = Literal["fail", "adjust", "certainty", "remove", "average"]
IntervalMethod = Literal["t", "korn-graubard", "logit", "log-t", "woodruff"]
Disclosure = Literal["shown", "suppressed", "complementary"]

CellKey = tuple[tuple[str, ...], tuple[str, ...], str]  # breakdown, cell, outcome

NO_VARIANCE = "every stratum has one PSU, so there is no variance"
NO_REPLICATE = "nobody in the cell has a replicate weight above 0, so there is no variance"
SUMS = ("n", "n_cases", "sum_w", "sum_wy", "sum_wyy")


@dataclass(frozen=True)
class DomainSums:
    """One outcome in one domain: arrays over its PSUs, all of one length; sums over the people who answered.

    Variance and degrees of freedom are those of `replicates`, where there are some.
    """

    stratum: NDArray[Any]
    psu: NDArray[Any]
    n: NDArray[np.int64]
    n_cases: NDArray[np.int64]
    sum_w: NDArray[np.float64]
    sum_wy: NDArray[np.float64]
    sum_wyy: NDArray[np.float64]
    replicates: ReplicateSums | None = None


@dataclass(frozen=True)
class Estimate:
    """A design-based figure. Null where it cannot be computed; `reason` then says why. `n_cases` never leaves us.

    `noise_se` is the part of `se` that the noise of differential privacy is expected to add.
    """

    kind: Kind
    n: int | None
    n_cases: int | None
    n_weighted: float | None
    estimate: float | None
    se: float | None
    df: int | None
    ci_low: float | None
    ci_high: float | None
    ci_method: str | None
    deff: float | None
    presentation: Presentation
    reason: str | None
    noise_se: float | None = None


@dataclass(frozen=True)
class CohortRow:
    """An estimate and the cell that it is of: `cell` holds the level of each cohort of `breakdown`."""

    breakdown: tuple[str, ...]
    cell: tuple[str, ...]
    outcome: str
    figures: Estimate
    disclosure: Disclosure | None = None
    since: date | None = None  # of a change: the night that it is a change from
    telling: str | None = None  # why its figure may not be told, for another reason than its own counts

    @property
    def place(self) -> CellKey:
        """The cell and the outcome, whose figures of several kinds stand there."""
        return self.breakdown, self.cell, self.outcome

    def to_record(self, cohorts: Sequence[str]) -> dict[str, Any]:
        """The row under the column names of the cohorts tables; cohorts outside the breakdown are null."""
        levels = dict(zip(self.breakdown, self.cell, strict=True))
        return {
            "breakdown": "*".join(self.breakdown) or "all",
            **{name: levels.get(name) for name in cohorts},
            "outcome": self.outcome,
            **vars(self.figures),
            "since": self.since,
            "disclosure": self.disclosure,
        }


class DesignSizes(dict[str, int]):
    """PSUs per stratum of the full design; `sampled` is their share of the population's PSUs where that is known."""

    def __init__(self, counts: Mapping[str, int], sampled: Mapping[str, float]) -> None:
        super().__init__(counts)
        self.sampled = sampled


def count_psus(design: Iterable[tuple[str, str]], sampled: Mapping[str, float] | None = None) -> DesignSizes:
    """From the (stratum, psu) pairs of the design, ineligible people's included, and each stratum's sampled share."""
    return DesignSizes(Counter(stratum for stratum, _ in set(design)), sampled or {})


def estimate_domain(
    domain: DomainSums,
    design_sizes: Mapping[str, int],
    kind: Kind,
    lonely_psu: LonelyPsu = "fail",
    ci_method: IntervalMethod | None = None,
    signed: bool = False,
) -> Estimate:
    """The mean or proportion of one domain, its SE, interval and design effect.

    `design_sizes` has the PSUs per stratum of the full design. Intervals are `t` for means and `korn-graubard` for
    proportions unless `ci_method` says otherwise. A lonely stratum matters where the domain has people in it, as in R.
    Raises ContractBroken for a lonely PSU under `fail`, ValueError for a PSU or stratum that the design lacks.
    """
    domain = keep_answered(domain)
    reason: str | None
    n, n_cases = int(domain.n.sum()), int(domain.n_cases.sum())
    cases = n_cases if kind == "proportion" else None
    method: IntervalMethod = ci_method or ("t" if kind == "mean" else "korn-graubard")
    if not n:
        reason = "nobody in the cell answered"
        return Estimate(kind, 0, cases, 0.0, None, None, None, None, None, None, None, "suppress", reason)
    weight = math.fsum(domain.sum_w)
    mean = math.fsum(domain.sum_wy) / weight
    if cases in (0, n):
        mean = 1.0 if cases else 0.0  # exactly, whatever the last digit of the sums says
    variance, df = vary_mean(domain, mean, design_sizes, lonely_psu), count_df(domain)
    if variance is None:
        reason = explain_no_variance(domain)
        return Estimate(kind, n, cases, weight, mean, None, df, None, None, None, None, "suppress", reason)
    se = 0.0 if cases in (0, n) else math.sqrt(variance)
    low: float | None
    high: float | None
    low, high = _interval(method, mean, se, n, df) if df > 0 else (None, None)
    if cases in (0, n) and method != "korn-graubard":
        low, high = None, None  # no other interval has a width where the SE is 0
    if kind == "mean":
        presentation, reason = judge_mean(mean, se, n, df, signed)
    else:
        presentation, reason = judge_proportion(mean, se, n, df)
    if df <= 0:
        reason = "no degrees of freedom, so no interval"
    deff = _design_effect(variance, mean, weight, n, domain)
    return Estimate(kind, n, cases, weight, mean, se, df, low, high, method, deff, presentation, reason)


def keep_answered(domain: DomainSums) -> DomainSums:
    """PSUs where somebody answered, in one order, so that no digit hangs on how the rows came."""
    order = np.lexsort((domain.psu, domain.stratum))
    order = order[domain.n[order] > 0]
    arrays = {name: column[order] for name, column in vars(domain).items() if name != "replicates"}
    return DomainSums(**arrays, replicates=domain.replicates)


def count_df(domain: DomainSums) -> int:
    """PSUs less strata, of a domain's PSUs in which somebody answered; or what its replicate weights have."""
    return domain.replicates.df if domain.replicates else len(domain.psu) - len(np.unique(domain.stratum))


def vary_mean(domain: DomainSums, mean: float, sizes: Mapping[str, int], lonely_psu: LonelyPsu) -> float | None:
    """The variance of a mean or proportion: by replicate weights, where there are some, or of its linearised scores."""
    if domain.replicates:
        return domain.replicates.vary_mean()
    scores = (domain.sum_wy - mean * domain.sum_w) / math.fsum(domain.sum_w)
    return sum_variance(domain.stratum, scores, sizes, lonely_psu)


def explain_no_variance(domain: DomainSums) -> str:
    return NO_REPLICATE if domain.replicates else NO_VARIANCE


def _interval(method: IntervalMethod, mean: float, se: float, n: int, df: int) -> Interval:
    if method == "korn-graubard":
        return korn_graubard(mean, se, n, df)
    if method == "logit" and 0 < mean < 1:
        return logit_interval(mean, se, df)
    return t_interval(mean, se, df)


def sum_variance(
    stratum: NDArray[Any], scores: NDArray[np.float64], design_sizes: Mapping[str, int], lonely_psu: LonelyPsu
) -> float | None:
    """Sum over strata of (1 - m/M) m/(m-1) x sum of squares about the stratum's mean score, m PSUs in the design.

    M is the population's PSUs, where known (finite population correction).
    A PSU outside the domain scores 0. Scores of a mean add up to 0, so `adjust` centres a lonely PSU on 0; `average`
    gives it the mean variance of the strata that have one; `certainty` and `remove` give it none.
    """
    names, index, found = np.unique(stratum, return_inverse=True, return_counts=True)
    sampled = design_sizes.sampled if isinstance(design_sizes, DesignSizes) else {}
    correction = np.array([1 - sampled.get(name, 0.0) for name in names])
    size = np.array([design_sizes.get(name, 0) for name in names], dtype=np.float64)
    if np.any(found > size):
        raise ValueError(f"stratum {names[found > size][0]} has more PSUs in the domain than in the design")
    lonely = (size == 1) & (correction > 0)  # a stratum that is sampled whole has no variance
    if lonely.any() and lonely_psu == "fail":
        raise ContractBroken(
            f"stratum {', '.join(map(str, names[lonely]))} has only one PSU, so its variance is unknown: join it to "
            "another stratum, or choose adjust, certainty, remove or average as design.lonely_psu in the codebook"
        )
    centre = np.bincount(index, scores) / size
    squares = np.bincount(index, (scores - centre[index]) ** 2) + (size - found) * centre**2
    parts = np.where(size == 1, 0.0, squares * size / np.where(size == 1, 1.0, size - 1))
    if lonely_psu == "adjust":
        parts = np.where(lonely, np.bincount(index, scores**2), parts)
    parts = parts * correction
    if lonely_psu == "average" and lonely.any():
        return math.fsum(parts) * len(names) / np.sum(~lonely) if not lonely.all() else None
    return math.fsum(parts)


def _design_effect(variance: float, mean: float, weight: float, n: int, domain: DomainSums) -> float | None:
    """Variance over that of a simple random sample of n without replacement from a population of `weight` people."""
    spread = (math.fsum(domain.sum_wyy) - mean * math.fsum(domain.sum_wy)) / weight
    if n < 2 or weight <= n or spread <= 0:
        return None
    return variance / (spread * n / (n - 1) * (weight - n) / (weight * n))
