"""Means that bound a protected share of the same scale.

Of scores from 0 up, no more than sum / t people can have t or more. Where so few do that their number is protected, and
the mean of the cell leaves it less room than the profile asks for, the mean may not be told. Equal weights are assumed,
which tell the most.
"""

from collections.abc import Sequence
from dataclasses import replace

from expectations.outcomes import Outcome
from jobs.disclosure_profiles import Profile, is_small
from jobs.survey import CohortRow

BOUNDING = "withheld: it would bound how few are past a cut"


def mark_bounding(rows: Sequence[CohortRow], outcomes: Sequence[Outcome], profile: Profile) -> list[CohortRow]:
    """The rows, such means marked; those of traits have no zero, and bound nothing."""
    cuts = {outcome.name: outcome for outcome in outcomes if outcome.kind == "proportion"}
    means = {outcome.source: outcome.name for outcome in outcomes if outcome.kind == "mean" and not outcome.latent}
    figures = {row.place: row.figures for row in rows}
    found = set()
    for row in rows:
        cut, n, cases = cuts.get(row.outcome), row.figures.n, row.figures.n_cases
        if cut is None or cut.source not in means or not n or cases is None:
            continue
        least = (cut.cut or 0.0) + (cut.side == "<=")  # the lowest score past the cut; totals are whole numbers
        past = cases if cut.side == ">=" else n - cases
        mean = figures.get((row.breakdown, row.cell, means[cut.source]))
        small = is_small(past, profile.redact_up_to, profile.zero != "shown")
        if small and least > 0 and mean and mean.estimate is not None:
            most = (mean.n or 0) * mean.estimate // least
            if most < profile.least_width:
                found.add((row.breakdown, row.cell, means[cut.source]))
    return [replace(row, telling=BOUNDING) if row.place in found and not row.telling else row for row in rows]
