"""Disclosure control of standardised figures: whose groups may not be told, and what the others become.

An outsider has the crude figure, the published cells, and the standardised figure, which weights the same groups anew:
with two groups that is all it takes to work both out, and with more, once the others are shown. So a standardised
figure counts as if it showed each of its groups. It goes where one of them is withheld in its own row or, where no
breakdown has it, is protected by its own counts; and where one would give a protected figure away by the sums that hold
among all cells. What is left is made of the figures that its groups publish, or would: it tells nothing that they do
not.
"""

import math
from collections.abc import Mapping, Sequence

from jobs.disclosure import (
    MEAN_DECIMALS,
    SE_DIGITS,
    Key,
    Move,
    Release,
    cover_figures,
    is_protected,
    key_of,
    round_bounds,
    round_digits,
    round_figures,
    settle,
)
from jobs.disclosure_profiles import Profile
from jobs.kinds import NO_DF
from jobs.presentation import judge_mean, judge_proportion, korn_graubard, standardised_effective_n, t_interval
from jobs.standardised import Groups
from jobs.survey import CellKey, CohortRow, Estimate

HIDDEN = ("suppressed", "complementary")


def find_untold(
    rows: Sequence[CohortRow],
    cells: Mapping[CellKey, CohortRow],
    shown: Mapping[CellKey, CohortRow],
    groups: Groups,
    profile: Profile,
    earlier: Sequence[Release],
) -> set[CellKey]:
    """The standardised rows that must not be shown.

    `cells` has the exact means and proportions, unpublished ones of `groups` too, `shown` the public ones.
    """
    hidden = set[CellKey]()
    for outcome in {row.outcome for row in rows if row.figures.kind == "standardised"}:
        hidden |= _find_hidden(outcome, cells, shown, profile)
    untold, before = set[CellKey](), [{key_of(row): row for row in release.rows} for release in earlier]
    for row in (row for row in rows if row.figures.kind == "standardised"):
        own = row.place
        keys = groups.list_keys(row)
        # A group of nobody has no row; where that is protected, it is as a row of nobody would be.
        empty = profile.zero == "suppressed" and any(key not in cells for key in keys)
        moved = [
            (then.get(key_of(row)), [release.moves.get(_name_base(key, cells)) for key in (own, *keys)])
            for release, then in zip(earlier, before, strict=True)
        ]
        if empty or hidden.intersection(keys) or any(_tells_moves(then, moves, profile) for then, moves in moved):
            untold.add(own)
    return untold


def _find_hidden(
    outcome: str, cells: Mapping[CellKey, CohortRow], shown: Mapping[CellKey, CohortRow], profile: Profile
) -> set[CellKey]:
    """The cells whose figure may not follow from a standardised one."""
    keys = [key for key in cells if key[2] == outcome]
    rows = [cells[key] for key in keys]
    secret = {
        i
        for i, (key, row) in enumerate(zip(keys, rows, strict=True))
        if (shown[key].disclosure in HIDDEN if key in shown else is_protected(row, profile))
    }
    # What is too uncertain to be shown, and what no breakdown has, can still hide a secret: not beside its own figure.
    known = {i for i, key in enumerate(keys) if key in shown and shown[key].figures.estimate is not None} - secret
    beside = cover_figures(rows, profile, secret, secret, known)
    emptied = {key for key, row in shown.items() if key not in cells and row.disclosure in HIDDEN}
    return {keys[i] for i in secret | beside} | emptied


def _tells_moves(then: CohortRow | None, moves: Sequence[Move | None], profile: Profile) -> bool:
    """Whether a row, beside its own of an earlier release, tells of few people who moved, or shows what was hidden.

    `moves` are of its cell and of its groups.
    """
    people = [move.people for move in moves if move]
    if then is None or not people:
        return False
    if then.figures.estimate is not None:
        return any(0 < moved <= profile.known_movers for moved in people)
    return then.disclosure in HIDDEN and not any(people)


def _name_base(key: CellKey, cells: Mapping[CellKey, CohortRow]) -> Key:
    """The key of a cell's own mean or proportion; a cell of nobody has none, and no moves."""
    return (*key, cells[key].figures.kind if key in cells else "")


def round_standardised(
    own: Estimate, beside: Estimate, made_of: Sequence[CohortRow], shares: Sequence[float], profile: Profile
) -> Estimate:
    """The groups' rounded figures put together; `beside` is the cell's own public figure, `made_of` its exact groups.

    The standard error is scaled as that of a simple random sample, standardised too, would be.
    """
    assert own.se is not None and own.df is not None and beside.n is not None and beside.df is not None
    proportion = beside.kind == "proportion"
    exact, rounded = [row.figures for row in made_of], [round_figures(row, profile) for row in made_of]
    p = [figures.estimate for figures in rounded]
    n = [figures.n or 0 for figures in rounded]
    if any(one is None for one in p):
        return Estimate(**{**vars(own), "presentation": "suppress", "reason": NO_DF})
    decimals = profile.proportion_decimals if proportion else MEAN_DECIMALS
    told = [one or 0.0 for one in p]
    estimate = round(settle(math.fsum(s * one for s, one in zip(shares, told, strict=True))), decimals) + 0.0

    def spread(figures: Sequence[Estimate]) -> float:
        each = [(f.estimate or 0.0) * (1 - (f.estimate or 0.0)) if proportion else 1.0 for f in figures]
        return math.fsum(s * s * one / (f.n or 1) for s, one, f in zip(shares, each, figures, strict=True))

    before = spread(exact)
    se = round_digits(settle(own.se * (math.sqrt(spread(rounded) / before) if before > 0 else 1.0)), SE_DIGITS)
    df, people = min(own.df, beside.df), beside.n
    if proportion:
        n_eff = standardised_effective_n(shares, told, n, se)
        bounds = korn_graubard(estimate, se, people, df, n_eff) if df > 0 else None
        presentation, reason = judge_proportion(estimate, se, people, df, n_eff)
    else:
        bounds = t_interval(estimate, se, df) if df > 0 else None
        presentation, reason = judge_mean(estimate, se, people, df)
    low, high = round_bounds(bounds, decimals) if bounds else (None, None)
    figures = {"estimate": estimate, "se": se, "df": df, "ci_low": low, "ci_high": high}
    return Estimate(**{**vars(own), **figures, "presentation": presentation, "reason": reason})
