"""Confidence intervals for proportions, and whether a figure is reliable enough to be shown.

Proportions follow NCHS, Vital and Health Statistics Series 2 No. 175 (2017), counts Series 2 No. 200 (2023). Neither
has a rule for means: ours is a house rule, taken from the older NCHS practice of withholding a relative standard error
above 30 %.
"""

import math
from collections.abc import Sequence
from typing import Literal

from scipy.special import betaincinv, stdtrit

Presentation = Literal["present", "suppress", "review", "footnote"]
Interval = tuple[float, float]

ALPHA = 0.05
MIN_SAMPLE = 30
MAX_WIDTH = 0.30
NARROW_WIDTH = 0.05
MAX_RELATIVE_WIDTH = 1.30
MIN_DF = 8
MIN_CASES = 10
MAX_RELATIVE_COUNT_WIDTH = 1.60
MAX_RELATIVE_SE = 0.30  # house rule, for means only


def t_quantile(df: float) -> float:
    """The 97.5 % point of Student's t."""
    return float(stdtrit(df, 1 - ALPHA / 2))


def t_interval(estimate: float, se: float, df: int) -> Interval:
    """Estimate -/+ t(df) x SE; for a proportion this is the Wald interval."""
    half = t_quantile(df) * se
    return estimate - half, estimate + half


def logit_interval(p: float, se: float, df: int) -> Interval:
    """t interval on the logit scale, brought back; 0 < p < 1. The SE of the logit is se / (p (1-p))."""
    low, high = t_interval(math.log(p / (1 - p)), se / (p * (1 - p)), df)
    return 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))


def log_t_interval(total: float, se: float, df: int) -> Interval:
    """t interval on the logarithm's scale, brought back; total > 0. The SE of the logarithm is se / total."""
    low, high = t_interval(math.log(total), se / total, df)
    return math.exp(low), math.exp(high)


def effective_n(p: float, se: float, n: int) -> float:
    """p (1-p) / SE^2, before it is cut at n; n itself at p of 0 or 1, where the SE is 0."""
    if p in (0.0, 1.0):
        return float(n)
    return p * (1 - p) / se**2 if se > 0 else math.inf


def standardised_effective_n(shares: Sequence[float], p: Sequence[float], n: Sequence[int], se: float) -> float:
    """Effective sample size of a standardised proportion, before it is cut at n; by group: share, proportion, people.

    n over the design effect, the variance over that of a simple random sample that is standardised too: the sum of
    share^2 p (1-p) / n. All people together at p of 0 or 1, where the SE is 0.
    """
    simple = math.fsum(s * s * q * (1 - q) / m for s, q, m in zip(shares, p, n, strict=True))
    if simple == 0:
        return float(sum(n))
    return sum(n) * simple / se**2 if se > 0 else math.inf


def korn_graubard(p: float, se: float, n: int, df: int, n_eff: float | None = None) -> Interval:
    """95 % Korn-Graubard interval of a proportion, effective sample size cut at n.

    n_df = min(n, n_eff (t(.975, n-1) / t(.975, df))^2); low = Beta(.025; x, n_df-x+1) and
    high = Beta(.975; x+1, n_df-x) with x = p n_df. At p of 0 or 1 n_df = n, the closed limit is p itself and the
    open one stays at alpha/2, as NCHS computes it. Needs n >= 2 and df >= 1.
    `n_eff` is given for a standardised proportion.
    """
    if p == 0.0:
        return 0.0, float(betaincinv(1, n, 1 - ALPHA / 2))
    if p == 1.0:
        return float(betaincinv(n, 1, ALPHA / 2)), 1.0
    shrink = (t_quantile(n - 1) / t_quantile(df)) ** 2
    n_df = min(float(n), (effective_n(p, se, n) if n_eff is None else n_eff) * shrink)
    x = p * n_df
    return float(betaincinv(x, n_df - x + 1, ALPHA / 2)), float(betaincinv(x + 1, n_df - x, 1 - ALPHA / 2))


def judge_proportion(
    p: float, se: float, n: int, df: int, n_eff: float | None = None
) -> tuple[Presentation, str | None]:
    """The NCHS standards for proportions in their order: what to do with the figure, and why.

    `n_eff` is given for a standardised proportion.
    """
    if min(n, effective_n(p, se, n) if n_eff is None else n_eff) < MIN_SAMPLE:
        return "suppress", f"sample or effective sample below {MIN_SAMPLE}"
    if df <= 0:
        return "suppress", "no degrees of freedom, so no interval"
    if p in (0.0, 1.0):
        return "review", "proportion of 0 or 1"
    low, high = korn_graubard(p, se, n, df, n_eff)
    width = high - low
    if width >= MAX_WIDTH:
        return "suppress", f"interval {MAX_WIDTH:.0%} wide or wider"
    if width > NARROW_WIDTH and width / p > MAX_RELATIVE_WIDTH:
        return "suppress", f"interval wider than {MAX_RELATIVE_WIDTH:.0%} of the proportion"
    if df < MIN_DF:
        return "review", f"fewer than {MIN_DF} degrees of freedom"
    if width > NARROW_WIDTH and width / (1 - p) > MAX_RELATIVE_WIDTH:
        return "footnote", "the complement of the proportion may be unreliable"
    return "present", None


def judge_mean(mean: float, se: float, n: int, df: int, signed: bool = False) -> tuple[Presentation, str | None]:
    """House rule for means. A signed scale has no natural zero, so its relative SE says nothing and is not judged."""
    if n < MIN_SAMPLE:
        return "suppress", f"sample below {MIN_SAMPLE} (house rule)"
    if df <= 0:
        return "suppress", "no degrees of freedom, so no interval"
    if not signed and se > MAX_RELATIVE_SE * abs(mean):
        return "suppress", f"relative standard error above {MAX_RELATIVE_SE:.0%} (house rule)"
    if df < MIN_DF:
        return "review", f"fewer than {MIN_DF} degrees of freedom (house rule)"
    return "present", None


def judge_quantile(bounded: bool, n: int, df: int) -> tuple[Presentation, str | None]:
    """House rule for quantiles: as for means, with an interval that the data hold in place of the relative SE."""
    if n < MIN_SAMPLE:
        return "suppress", f"sample below {MIN_SAMPLE} (house rule)"
    if df <= 0:
        return "suppress", "no degrees of freedom, so no interval"
    if not bounded:
        return "suppress", "the interval reaches past the data (house rule)"
    if df < MIN_DF:
        return "review", f"fewer than {MIN_DF} degrees of freedom (house rule)"
    return "present", None


def judge_count(total: float, se: float, n_cases: int, df: int) -> tuple[Presentation, str | None]:
    """The NCHS standards for counts, of an estimated number of people: what to do with it, and why."""
    if n_cases < MIN_CASES:
        return "suppress", f"fewer than {MIN_CASES} people with the outcome"
    if df <= 0:
        return "suppress", "no degrees of freedom, so no interval"
    low, high = log_t_interval(total, se, df)
    if high - low > MAX_RELATIVE_COUNT_WIDTH * total:
        return "suppress", f"interval wider than {MAX_RELATIVE_COUNT_WIDTH:.0%} of the number"
    if df < MIN_DF:
        return "review", f"fewer than {MIN_DF} degrees of freedom"
    return "present", None
