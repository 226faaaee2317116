"""Disclosure control of what follows from means and proportions: standardised ones, totals, ratios, quantiles, changes.

Each has the fate of the rows that it is made of or stands beside, and its public figure is made of their public figures
or scaled by what rounding did to their counts, so that it tells nothing that they do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from expectations.outcomes import Outcome
from jobs.attack import protect_release
from jobs.disclosure import (
    MEAN_DECIMALS,
    NEIGHBOUR,
    SE_DIGITS,
    TOO_FEW,
    WEIGHTED_DIGITS,
    Release,
    hide_figure,
    round_digits,
)
from jobs.disclosure_profiles import OPENSAFELY, Profile, round_count
from jobs.presentation import log_t_interval, t_interval
from jobs.standardised import Groups
from jobs.standardised_disclosure import find_untold, round_standardised
from jobs.survey import CellKey, CohortRow, Estimate

TOO_FEW_BEYOND = "withheld: too few people beyond the quantile"
UNRELIABLE = "the figure that it is made of is too uncertain"
NOT_SHOWN_BEFORE = "the earlier release does not show the figure"

Rows = Mapping[CellKey, CohortRow]


def protect_kinds(
    rows: Sequence[CohortRow],
    outcomes: Sequence[Outcome],
    before: Mapping[CellKey, float],
    profile: Profile = OPENSAFELY,
    earlier: Sequence[Release] = (),
    groups: Groups | None = None,
) -> list[CohortRow]:
    """The public form of every row, in their order, and of the cells that have been emptied since.

    `before` has the means and proportions of the release that changes are told from; `earlier` the releases that means
    and proportions are compared with; `groups` the cells that standardised figures are made of.
    """
    named = {outcome.name: outcome for outcome in outcomes}
    base = [row for row in rows if row.figures.kind in ("mean", "proportion")]
    exact = {row.place: row for row in base}
    shown = {row.place: row for row in protect_release(base, profile, earlier)}
    cells = exact | {row.place: row for row in groups.unpublished} if groups else exact
    untold = find_untold(rows, cells, shown, groups, profile, earlier) if groups else frozenset()
    public = []
    for row in rows:
        key = row.place
        if row.figures.kind in ("mean", "proportion"):
            public.append(shown[key])
        elif row.figures.kind == "total":
            public.append(_follow_total(row, exact[key].figures, shown[key]))
        elif row.figures.kind == "standardised":
            assert groups
            made_of = [cells[one] for one in groups.list_keys(row) if one in cells]
            shares = list(groups.standard.normalised.values())
            public.append(_follow_standardised(row, shown[key], made_of, shares, key in untold, profile))
        elif row.figures.kind == "change":
            public.append(_follow_change(row, shown[key], before.get(key)))
        elif row.figures.kind == "quantile":
            public.append(_follow_quantile(row, shown[(*key[:2], named[row.outcome].source)], named, profile))
        else:
            public.append(_follow_ratio(row, named[row.outcome], exact, shown, profile))
    # Cells that few people have emptied since an earlier release stand there, too.
    return public + [row for key, row in shown.items() if key not in exact]


def _hide_with(row: CohortRow, *beside: CohortRow) -> CohortRow | None:
    """The row hidden as the first of its neighbours is that is; None where all of them show their figure."""
    for other in beside:
        if other.figures.estimate is None:
            reason = other.figures.reason if other.disclosure != "shown" else UNRELIABLE
            bare = hide_figure(row.figures, reason)
            counts = replace(bare, n=other.figures.n, n_weighted=other.figures.n_weighted, df=other.figures.df)
            return replace(row, figures=counts, disclosure=other.disclosure)
    return None


def _show(row: CohortRow, like: Estimate, figures: Estimate) -> CohortRow:
    """`figures` with the public counts of `like`; without the figure where it is too uncertain."""
    figures = replace(figures, n=like.n, n_weighted=like.n_weighted, n_cases=None, deff=None)
    if figures.presentation == "suppress":
        figures = hide_figure(figures, figures.reason)
    return replace(row, figures=figures, disclosure="shown")


def _follow_total(row: CohortRow, exact: Estimate, proportion: CohortRow) -> CohortRow:
    """The public proportion of the public number of people, times what those who gave no answer add to it."""
    if hidden := _hide_with(row, proportion):
        return hidden
    own, beside = row.figures, proportion.figures
    if own.se is None or beside.estimate is None or beside.n_weighted is None:
        return _show(row, beside, replace(own, estimate=None, presentation="suppress"))
    counted = (exact.estimate or 0.0) * (exact.n_weighted or 0.0)
    grown = own.estimate / counted if own.estimate and counted else 1.0
    total = round_digits(beside.estimate * beside.n_weighted * grown, WEIGHTED_DIGITS)
    se = round_digits(own.se, SE_DIGITS)
    low, high = log_t_interval(total, se, own.df) if total > 0 and own.df and own.df > 0 else (None, None)
    limits = [None if limit is None else round_digits(limit, WEIGHTED_DIGITS) for limit in (low, high)]
    return _show(row, beside, replace(own, estimate=total, se=se, ci_low=limits[0], ci_high=limits[1]))


def _follow_standardised(
    row: CohortRow,
    base: CohortRow,
    made_of: Sequence[CohortRow],
    shares: Sequence[float],
    untold: bool,
    profile: Profile,
) -> CohortRow:
    """The public figures of its groups, put together; withheld where one of them may not be told."""
    if hidden := _hide_with(row, base):
        return hidden
    own, beside = row.figures, base.figures
    if untold:
        bare = replace(hide_figure(own, NEIGHBOUR), n=beside.n, n_weighted=beside.n_weighted, df=beside.df)
        return replace(row, figures=bare, disclosure="complementary")
    if own.estimate is None or own.se is None:
        return _show(row, beside, replace(own, presentation="suppress", df=beside.df))
    return _show(row, beside, round_standardised(own, beside, made_of, shares, profile))


def _follow_change(row: CohortRow, now: CohortRow, before: float | None) -> CohortRow:
    """The difference of the two public figures."""
    if hidden := _hide_with(row, now):
        return hidden
    own, beside = row.figures, now.figures
    if before is None or own.se is None or beside.estimate is None:
        reason = own.reason if before is not None else NOT_SHOWN_BEFORE
        return _show(row, beside, replace(own, presentation="suppress", reason=reason))
    decimals = MEAN_DECIMALS if beside.kind == "mean" else 3
    change, se = round(beside.estimate - before, decimals) + 0.0, round_digits(own.se, SE_DIGITS)
    low, high = t_interval(change, se, own.df) if own.df and own.df > 0 else (None, None)
    limits = [None if limit is None else round(limit, decimals) + 0.0 for limit in (low, high)]
    return _show(row, beside, replace(own, estimate=change, se=se, ci_low=limits[0], ci_high=limits[1]))


def _follow_quantile(row: CohortRow, mean: CohortRow, named: Mapping[str, Outcome], profile: Profile) -> CohortRow:
    """Shown where its scale's mean is and enough people lie on both sides of it."""
    if hidden := _hide_with(row, mean):
        return hidden
    own, level = row.figures, named[row.outcome].level or 0.0
    if (own.n or 0) * min(level, 1 - level) <= profile.redact_up_to:
        bare = hide_figure(replace(own, n=mean.figures.n, n_weighted=mean.figures.n_weighted), TOO_FEW_BEYOND)
        return replace(row, figures=bare, disclosure="suppressed")
    values = [own.estimate, own.ci_low, own.ci_high]
    rounded = [None if value is None else round(value, MEAN_DECIMALS) + 0.0 for value in values]
    se = None if own.se is None else round_digits(own.se, SE_DIGITS)
    return _show(row, mean.figures, replace(own, estimate=rounded[0], se=se, ci_low=rounded[1], ci_high=rounded[2]))


def _follow_ratio(row: CohortRow, outcome: Outcome, exact: Rows, shown: Rows, profile: Profile) -> CohortRow:
    """Scaled by what rounding did to the people of its numerator and of its denominator."""
    assert outcome.over
    parts = [(row.breakdown, row.cell, name) for name in outcome.part_names()]
    if hidden := _hide_with(row, *(shown[part] for part in parts)):
        return hidden
    own = row.figures
    if not own.n or own.n <= profile.redact_up_to:
        bare = replace(hide_figure(own, TOO_FEW), n=None, n_weighted=None, df=None)
        return replace(row, figures=bare, disclosure="suppressed")
    n = round_count(own.n, profile)
    weight = round_digits((own.n_weighted or 0.0) * n / own.n, WEIGHTED_DIGITS)
    public = replace(own, n=n, n_weighted=weight)
    if own.estimate is None or own.se is None:
        return _show(row, public, replace(own, presentation="suppress"))
    scales = []
    for part in parts:
        cases = exact[part].figures.n_cases
        scales.append(round_count(cases, profile) / cases if cases else 1.0)
    ratio = round_digits(own.estimate * scales[0] / scales[1], WEIGHTED_DIGITS)
    se = round_digits(own.se, SE_DIGITS)
    low, high = t_interval(ratio, se, own.df) if own.df and own.df > 0 else (None, None)
    limits = [None if limit is None else round_digits(limit, WEIGHTED_DIGITS) for limit in (low, high)]
    return _show(row, public, replace(own, estimate=ratio, se=se, ci_low=limits[0], ci_high=limits[1]))
