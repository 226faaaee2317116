"""Means that bound a protected share of the same scale.

Of scores from a floor up to a ceiling, no more people can be above a cut than the sum of all scores has room for, and
no more below it than their distance from the ceiling has. Where a share is withheld, and the mean of its cell would
leave the people on a side of the cut less room than the profile asks for, the mean may not be told. Equal weights and
whole scores are assumed, which tell the most.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from expectations.outcomes import Outcome
from jobs.disclosure_profiles import Profile, protected_range
from jobs.survey import CellKey, CohortRow, Estimate

BOUNDING = "withheld: it would bound how few are past a cut"

Bounds = tuple[float, float]


def bound_cases(outcome: Outcome, people: float, total: Bounds) -> Bounds:
    """The fewest and the most cases of a proportion among so many people, whose scores add up to so much."""
    (floor, ceiling), cut = outcome.span, outcome.cut or 0.0
    below, above = (cut - 1, cut) if outcome.side == ">=" else (cut, cut + 1)
    high = low = people
    if above > floor:
        high = min(high, math.floor((total[1] - people * floor) / (above - floor) + 1e-9))
    if math.isfinite(ceiling) and ceiling > below:
        low = min(low, math.floor((people * ceiling - total[0]) / (ceiling - below) + 1e-9))
    most, fewest = (high, people - low) if outcome.side == ">=" else (low, people - high)
    return max(0.0, fewest), max(0.0, most)


def find_bounding(
    rows: Sequence[CohortRow], shown: Sequence[CohortRow], outcomes: Sequence[Outcome], profile: Profile
) -> set[CellKey]:
    """The means of `shown` that bound a share that is withheld; `rows` are the exact ones. Traits bound nothing."""
    cuts = {outcome.name: outcome for outcome in outcomes if outcome.kind == "proportion"}
    means = {outcome.source: outcome.name for outcome in outcomes if outcome.kind == "mean" and not outcome.latent}
    exact = {row.place: row.figures for row in rows}
    told = {row.place for row in shown if row.figures.kind == "mean" and row.figures.estimate is not None}
    withheld = _list_protected(shown, exact, profile)
    found = set()
    for place in withheld:
        cut, figures = cuts.get(place[2]), exact[place]
        key = (*place[:2], means.get(cut.source, "") if cut else "")
        if not cut or key not in told or not figures.n:
            continue
        mean, n = exact[key].estimate or 0.0, float(figures.n)
        if _is_narrow(figures.n_cases or 0, n, bound_cases(cut, n, (mean * n, mean * n)), profile):
            found.add(key)
    return found


def _list_protected(shown: Sequence[CohortRow], exact: Mapping[CellKey, Estimate], profile: Profile) -> list[CellKey]:
    """The shares that are withheld; those whose cases are rounded to the first midpoint are protected, too."""
    shares = [row for row in shown if row.figures.kind == "proportion" and row.place in exact]
    return [row.place for row in shares if row.disclosure != "shown" or profile.rounding == "midpoint 6"]


def _is_narrow(cases: int, n: float, bounds: Bounds, profile: Profile) -> bool:
    """Whether bounds of a withheld number of cases are tighter than its label, and tighter than they may be."""
    least, most = protected_range(profile)
    least = 0 if profile.zero != "shown" else max(1, least)
    fewest, largest = bounds
    for side, low, high in ((cases, fewest, largest), (n - cases, n - largest, n - fewest)):
        if least <= side <= most:
            return min(most, high) - max(least, low) < min(profile.least_width, most - least)
    if not profile.redact_up_to:
        return False  # of a midpoint profile, nothing else is withheld
    # It hides a neighbour: it must be free to move by as much as that one must.
    return (largest < n - most - 1 and largest - cases < profile.least_width) or (
        fewest > most + 1 and cases - fewest < profile.least_width
    )


def mark_bounding(rows: Sequence[CohortRow], bounding: Set[CellKey]) -> list[CohortRow]:
    """The rows, such means marked."""
    return [replace(row, telling=BOUNDING) if row.place in bounding and not row.telling else row for row in rows]
