"""What the figures of single rows give back of their counts, by the formulas of the survey's estimates.

n = deff p (1-p) / SE^2 + 1 gives the count of a row whose design effect is published. With equal weights a proportion
is k/n, a mean s/n, with s and k whole numbers; where everybody is drawn alone, too, an outsider knows the design
effect: SE^2 = p (1-p) / n m / (m-1), m people in all. Figures that the published, rounded counts give tell no more.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from jobs.disclosure import (
    MEAN_DECIMALS,
    SE_DIGITS,
    TRAIT_SUFFIX,
    WEIGHTED_DIGITS,
    limit_df,
    round_bounds,
    round_digits,
)
from jobs.disclosure_profiles import Profile, round_count, rounding_cell
from jobs.presentation import korn_graubard, t_interval
from jobs.survey import CohortRow

FEWEST_CELLS = 3  # from which it can be seen that weights are equal
SLACK = 1e-9

EXACT = "its figures give the exact count back"
TOO_FINE = "a figure is finer than the profile's rounding"
OTHER_BOUNDS = "its interval is not the one of its published figures, and tells more than they do"
COUNTING_DF = "its degrees of freedom narrow the count down"


def find_algebraic(rows: Sequence[CohortRow], profile: Profile) -> Iterator[tuple[CohortRow, str]]:
    """Rows whose figures tell more of their count than the rounded count itself does."""
    shown = [row for row in rows if row.figures.estimate is not None and row.figures.n]
    for row in shown:
        if _is_too_fine(row, profile):
            yield row, TOO_FINE
        if not _has_own_interval(row, profile):
            yield row, OTHER_BOUNDS
    if profile.rounding == "none":
        return  # counts are shown as they are
    for row in shown:
        if row.figures.df is not None and row.figures.df > limit_df(row.figures.df, row.figures.n or 0, profile):
            yield row, COUNTING_DF
        if row.figures.deff is not None and len(_invert_deff(row, profile)) == 1:
            yield row, EXACT
    if is_self_weighted(rows):
        yield from ((row, EXACT) for row in _find_exact(shown, profile))


def is_self_weighted(rows: Sequence[CohortRow]) -> bool:
    """Whether one weight for everybody explains all weighted counts."""
    pairs = {(r.figures.n, r.figures.n_weighted) for r in rows if r.figures.n and r.figures.n_weighted}
    if len(pairs) < FEWEST_CELLS:
        return False
    unit = 0.5 * 10.0 ** (1 - WEIGHTED_DIGITS)  # of the first digit
    ratios = [(float(w or 0) / float(n or 1), unit) for n, w in pairs]
    return max(ratio * (1 - slack) for ratio, slack in ratios) <= min(ratio * (1 + slack) for ratio, slack in ratios)


def list_cases(row: CohortRow, profile: Profile) -> list[int] | None:
    """The numbers of cases that a row's proportion leaves possible with equal weights; None where none is shown."""
    n, p = row.figures.n, row.figures.estimate
    if p is None or not n:
        return None
    half = 0.5 * 10.0**-profile.proportion_decimals + SLACK
    around = range(max(0, math.floor((p - half) * n) - 6), math.ceil((p + half) * n) + 7)
    return [k for k in around if abs(min(1.0, round_count(k, profile) / n) - p) <= half]


def _is_too_fine(row: CohortRow, profile: Profile) -> bool:
    f = row.figures
    if f.kind not in ("mean", "proportion") or f.estimate is None or f.se is None:
        return False
    decimals = MEAN_DECIMALS if f.kind == "mean" else profile.proportion_decimals
    fine = abs(f.estimate - round(f.estimate, decimals)) > SLACK or f.se != round_digits(f.se, SE_DIGITS)
    fine |= f.n_weighted is not None and f.n_weighted != round_digits(f.n_weighted, WEIGHTED_DIGITS)
    return fine or f.deff is not None or f.n_cases is not None


def _has_own_interval(row: CohortRow, profile: Profile) -> bool:
    """Whether the interval is what the row's other public figures give."""
    f = row.figures
    if f.ci_low is None or f.ci_high is None or f.kind not in ("mean", "proportion"):
        return True
    if f.estimate is None or f.se is None or not f.n or not f.df:
        return False
    own = t_interval(f.estimate, f.se, f.df) if f.kind == "mean" else korn_graubard(f.estimate, f.se, f.n, f.df)
    decimals = MEAN_DECIMALS if f.kind == "mean" else profile.proportion_decimals
    return bool(np.allclose([f.ci_low, f.ci_high], round_bounds(own, decimals), atol=SLACK, rtol=0))


def _half_unit(se: float) -> float:
    """Half of the last digit in which a standard error is written, two digits at least."""
    digits = next(d for d in range(SE_DIGITS, 18) if round_digits(se, d) == se or d == 17)
    return float(0.5 * 10.0 ** (math.floor(math.log10(se)) + 1 - digits))


def _invert_deff(row: CohortRow, profile: Profile) -> list[int]:
    f = row.figures
    low, high = rounding_cell(f.n or 0, profile)
    if not f.se or f.estimate is None or f.deff is None or not 0 < f.estimate < 1:
        return list(range(low, high + 1))
    half = 0.5 * 10.0**-profile.proportion_decimals
    edges = [
        f.deff * p * (1 - p) / se**2 + 1
        for p in (f.estimate - half, f.estimate + half)
        for se in (f.se - _half_unit(f.se), f.se + _half_unit(f.se))
    ]
    return [n for n in range(low, high + 1) if min(edges) - SLACK <= n <= max(edges) + SLACK]


def _find_exact(shown: Sequence[CohortRow], profile: Profile) -> Iterator[CohortRow]:
    """Rows of one count alone, where whole numbers explain every row and the rounded counts do not."""
    everybody = max((row.figures.n or 0 for row in shown), default=0)
    proportions = [row for row in shown if row.figures.kind == "proportion" and row.figures.se]
    drawn_alone = all(_fit_se(row, profile, everybody) for row in proportions)
    for row in shown:
        mean = row.figures.kind == "mean" and not row.outcome.endswith(TRAIT_SUFFIX)
        counts = _fit_mean(row, profile) if mean else set[int]()
        if row in proportions and drawn_alone:
            counts = _fit_se(row, profile, everybody)
        low, high = rounding_cell(row.figures.n or 0, profile)
        if len(counts) == 1 and high > low:
            yield row


def _fit_se(row: CohortRow, profile: Profile, everybody: int) -> set[int]:
    """The counts that explain the SE of a simple random sample; all of them where the rounded ones do."""
    n_public, se = row.figures.n or 0, row.figures.se or 0.0
    low, high = rounding_cell(n_public, profile)
    cases = list_cases(row, profile) or []
    inflate, slack = everybody / max(1, everybody - 1), 5.0 / max(2, everybody) ** 2
    half = _half_unit(se) * (1 + SLACK)

    def predict(n: int, k: float) -> float:
        p = min(1.0, k / n)
        return math.sqrt(p * (1 - p) / n * inflate)

    rounded = {round_count(k, profile) for k in cases}
    if any(abs(predict(n_public, k) - se) <= half + slack * se for k in rounded):
        return set(range(low, high + 1))
    return {n for n in range(low, high + 1) for k in cases if k <= n and abs(predict(n, k) - se) <= half + slack * se}


def _fit_mean(row: CohortRow, profile: Profile) -> set[int]:
    """The counts that explain a mean of whole numbers; all of them where a rounded sum does."""
    n_public, mean = row.figures.n or 0, abs(row.figures.estimate or 0.0)
    low, high = rounding_cell(n_public, profile)
    half = 0.5 * 10.0**-MEAN_DECIMALS + SLACK
    around = range(max(0, round(mean * n_public) - 6), round(mean * n_public) + 7)
    if any(abs(round_count(s, profile) / n_public - mean) <= half for s in around):
        return set(range(low, high + 1))
    return {n for n in range(low, high + 1) if abs(round(mean * n) / n - mean) <= half}
