"""The public figures of what follows from means and proportions: standardised ones, totals, ratios, quantiles, changes.

Each has the fate of the rows that it is made of or stands beside, and is made of their public figures or scaled by what
rounding did to their counts, so that it tells nothing that they do not; it is judged as it is published.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from expectations.outcomes import Outcome
from jobs.disclosure import (
    MEAN_DECIMALS,
    NEIGHBOUR,
    SE_DIGITS,
    TOO_FEW,
    WEIGHTED_DIGITS,
    hide_figure,
    limit_df,
    round_bounds,
    round_digits,
    scale_error,
    settle,
)
from jobs.disclosure_profiles import Profile, hides_everybody, protected_range, round_count
from jobs.kinds import judge_change
from jobs.presentation import (
    Interval,
    judge_count,
    judge_mean,
    judge_quantile,
    log_t_interval,
    t_interval,
    t_quantile,
)
from jobs.standardised_disclosure import round_standardised
from jobs.survey import CellKey, CohortRow, Estimate

TOO_FEW_BEYOND = "withheld: too few people beyond the quantile"
SHARE_WITHHELD = "withheld: it would bound a withheld share of the same scale"
UNRELIABLE = "the figure that it is made of is too uncertain"
NOT_SHOWN_BEFORE = "the earlier release does not show the figure"

Rows = Mapping[CellKey, CohortRow]


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


def hide_people(figures: Estimate, profile: Profile) -> Estimate:
    """Without the counts of people, in a profile that withholds those of people who gave no answer, or not this one."""
    return replace(figures, n=None, n_weighted=None) if hides_everybody(profile) else figures


def follow_total(row: CohortRow, exact: Estimate, proportion: CohortRow, people: int, profile: Profile) -> CohortRow:
    """The rounded cases of the rounded people, by weight, times what those who gave no answer add to them.

    `people` are all of the outcome's. The standard error is scaled as that of a simple random sample would be.
    """
    if hidden := _hide_with(row, proportion):
        return hidden
    own, beside = row.figures, proportion.figures
    if own.estimate is None or own.se is None or not exact.estimate or not exact.n or not exact.n_cases:
        return _show(row, beside, replace(own, estimate=None, presentation="suppress"))
    cases = round_count(exact.n_cases, profile)
    total = round_digits(settle(own.estimate * cases / exact.n_cases), WEIGHTED_DIGITS)
    spread = [k * max(0.0, 1 - k / max(people, 1)) for k in (exact.n_cases, min(cases, people))]
    scale = math.sqrt(spread[1] / spread[0]) if min(spread) > 0 else cases / exact.n_cases
    se, df = round_digits(settle(own.se * scale), SE_DIGITS), limit_df(own.df or 0, beside.n or 0, profile)
    presentation, reason = judge_count(total, se, cases, df)
    low, high = round_significant(log_t_interval(total, se, df)) if df > 0 else (None, None)
    figures = replace(own, estimate=total, se=se, df=df, ci_low=low, ci_high=high)
    return _show(row, beside, replace(figures, presentation=presentation, reason=reason))


def round_significant(bounds: Interval) -> Interval:
    """Each to three digits; outwards, where an interval would have no width left."""
    low, high = (round_digits(bound, WEIGHTED_DIGITS) for bound in bounds)
    if low < high or not low:
        return low, high
    return round_bounds(bounds, WEIGHTED_DIGITS - 1 - math.floor(math.log10(abs(low))))


def follow_standardised(
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


def follow_change(row: CohortRow, exact: Estimate, now: CohortRow, before: float | None, profile: Profile) -> CohortRow:
    """The difference of the two public figures; the standard error is scaled as tonight's figure's is."""
    if hidden := _hide_with(row, now):
        return hidden
    own, beside = row.figures, now.figures
    if before is None or own.se is None or beside.estimate is None:
        reason = own.reason if before is not None else NOT_SHOWN_BEFORE
        return _show(row, beside, replace(own, presentation="suppress", reason=reason, df=beside.df))
    decimals = MEAN_DECIMALS if beside.kind == "mean" else profile.proportion_decimals
    change = round(beside.estimate - before, decimals) + 0.0
    se = round_digits(settle(own.se * scale_error(exact, profile)), SE_DIGITS)
    df = limit_df(own.df or 0, beside.n or 0, profile)
    low, high = round_bounds(t_interval(change, se, df), decimals) if df > 0 and se > 0 else (None, None)
    figures = replace(own, estimate=change, se=se, df=df, ci_low=low, ci_high=high)
    presentation, reason = judge_change(df) if se > 0 else (own.presentation, own.reason)
    return _show(row, beside, replace(figures, presentation=presentation, reason=reason))


def follow_quantile(
    row: CohortRow, level: float, mean: CohortRow, shares: Sequence[CohortRow], profile: Profile
) -> CohortRow:
    """Shown where its scale's mean and all of its `shares` are, and enough people lie beyond it and its interval."""
    if hidden := _hide_with(row, mean):
        return hidden
    own, beside = row.figures, mean.figures
    df = limit_df(own.df or 0, beside.n or 0, profile)
    withheld = [share for share in shares if share.disclosure != "shown"]
    few = count_beyond(level, beside.n or 0, df) <= protected_range(profile)[1]
    if withheld or few:
        public = replace(own, n=beside.n, n_weighted=beside.n_weighted, df=beside.df)
        bare = hide_figure(public, TOO_FEW_BEYOND if few else SHARE_WITHHELD)
        return replace(row, figures=bare, disclosure="suppressed" if few else "complementary")
    bounded = own.ci_low is not None and own.ci_high is not None
    presentation, reason = judge_quantile(bounded, beside.n or 0, df)
    values = [own.estimate, own.ci_low, own.ci_high]
    rounded = [None if value is None else round(value, MEAN_DECIMALS) + 0.0 for value in values]
    estimate, low, high = rounded
    width = None if low is None or high is None or df <= 0 else (high - low) / (2 * t_quantile(df))
    se = None if width is None else round_digits(settle(width), SE_DIGITS)
    figures = replace(own, estimate=estimate, se=se, df=df, ci_low=low, ci_high=high)
    return _show(row, beside, replace(figures, presentation=presentation, reason=reason))


def count_beyond(level: float, n: int, df: int) -> float:
    """How many of n people lie beyond the farther bound of a quantile's interval, were they drawn alone."""
    half = t_quantile(df) * math.sqrt(level * (1 - level) / n) if n and df > 0 else 0.0
    return n * (min(level, 1 - level) - half)


def follow_ratio(row: CohortRow, outcome: Outcome, exact: Rows, shown: Rows, profile: Profile) -> CohortRow:
    """Scaled by what rounding did to the people of its numerator and of its denominator."""
    assert outcome.over
    parts = [(row.breakdown, row.cell, name) for name in outcome.part_names()]
    two_answers = outcome.source != outcome.over.source
    if hidden := _hide_with(row, *(shown[part] for part in parts)):
        return replace(hidden, figures=hide_people(hidden.figures, profile)) if two_answers else hidden
    own = row.figures
    if not own.n or own.n <= profile.redact_up_to:
        bare = replace(hide_figure(own, TOO_FEW), n=None, n_weighted=None, df=None)
        return replace(row, figures=bare, disclosure="suppressed")
    n = round_count(own.n, profile)
    weight, df = round_digits((own.n_weighted or 0.0) * n / own.n, WEIGHTED_DIGITS), limit_df(own.df or 0, n, profile)
    public = replace(own, n=n, n_weighted=weight, df=df)
    if two_answers:
        public = hide_people(public, profile)  # how many gave both answers tells how few gave one alone
    if own.estimate is None or own.se is None:
        return _show(row, public, replace(own, presentation="suppress", df=df))
    scale = _scale_sum(exact[parts[0]].figures, profile) / _scale_sum(exact[parts[1]].figures, profile)
    ratio = round_digits(settle(own.estimate * scale), WEIGHTED_DIGITS)
    se = round_digits(settle(own.se * scale * math.sqrt(own.n / n)), SE_DIGITS)
    low, high = round_significant(t_interval(ratio, se, df)) if df > 0 and se > 0 else (None, None)
    presentation, reason = judge_mean(ratio, se, n, df) if se > 0 else (own.presentation, own.reason)
    figures = replace(own, estimate=ratio, se=se, df=df, ci_low=low, ci_high=high)
    return _show(row, public, replace(figures, presentation=presentation, reason=reason))


def _scale_sum(figures: Estimate, profile: Profile) -> float:
    """What rounding does to the cases of a proportion, or to the sum of a mean's scores, as a factor."""
    whole = figures.n_cases if figures.n_cases is not None else round((figures.estimate or 0.0) * (figures.n or 0))
    return (round_count(whole, profile) / whole if whole > 0 else 1.0) or 1.0
