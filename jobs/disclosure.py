"""Disclosure control: which figures may be published, and how coarsely.

A profile is one row of data. The default, `opensafely`, redacts counts of 1-7 before it rounds the others to the
nearest 5; derived figures come from rounded counts. Complementary suppression keeps a redacted cell from being worked
out of its neighbours and a published total (see `jobs.suppression`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.presentation import Interval, korn_graubard, t_interval
from jobs.sums import Room, find_lines
from jobs.suppression import hide_neighbours
from jobs.survey import CohortRow, Disclosure, Estimate

Zero = Literal["shown", "suppressed", "shown unless a whole group is 0 % or 100 %"]
Rounding = Literal["none", "nearest 5", "midpoint 6"]

# People's traits are estimates of a model about them: their means stay in cohorts_internal.
INTERNAL_SUFFIX = "_mean"

MEAN_DECIMALS = 2
SE_DIGITS = 2
WEIGHTED_DIGITS = 3

# Wide beside the 1 by which a hidden figure must be free to move, and small enough for a programme's tolerances.
UNBOUNDED = 1000.0

TOO_FEW = "withheld: too few people"
TOO_FEW_CASES = "withheld: too few people on one side of the cut"
TOO_FEW_DF = "withheld: too few degrees of freedom"
NEIGHBOUR = "withheld: it would give a neighbouring figure away"


@dataclass(frozen=True)
class Profile:
    """One disclosure rule set. Shares and ratios that no outcome needs yet are data for those that will."""

    name: str
    redact_up_to: int
    zero: Zero
    rounding: Rounding
    proportion_decimals: int = 3
    min_df: int = 0
    dominance_share: float | None = None
    p_ratio: float | None = None


OPENSAFELY = Profile("opensafely", 7, "shown unless a whole group is 0 % or 100 %", "nearest 5")
PROFILES = {
    profile.name: profile
    for profile in (
        OPENSAFELY,
        Profile("midpoint6", 0, "shown", "midpoint 6"),
        Profile("cms", 10, "shown", "none"),
        Profile("nhs_mhsds", 4, "suppressed", "nearest 5", proportion_decimals=2),
        Profile("acro", 9, "suppressed", "none", min_df=10, dominance_share=0.90, p_ratio=0.10),
    )
}


def round_count(count: int, profile: Profile = OPENSAFELY) -> int:
    """A count as the profile publishes it; redaction is not decided here."""
    if profile.rounding == "nearest 5":
        return 5 * math.floor(count / 5 + 0.5)
    if profile.rounding == "midpoint 6":
        return math.ceil(count / 6) * 6 - 3 if count else 0
    return count


def redact_count(count: int, profile: Profile = OPENSAFELY) -> int | None:
    """A lone count (of rows, of files' people) as the profile publishes it; None where it is redacted."""
    return None if _is_small(count, profile.redact_up_to, profile.zero == "suppressed") else round_count(count, profile)


def protect_rows(rows: Sequence[CohortRow], profile: Profile = OPENSAFELY) -> list[CohortRow]:
    """The public rows of one night's internal rows, in their order; rows of traits are left out.

    A count that the profile redacts takes its whole row with it. A proportion goes where its numerator, or the rest,
    is such a count. Then neighbours go until nothing redacted can be worked out. A figure that the presentation rules
    suppress goes too, but it is no secret. What stays is rounded, and its interval is made anew from rounded figures.
    """
    public = [row for row in rows if not row.outcome.endswith(INTERNAL_SUFFIX)]
    protected: dict[int, CohortRow] = {}
    for outcome in dict.fromkeys(row.outcome for row in public):
        places = [i for i, row in enumerate(public) if row.outcome == outcome]
        for i, row in zip(places, _protect_outcome([public[i] for i in places], profile), strict=True):
            protected[i] = row
    return [protected[i] for i in range(len(public))]


def _protect_outcome(rows: Sequence[CohortRow], profile: Profile) -> list[CohortRow]:
    sizes = [row.figures.n or 0 for row in rows]
    lines = find_lines([dict(zip(row.breakdown, row.cell, strict=True)) for row in rows])

    few = {i for i, n in enumerate(sizes) if _is_small(n, profile.redact_up_to, profile.zero == "suppressed")}
    beside_few = hide_neighbours(lines, sizes, few, few, _small_count(sizes, profile), _count_rooms(sizes, profile))

    reasons = {i: reason for i, row in enumerate(rows) if (reason := _redact_figure(row.figures, profile))}
    secret = few | beside_few | set(reasons)
    unreliable = {i for i, row in enumerate(rows) if row.figures.presentation == "suppress" and sizes[i]}
    figure_rooms = [_figure_room(row.figures, profile) for row in rows]
    beside = hide_neighbours(lines, sizes, secret, secret | unreliable, _small_figure(rows, profile), figure_rooms)

    def publish(i: int, row: CohortRow) -> tuple[Disclosure, Estimate]:
        if i in few:
            return "suppressed", _hide_count(row.figures, TOO_FEW)
        if i in beside_few:
            return "complementary", _hide_count(row.figures, NEIGHBOUR)
        rounded = _round_figures(row.figures, profile)
        if i in reasons:
            return "suppressed", _hide_figure(rounded, reasons[i])
        if i in beside:
            return "complementary", _hide_figure(rounded, NEIGHBOUR)
        return "shown", _hide_figure(rounded, rounded.reason) if rounded.presentation == "suppress" else rounded

    published = [publish(i, row) for i, row in enumerate(rows)]
    return [
        replace(row, figures=figures, disclosure=disclosure)
        for row, (disclosure, figures) in zip(rows, published, strict=True)
    ]


def _is_small(count: int, redact_up_to: int, zero_too: bool) -> bool:
    return count <= redact_up_to and (count > 0 or zero_too)


def _redact_figure(figures: Estimate, profile: Profile) -> str | None:
    """Why the estimate of a cell must go though its count may stay. A proportion's whole group is its cell."""
    if not figures.n:
        return None
    if figures.n_cases is not None:
        sides = (figures.n_cases, figures.n - figures.n_cases)
        if any(_is_small(side, profile.redact_up_to, profile.zero != "shown") for side in sides):
            return TOO_FEW_CASES
    if figures.df is not None and figures.df < profile.min_df:
        return TOO_FEW_DF
    return None


def _small_count(sizes: Sequence[int], profile: Profile) -> Callable[[list[int]], bool]:
    """Whether the sum of cells that are hidden together would narrow a redacted count down.

    A redacted count is known to be small and a neighbour's not to be; beyond that, it must stay possible that the
    redacted count is as large as redacted counts can be, and there must be more than one way to reach the sum.
    """
    least, most = _redacted_range(profile)

    def is_small(cells: list[int]) -> bool:
        small = [sizes[i] for i in cells if sizes[i] <= most]
        large = [sizes[i] for i in cells if sizes[i] > most]
        slack = sum(small) - least * len(small) + sum(large) - (most + 1) * len(large)
        return slack < most - least or (not large and sum(small) == most * len(small))

    return is_small


def _count_rooms(sizes: Sequence[int], profile: Profile) -> list[Room]:
    """A redacted count is known to be small and a neighbour's not to be, nor larger than everybody together."""
    least, most = _redacted_range(profile)
    everybody = max(sizes, default=0)
    return [(least - n, most - n) if n <= most else (most + 1 - n, everybody - n) for n in sizes]


def _figure_room(figures: Estimate, profile: Profile) -> Room:
    """Cases are known not to be more than people; a mean may be anything."""
    if figures.n_cases is None:
        return -UNBOUNDED, UNBOUNDED
    return -figures.n_cases, max(figures.n or 0, profile.redact_up_to) - figures.n_cases


def _redacted_range(profile: Profile) -> tuple[int, int]:
    """The least and the most people of a cell that is redacted for having few."""
    return 0 if profile.zero == "suppressed" else 1, profile.redact_up_to


def _small_figure(rows: Sequence[CohortRow], profile: Profile) -> Callable[[list[int]], bool]:
    def is_small(cells: list[int]) -> bool:
        n = sum(rows[i].figures.n or 0 for i in cells)
        if rows[cells[0]].figures.kind == "mean":
            return n <= profile.redact_up_to
        cases = sum(rows[i].figures.n_cases or 0 for i in cells)
        return min(cases, n - cases) <= profile.redact_up_to

    return is_small


def _hide_count(figures: Estimate, reason: str) -> Estimate:
    return replace(_hide_figure(figures, reason), n=None, n_weighted=None, df=None)


def _hide_figure(figures: Estimate, reason: str | None) -> Estimate:
    """Without the estimate and all that is made from it; the presentation's own words could tell what it was."""
    bare = replace(figures, n_cases=None, estimate=None, se=None, ci_low=None, ci_high=None, ci_method=None, deff=None)
    return replace(bare, presentation="suppress", reason=reason)


def _round_figures(figures: Estimate, profile: Profile) -> Estimate:
    """Rounded, from rounded counts; no design effect, which gives the exact count back.

    The weighted count is the rounded count times the mean weight, and a proportion is scaled by what rounding did to
    its numerator and its denominator: with equal weights both are the figures of the rounded counts themselves.
    """
    if not figures.n or figures.n_weighted is None:
        return replace(figures, n_cases=None, deff=None)
    n = round_count(figures.n, profile)
    n_weighted = round_digits(_settle(figures.n_weighted * n / figures.n), WEIGHTED_DIGITS)
    rounded = replace(figures, n=n, n_cases=None, n_weighted=n_weighted, deff=None)
    if figures.estimate is None or figures.se is None or figures.df is None:
        return rounded
    se = round_digits(figures.se, SE_DIGITS)
    if figures.kind == "mean" or figures.n_cases is None:
        mean = round(figures.estimate, MEAN_DECIMALS) + 0.0
        bounds = t_interval(mean, se, figures.df) if figures.df > 0 else None
        return _set_bounds(replace(rounded, estimate=mean, se=se), bounds, MEAN_DECIMALS)
    scale = round_count(figures.n_cases, profile) / figures.n_cases if figures.n_cases else 1.0
    p = round(_settle(min(1.0, figures.estimate * scale * figures.n / n)), profile.proportion_decimals)
    bounds = korn_graubard(p, se, n, figures.df) if figures.df > 0 else None
    return _set_bounds(replace(rounded, estimate=p, se=se), bounds, profile.proportion_decimals)


def _set_bounds(figures: Estimate, bounds: Interval | None, decimals: int) -> Estimate:
    """Bounds made from published figures alone tell nothing more than those do."""
    if bounds is None:
        return replace(figures, ci_low=None, ci_high=None, ci_method=None)
    return replace(figures, ci_low=round(bounds[0], decimals) + 0.0, ci_high=round(bounds[1], decimals) + 0.0)


def _settle(value: float) -> float:
    """Without the last digits, in which the exact counts could still decide how a tie is rounded."""
    return round_digits(value, 12)


def round_digits(value: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits - 1}e}")
