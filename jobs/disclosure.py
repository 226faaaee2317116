"""Disclosure control: which figures may be published, and how coarsely.

A profile is one row of data. The default, `opensafely`, redacts counts of 1-7 before it rounds the others to the
nearest 5; derived figures come from rounded counts. Complementary suppression keeps a redacted cell from being worked
out of its neighbours and a published total (see `jobs.suppression`).
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from jobs.disclosure_profiles import OPENSAFELY, Profile, is_small, redacted_range, round_count, rounding_cell
from jobs.presentation import Interval, judge_mean, judge_proportion, korn_graubard, t_interval
from jobs.sums import Line, Room, find_lines
from jobs.suppression import hide_neighbours
from jobs.survey import CohortRow, Disclosure, Estimate

# Traits have no natural zero, and their sums tell no count.
TRAIT_SUFFIX = "_mean"

MEAN_DECIMALS = 2
SE_DIGITS = 2
WEIGHTED_DIGITS = 3

# Wide beside the 1 by which a hidden figure must be free to move, and small enough for a programme's tolerances.
UNBOUNDED = 1000.0

TOO_FEW = "withheld: too few people"
TOO_FEW_CASES = "withheld: too few people on one side of the cut"
UNIFORM = "withheld: everybody gave the same answers"
TOO_FEW_DF = "withheld: too few degrees of freedom"
NEIGHBOUR = "withheld: it would give a neighbouring figure away"
FEW_MOVED = "withheld: too few people came, left or answered anew since an earlier release"


# Of an outcome's row: who it is of, and what is estimated.
Key = tuple[tuple[str, ...], tuple[str, ...], str, str]


@dataclass(frozen=True)
class Move:
    """What changed in a cell since an earlier release: people who came, left or answered anew, and the net change."""

    people: int
    net: int


@dataclass(frozen=True)
class Release:
    """The public rows of a release; `moves` has, by tonight's rows, what changed between it and tonight."""

    run_date: str
    rows: Sequence[CohortRow]
    moves: Mapping[Key, Move] = field(default_factory=dict)


def carry_emptied(rows: Sequence[CohortRow], profile: Profile, earlier: Sequence[Release]) -> list[CohortRow]:
    """The rows, and one of nobody for each earlier cell that so few people emptied that they can be known."""
    carried = {key_of(row): row for row in rows}
    for release in earlier:
        for row in release.rows:
            move = release.moves.get(key_of(row))
            if move is not None and 0 < move.people <= profile.known_movers:
                figures = replace(hide_figure(row.figures, None), n=0, n_weighted=0.0, df=None)
                carried.setdefault(key_of(row), replace(row, figures=figures, disclosure=None))
    return list(carried.values())


def key_of(row: CohortRow) -> Key:
    return (*row.place, row.figures.kind)


def protect_rows(
    rows: Sequence[CohortRow],
    profile: Profile = OPENSAFELY,
    earlier: Sequence[Release] = (),
    covers: Set[Key] = frozenset(),
) -> list[CohortRow]:
    """The public rows of one night's internal rows, in their order.

    A count that the profile redacts takes its whole row with it. A proportion goes where its numerator, or the rest,
    is such a count. Then neighbours go until nothing redacted can be worked out. A figure that the presentation rules
    suppress goes too, but it is no secret. What stays is rounded, and its interval is made anew from rounded figures.

    Whoever has an `earlier` release learns what changed. A row goes where the people who moved since then are so few
    that somebody may know them all; where nobody did, what was hidden then stays hidden. A cell that was shown then,
    and has changed by people who are known, cannot hide a neighbour. `covers` lose their counts as neighbours do.
    """
    protected: dict[int, CohortRow] = {}
    for outcome in dict.fromkeys(row.outcome for row in rows):
        places = [i for i, row in enumerate(rows) if row.outcome == outcome]
        for i, row in zip(places, _protect_outcome([rows[i] for i in places], profile, earlier, covers), strict=True):
            protected[i] = row
    return [protected[i] for i in range(len(rows))]


def _protect_outcome(
    rows: Sequence[CohortRow], profile: Profile, earlier: Sequence[Release], covers: Set[Key]
) -> list[CohortRow]:
    sizes = [row.figures.n or 0 for row in rows]
    lines = find_lines([dict(zip(row.breakdown, row.cell, strict=True)) for row in rows])
    linked, kept, known = _compare_releases(rows, profile, earlier)

    few = {i for i, n in enumerate(sizes) if is_small(n, profile.redact_up_to, profile.zero == "suppressed")}
    no_count, width = few | set(linked), profile.least_width
    everybody = float(max(sizes, default=0))
    # A cell that few people emptied is withheld, too: it could as well be as large as others.
    emptied = {i for i in linked if not sizes[i]}
    rooms = [(0.0, everybody) if i in emptied else room for i, room in enumerate(_count_rooms(sizes, profile))]
    is_small_sum = _small_count(sizes, profile)
    chosen = {i for i, row in enumerate(rows) if key_of(row) in covers} - no_count
    beside_few = chosen | hide_neighbours(
        lines, sizes, no_count, no_count | chosen, is_small_sum, rooms, width, known - chosen
    )

    reasons = {i: reason for i, row in enumerate(rows) if (reason := _redact_figure(row, profile))}
    secret = no_count | beside_few | set(reasons) | set(kept)
    rounded = [_judge_again(round_figures(row, profile), row) for row in rows]
    unreliable = {i for i, figures in enumerate(rounded) if figures.presentation == "suppress" and sizes[i]}
    beside = cover_figures(rows, profile, secret, secret | unreliable, known - secret - unreliable, lines)

    def publish(i: int, row: CohortRow) -> tuple[Disclosure, Estimate]:
        if i in few:
            return "suppressed", _hide_count(row.figures, TOO_FEW)
        if i in linked:
            return linked[i][0], _hide_count(row.figures, linked[i][1])
        if i in beside_few:
            return "complementary", _hide_count(row.figures, NEIGHBOUR)
        figures = rounded[i]
        if i in reasons:
            return "suppressed", hide_figure(figures, reasons[i])
        if i in kept:
            return kept[i][0], hide_figure(figures, kept[i][1])
        if i in beside:
            return "complementary", hide_figure(figures, NEIGHBOUR)
        return "shown", hide_figure(figures, figures.reason) if figures.presentation == "suppress" else figures

    published = [publish(i, row) for i, row in enumerate(rows)]
    return [
        replace(row, figures=figures, disclosure=disclosure)
        for row, (disclosure, figures) in zip(rows, published, strict=True)
    ]


def cover_figures(
    rows: Sequence[CohortRow],
    profile: Profile,
    secret: set[int],
    hidden: set[int],
    known: Set[int],
    lines: Sequence[Line] | None = None,
) -> set[int]:
    """The further rows of an outcome to hide, so that no secret figure follows; see `hide_neighbours`."""
    if lines is None:
        lines = find_lines([dict(zip(row.breakdown, row.cell, strict=True)) for row in rows])
    sizes, rooms = [row.figures.n or 0 for row in rows], [_figure_room(row.figures, profile) for row in rows]
    small = _small_figure(rows, profile)
    return hide_neighbours(lines, sizes, secret, hidden, small, rooms, profile.least_width, known)


def is_protected(row: CohortRow, profile: Profile) -> bool:
    """Whether a cell has so few people, or so few on one side of its cut, that its figure may not be told."""
    few = is_small(row.figures.n or 0, profile.redact_up_to, profile.zero == "suppressed")
    return few or _redact_figure(row, profile) is not None


Fate = tuple[Disclosure, str]


def _compare_releases(
    rows: Sequence[CohortRow], profile: Profile, earlier: Sequence[Release]
) -> tuple[dict[int, Fate], dict[int, Fate], set[int]]:
    """Rows to hide with their count, rows to hide without it, and rows whose count can be known from before."""
    linked, kept, known = dict[int, Fate](), dict[int, Fate](), set[int]()
    for release in earlier:
        before = {key_of(row): row for row in release.rows}
        for i, row in enumerate(rows):
            then, move = before.get(key_of(row)), release.moves.get(key_of(row))
            if then is None or move is None or move.people > profile.known_movers:
                continue
            if not row.figures.n and not move.people:
                continue
            if move.people:
                linked[i] = "suppressed", FEW_MOVED
            elif then.disclosure in ("suppressed", "complementary"):  # nobody moved: it stays as it was
                hidden = linked if then.figures.n is None else kept
                hidden.setdefault(i, (then.disclosure, then.figures.reason or FEW_MOVED))
            if then.figures.n is not None:
                known.add(i)
    return linked, kept, known


def _redact_figure(row: CohortRow, profile: Profile) -> str | None:
    """Why the estimate of a cell must go though its count may stay. A proportion's whole group is its cell."""
    figures = row.figures
    if not figures.n:
        return None
    # First, so that of cells with as few, this reason tells no more than their public df does.
    if figures.df is not None and figures.df < profile.min_df:
        return TOO_FEW_DF
    if figures.n_cases is not None:
        sides = (figures.n_cases, figures.n - figures.n_cases)
        if any(is_small(side, profile.redact_up_to, profile.zero != "shown") for side in sides):
            return TOO_FEW_CASES
    if figures.kind == "mean" and figures.se == 0 and figures.estimate is not None:
        return UNIFORM
    if row.telling:
        return row.telling
    return None


def _small_count(sizes: Sequence[int], profile: Profile) -> Callable[[list[int]], bool]:
    """Whether the sum of cells that are hidden together would narrow a redacted count down.

    A redacted count is known to be small and a neighbour's not to be; beyond that, it must stay possible that the
    redacted count is as large as redacted counts can be, and there must be more than one way to reach the sum.
    """
    least, most = redacted_range(profile)

    def is_small(cells: list[int]) -> bool:
        small = [sizes[i] for i in cells if sizes[i] <= most]
        large = [sizes[i] for i in cells if sizes[i] > most]
        slack = sum(small) - least * len(small) + sum(large) - (most + 1) * len(large)
        return slack < most - least or (not large and sum(small) == most * len(small))

    return is_small


def _count_rooms(sizes: Sequence[int], profile: Profile) -> list[Room]:
    """A redacted count is known to be small and a neighbour's not to be, nor larger than everybody together."""
    least, most = redacted_range(profile)
    everybody = max(sizes, default=0)
    return [(least - n, most - n) if n <= most else (most + 1 - n, everybody - n) for n in sizes]


def _figure_room(figures: Estimate, profile: Profile) -> Room:
    """Where cases are few on one side, that is known, and that they are not few elsewhere; a mean may be anything."""
    n, cases, most = figures.n or 0, figures.n_cases, profile.redact_up_to
    if cases is None:
        return -UNBOUNDED, UNBOUNDED
    least = 0 if profile.zero != "shown" else 1
    if n <= most:
        return -cases, most - cases
    if least <= cases <= most:
        return least - cases, most - cases
    if least <= n - cases <= most:
        return n - cases - most, n - cases - least
    return min(0, most + 1 - cases), max(0, n - most - 1 - cases)


def _small_figure(rows: Sequence[CohortRow], profile: Profile) -> Callable[[list[int]], bool]:
    def is_small(cells: list[int]) -> bool:
        n = sum(rows[i].figures.n or 0 for i in cells)
        if rows[cells[0]].figures.kind == "mean":
            return n <= profile.redact_up_to
        cases = sum(rows[i].figures.n_cases or 0 for i in cells)
        return min(cases, n - cases) <= profile.redact_up_to

    return is_small


def _hide_count(figures: Estimate, reason: str) -> Estimate:
    return replace(hide_figure(figures, reason), n=None, n_weighted=None, df=None)


def hide_figure(figures: Estimate, reason: str | None) -> Estimate:
    """Without the estimate and all that is made from it; the presentation's own words could tell what it was."""
    bare = replace(figures, n_cases=None, estimate=None, se=None, ci_low=None, ci_high=None, ci_method=None, deff=None)
    return replace(bare, presentation="suppress", reason=reason)


def round_figures(row: CohortRow, profile: Profile) -> Estimate:
    """Rounded, from rounded counts; no design effect, which gives the exact count back.

    With equal weights every figure is one of the rounded counts themselves: the weighted count is theirs times the
    mean weight, a proportion is scaled by what rounding did to its numerator and its denominator, a mean is a rounded
    sum over a rounded count (a trait's sum is no whole number and tells no count), and a standard error is scaled as a
    simple random sample's would be.
    """
    figures = row.figures
    if not figures.n or figures.n_weighted is None:
        return replace(figures, n_cases=None, deff=None)
    if not (n := round_count(figures.n, profile)):
        return replace(figures, n_cases=None, deff=None)  # so few that the row goes anyhow
    n_weighted = round_digits(settle(figures.n_weighted * n / figures.n), WEIGHTED_DIGITS)
    df = None if figures.df is None else limit_df(figures.df, n, profile)
    rounded = replace(figures, n=n, n_cases=None, n_weighted=n_weighted, deff=None, df=df)
    if figures.estimate is None or figures.se is None or df is None:
        return rounded
    se = round_digits(settle(figures.se * scale_error(figures, profile)), SE_DIGITS)
    if figures.kind == "mean" or figures.n_cases is None:
        mean = figures.estimate
        if not row.outcome.endswith(TRAIT_SUFFIX) and profile.rounding != "none":
            mean = round_count(round(abs(mean) * figures.n), profile) / n * (1 if mean >= 0 else -1)
        mean = round(settle(mean), MEAN_DECIMALS) + 0.0
        bounds = t_interval(mean, se, df) if df > 0 else None
        return _set_bounds(replace(rounded, estimate=mean, se=se), bounds, MEAN_DECIMALS)
    p = round(share_of_rounded(figures, profile), profile.proportion_decimals)
    bounds = korn_graubard(p, se, n, df) if df > 0 else None
    return _set_bounds(replace(rounded, estimate=p, se=se), bounds, profile.proportion_decimals)


def share_of_rounded(figures: Estimate, profile: Profile) -> float:
    """A proportion, scaled by what rounding does to its cases and to its people; of some people."""
    assert figures.estimate is not None and figures.n
    scale = round_count(figures.n_cases, profile) / figures.n_cases if figures.n_cases else 1.0
    return settle(min(1.0, figures.estimate * scale * figures.n / round_count(figures.n, profile)))


def scale_error(figures: Estimate, profile: Profile) -> float:
    """What rounding does to the standard error of a simple random sample's mean or proportion, as a factor."""
    assert figures.estimate is not None and figures.n
    factor = math.sqrt(figures.n / round_count(figures.n, profile))
    if figures.n_cases is None:
        return factor
    share, spread = share_of_rounded(figures, profile), figures.estimate * (1 - figures.estimate)
    return factor * (math.sqrt(share * (1 - share) / spread) if spread > 0 and share < 1 else 1.0)


def limit_df(df: int, n: int, profile: Profile) -> int:
    """No more than half of the fewest people that are published as `n`.

    Where nearly everybody is a PSU of their own, PSUs less strata would count the people.
    """
    return min(df, rounding_cell(n, profile)[0] // 2) if profile.rounding != "none" else df


def _judge_again(rounded: Estimate, row: CohortRow) -> Estimate:
    """The presentation of a mean or proportion by its published figures: by exact ones it would tell more than they."""
    n, p, se, df = rounded.n, rounded.estimate, rounded.se, rounded.df
    if not n or p is None or se is None or df is None:
        return rounded
    if rounded.kind == "mean":
        presentation, reason = judge_mean(p, se, n, df, signed=row.outcome.endswith(TRAIT_SUFFIX))
    else:
        presentation, reason = judge_proportion(p, se, n, df)
    return replace(rounded, presentation=presentation, reason=reason)


def _set_bounds(figures: Estimate, bounds: Interval | None, decimals: int) -> Estimate:
    """Bounds made from published figures alone tell nothing more than those do."""
    if bounds is None:
        return replace(figures, ci_low=None, ci_high=None, ci_method=None)
    low, high = round_bounds(bounds, decimals)
    return replace(figures, ci_low=low, ci_high=high)


def round_bounds(bounds: Interval, decimals: int) -> Interval:
    """To so many decimals; both outwards, where an interval would have no width left."""
    low, high = (round(bound, decimals) + 0.0 for bound in bounds)
    if low < high:
        return low, high
    unit = 10.0**decimals
    return math.floor(settle(bounds[0] * unit)) / unit + 0.0, math.ceil(settle(bounds[1] * unit)) / unit + 0.0


def settle(value: float) -> float:
    """Without the last digits, in which the exact counts could still decide how a tie is rounded."""
    return round_digits(value, 12)


def round_digits(value: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits - 1}e}")
