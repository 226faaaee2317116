"""The attack by totals, ratios, changes and quantiles, and by means near an end of their scale.

A total or a change is one more equation for the figure that it stands beside, a ratio for two: where none is shown
beside a withheld one, all that they hold is shown figures, which the attack by sums takes to be known exactly. With
equal weights a total is a number of cases times one factor, its SE that of so many cases, and a ratio one of two whole
numbers: finer than of rounded ones, they give the exact ones back. A quantile, either bound of its interval, and a mean
near an end of its scale bound the shares of that scale. The SE of a change tells how many people moved, which is no
protected count: cells in which so few did that they may be known are withheld (`jobs.disclosure`). The interval of a
standardised figure is made of groups that need not be published, so it is not made again here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from expectations.outcomes import Outcome
from jobs.algebra import EXACT, FEWEST_CELLS, OTHER_BOUNDS, SLACK, TOO_FINE, is_self_weighted, list_cases
from jobs.bounding import Bounds, bound_cases
from jobs.disclosure import (
    MEAN_DECIMALS,
    SE_DIGITS,
    TRAIT_SUFFIX,
    WEIGHTED_DIGITS,
    Release,
    round_bounds,
    round_digits,
    settle,
)
from jobs.disclosure_profiles import Profile, hides_everybody, round_count, rounding_cell
from jobs.followers import round_significant
from jobs.presentation import log_t_interval, t_interval, t_quantile
from jobs.survey import CellKey, CohortRow, Estimate

BESIDE = "it is withheld, and a figure that is made of it is shown"
EVERYBODY = "its count tells, beside exact numbers of answers, how few gave none"
APART = "its change is not that of the published figures, and tells more than they do"

BASES = ("mean", "proportion")
DIGITS = {"total": WEIGHTED_DIGITS, "ratio": WEIGHTED_DIGITS}

Found = tuple[CohortRow, str]
Figures = Mapping[tuple[CellKey, str], CohortRow]


def find_told(
    tonight: Release, earlier: Sequence[Release], outcomes: Sequence[Outcome], profile: Profile
) -> Iterator[Found]:
    """The rows that what follows from means and proportions gives away."""
    named = {outcome.name: outcome for outcome in outcomes}
    figures: Figures = {(row.place, row.figures.kind): row for row in tonight.rows}
    before: dict[str, Figures] = {
        release.run_date: {(r.place, r.figures.kind): r for r in release.rows} for release in earlier
    }
    for row in tonight.rows:
        f = row.figures
        if f.n and hides_everybody(profile) and _is_of_everybody(row, named):
            yield row, EVERYBODY
        if f.kind in BASES or f.estimate is None:
            continue
        names = named[row.outcome].base_names() if row.outcome in named else (row.outcome,)
        for base in (figures.get(((*row.place[:2], name), kind)) for name in names for kind in BASES):
            if base and base.figures.estimate is None and base.disclosure != "shown" and f.kind != "quantile":
                yield base, BESIDE
        if _is_too_fine(row):
            yield row, TOO_FINE
        decimals = profile.proportion_decimals if (row.place, "proportion") in figures else MEAN_DECIMALS
        if not _has_own_interval(f, decimals):
            yield row, OTHER_BOUNDS
        if f.kind == "change" and row.since and not _is_difference(row, figures, before):
            yield row, APART
    if profile.rounding != "none":
        for outcome in dict.fromkeys(row.outcome for row in tonight.rows):
            yield from _find_exact(outcome, named.get(outcome), tonight.rows, figures, profile)


def _is_of_everybody(row: CohortRow, named: Mapping[str, Outcome]) -> bool:
    """Whether its people are not those who gave one answer: a trait's are all, those of two answers gave both."""
    over = named[row.outcome].over if row.outcome in named else None
    return row.outcome.endswith(TRAIT_SUFFIX) or (over is not None and over.source != named[row.outcome].source)


def bound_shares(rows: Sequence[CohortRow], outcomes: Sequence[Outcome], profile: Profile) -> dict[CellKey, Bounds]:
    """The fewest and the most cases of each cell's proportions, as its mean and quantiles leave them."""
    figures: Figures = {(row.place, row.figures.kind): row for row in rows}
    found = dict[CellKey, Bounds]()
    for cut in (outcome for outcome in outcomes if outcome.kind == "proportion"):
        beside = [one for one in outcomes if one.source == cut.source and one.kind in ("mean", "quantile")]
        for row in (row for row in rows if row.outcome == cut.name and row.figures.kind == "proportion"):
            bounds = [(0.0, math.inf)]
            for one in beside:
                other = figures.get(((*row.place[:2], one.name), one.kind))
                if other and other.figures.estimate is not None and other.figures.n:
                    bound = _bound_by_mean if one.kind == "mean" else _bound_by_quantile
                    bounds.append(bound(other.figures, one, cut, profile))
            found[row.place] = max(low for low, _ in bounds), min(high for _, high in bounds)
    return found


def _bound_by_mean(mean: Estimate, outcome: Outcome, cut: Outcome, profile: Profile) -> Bounds:
    assert mean.n and mean.estimate is not None
    people = rounding_cell(mean.n, profile)
    total, slack = mean.estimate * mean.n, 0.5 * 10.0**-MEAN_DECIMALS * mean.n + (people[1] - people[0]) / 2
    lows, highs = zip(*(bound_cases(cut, n, (total - slack, total + slack)) for n in people), strict=True)
    return min(lows), max(highs)


def _bound_by_quantile(quantile: Estimate, outcome: Outcome, cut: Outcome, profile: Profile) -> Bounds:
    """At least the quantile's share of the people have its value or less, and less than that have less.

    The bounds of its interval are quantiles, too, of a share that is known where everybody is drawn alone.
    """
    assert quantile.n and quantile.estimate is not None and outcome.level is not None and cut.cut is not None
    level, (fewest, most) = outcome.level, rounding_cell(quantile.n, profile)
    half = t_quantile(quantile.df) * math.sqrt(level * (1 - level) / most) if quantile.df else 0.0
    at_least = [(quantile.estimate, level), (quantile.ci_high, level + half), (quantile.ci_low, level - half)]
    highest_below = cut.cut - 1 if cut.side == ">=" else cut.cut
    below = max([0.0, *(share for value, share in at_least if value is not None and value <= highest_below)])
    ceiling = level if quantile.estimate > highest_below else 1.0
    low, high = (1 - ceiling, 1 - below) if cut.side == ">=" else (below, ceiling)
    return float(math.ceil(low * fewest - SLACK)), float(math.floor(high * most + SLACK))


def _is_too_fine(row: CohortRow) -> bool:
    f = row.figures
    assert f.estimate is not None
    decimals = 3 if f.kind in ("change", "standardised") else MEAN_DECIMALS
    rounded = round_digits(f.estimate, DIGITS[f.kind]) if f.kind in DIGITS else round(f.estimate, decimals)
    fine = abs(f.estimate - rounded) > SLACK * max(1.0, abs(rounded))
    fine |= f.se is not None and f.se != round_digits(f.se, SE_DIGITS)
    fine |= f.n_weighted is not None and f.n_weighted != round_digits(f.n_weighted, WEIGHTED_DIGITS)
    return fine or f.deff is not None or f.n_cases is not None


def _has_own_interval(f: Estimate, decimals: int) -> bool:
    """Whether the interval is what the row's other figures give."""
    if f.ci_low is None or f.ci_high is None or f.kind == "standardised":
        return True
    if f.estimate is None or f.se is None or not f.df:
        return False
    if f.kind == "quantile":  # its SE is made of the interval
        return math.isclose(
            f.se, round_digits(settle((f.ci_high - f.ci_low) / (2 * t_quantile(f.df))), SE_DIGITS), abs_tol=SLACK
        )
    if f.kind == "total":
        own = round_significant(log_t_interval(f.estimate, f.se, f.df))
    elif f.kind == "ratio":
        own = round_significant(t_interval(f.estimate, f.se, f.df))
    else:
        own = round_bounds(t_interval(f.estimate, f.se, f.df), decimals)
    return bool(np.allclose([f.ci_low, f.ci_high], own, atol=SLACK, rtol=SLACK))


def _is_difference(row: CohortRow, figures: Figures, before: Mapping[str, Figures]) -> bool:
    release = before.get(row.since.isoformat() if row.since else "")
    kind = next((kind for kind in BASES if (row.place, kind) in figures), None)
    if release is None or kind is None:
        return True  # a release that the outsider does not have, or a figure that is told of already
    then, now = release.get((row.place, kind)), figures[row.place, kind]
    if then is None or then.figures.estimate is None or now.figures.estimate is None:
        return now.figures.estimate is None  # told of already
    difference = round(now.figures.estimate - then.figures.estimate, 3 if kind == "proportion" else MEAN_DECIMALS)
    return abs((row.figures.estimate or 0.0) - difference) <= SLACK


def _find_exact(
    name: str, outcome: Outcome | None, rows: Sequence[CohortRow], figures: Figures, profile: Profile
) -> Iterator[Found]:
    """Rows of one whole number alone, where whole numbers explain every row of its kind and rounded ones do not."""
    shares, totals, ratios = (
        [row for row in rows if (row.outcome, row.figures.kind) == (name, kind) and row.figures.estimate]
        for kind in ("proportion", "total", "ratio")
    )
    fits = _fit_totals(shares, totals, profile) if is_self_weighted(shares) else []
    if outcome and is_self_weighted(ratios):
        fits.append(_fit_ratios(ratios, outcome, figures, profile))
    for fit in fits:
        if len(fit) >= FEWEST_CELLS and all(numbers for _, numbers in fit):
            yield from ((row, EXACT) for row, numbers in fit if len(numbers) == 1)


Fit = list[tuple[CohortRow, set[int]]]  # the whole numbers that explain a figure; several where rounded ones do


def _fit_totals(shares: Sequence[CohortRow], totals: Sequence[CohortRow], profile: Profile) -> list[Fit]:
    """The cases that explain each total, and each total's SE."""
    cases = {row.place: list_cases(row, profile) or [] for row in shares}
    rows = [row for row in totals if cases.get(row.place)]
    if not rows:
        return []
    # A total is so many cases times one factor, which the largest tells best.
    largest = max(rows, key=lambda row: row.figures.estimate or 0.0)
    top, around = largest.figures.estimate or 0.0, [k for k in cases[largest.place] if k] or [1]
    unit, people = _find_half(top, WEIGHTED_DIGITS), max(row.figures.n or 0 for row in shares)
    factors = (top - unit) / max(around), (top + unit) / min(around)

    def spread(k: int) -> float:
        return math.sqrt(k * max(0.0, 1 - k / people) * people / max(1, people - 1))

    by_total = [(row, _explain(cases[row.place], float, factors, row.figures.estimate, 3, profile)) for row in rows]
    with_se = [row for row in rows if row.figures.se]
    by_se = [(row, _explain(cases[row.place], spread, factors, row.figures.se, SE_DIGITS, profile)) for row in with_se]
    return [by_total, by_se]


def _explain(
    known: Sequence[int],
    size: Callable[[int], float],
    factors: Bounds,
    value: float | None,
    digits: int,
    profile: Profile,
) -> set[int]:
    """Those of the numbers whose `size`, times a factor, is the value; all, and one more, where a rounded one's is."""
    half = _find_half(value or 0.0, digits)

    def fits(k: int) -> bool:
        return factors[0] * size(k) - half <= (value or 0.0) <= factors[1] * size(k) + half

    if any(fits(round_count(k, profile)) for k in known):
        return {-1, *known}
    return {k for k in known if fits(k)}


def _fit_ratios(rows: Sequence[CohortRow], outcome: Outcome, figures: Figures, profile: Profile) -> Fit:
    """The numerators that explain each ratio of whole numbers; rows whose parts have other people are left out."""
    found: Fit = []
    for row in rows:
        parts = [figures.get(((*row.place[:2], name), kind)) for name in outcome.base_names() for kind in BASES]
        above, below = ([part for part in parts if part] + [None, None])[:2]
        if not above or not below or not above.figures.n == below.figures.n == row.figures.n:
            continue
        tops, bottoms = (_list_wholes(part, profile) for part in (above, below))
        value, half = row.figures.estimate or 0.0, _find_half(row.figures.estimate or 0.0, WEIGHTED_DIGITS)
        pairs = [(a, b) for a in tops for b in bottoms]
        rounded = ((round_count(a, profile), round_count(b, profile)) for a, b in pairs)
        if any(b and abs(a / b - value) <= half for a, b in rounded):
            found.append((row, {-1, *tops}))
        else:
            found.append((row, {a for a, b in pairs if b and abs(a / b - value) <= half}))
    return found


def _list_wholes(row: CohortRow, profile: Profile) -> list[int]:
    """The numbers of cases, or the sums of scores, that are published as the row's figure with equal weights."""
    n, mean = row.figures.n or 1, row.figures.estimate or 0.0
    if row.figures.kind == "proportion":
        return list_cases(row, profile) or []
    half = 0.5 * 10.0**-MEAN_DECIMALS + SLACK
    around = range(max(0, round((mean - half) * n) - 6), round((mean + half) * n) + 7)
    return [s for s in around if abs(round_count(s, profile) / n - mean) <= half]


def _find_half(value: float, digits: int) -> float:
    """Half of the last of so many significant digits; what is written in more of them is taken at its word."""
    if not value:
        return 0.0
    written = next(d for d in range(digits, 18) if round_digits(value, d) == value or d == 17)
    return float(0.5 * 10.0 ** (math.floor(math.log10(abs(value))) + 1 - written) * (1 + SLACK))
