"""An outsider with the public tables, who knows the rules: which protected counts can be worked out, and how.

Integer programmes (HiGHS) give the bounds of every protected count from rounding cells, labels, sums and earlier
releases; the algebra of a survey's figures gives exact counts back from those that were not made of rounded counts.
The outsider may know, for up to `Profile.known_movers` people of a cell, that they came or left. What follows from
means and proportions is attacked by `jobs.followers_attack` and `jobs.standardised_attack`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from expectations.outcomes import Outcome
from jobs.algebra import find_algebraic, is_self_weighted, list_cases
from jobs.bounding import Bounds as CaseBounds
from jobs.disclosure import (
    FEW_MOVED,
    TOO_FEW,
    TOO_FEW_CASES,
    Key,
    Release,
    carry_emptied,
    key_of,
    protect_rows,
)
from jobs.disclosure_profiles import Profile, redacted_range, rounding_cell
from jobs.followers_attack import bound_shares, find_told
from jobs.standardised_attack import find_regrouped
from jobs.sums import find_lines
from jobs.survey import CellKey, CohortRow

SECONDS = 5.0  # for a programme; what is not settled by then counts as exposed
SMALL = 1e-6
SUMMED = ("mean", "proportion", "total")  # figures of cells that follow from those of finer ones

NARROW = "its count lies within bounds narrower than the profile allows"
NARROW_CASES = "the people on one side of its cut lie within bounds narrower than the profile allows"
UNSETTLED = "whether its bounds are wide enough was not settled in time"
FOLLOWS = "its estimate follows from others by sums"
FEW_CHANGED = "it is shown although so few people moved since an earlier release that somebody may know them all"
SHOWN_AGAIN = "it is shown although it was hidden in an earlier release and nobody has moved since"
CONTRADICTION = "no counts fit the table: its figures contradict its labels"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Exposure:
    """A cell that the tables give away; never what they give away of it."""

    run_date: str
    breakdown: tuple[str, ...]
    cell: tuple[str, ...]
    outcome: str
    how: str

    def __str__(self) -> str:
        levels = ", ".join(f"{name} {level}" for name, level in zip(self.breakdown, self.cell, strict=True))
        return f"{self.run_date} {self.outcome}, {levels or 'everybody'}: {self.how}"


def find_exposed(
    tonight: Release, earlier: Sequence[Release], profile: Profile, outcomes: Sequence[Outcome] = ()
) -> list[Exposure]:
    """What the tables expose, in a fixed order; empty where the profile is kept.

    `outcomes` say what the names of quantiles, ratios and cuts mean.
    """
    found = []
    settled: dict[tuple[object, ...], list[tuple[str, CohortRow, str]]] = {}
    bounds = bound_shares(tonight.rows, outcomes, profile)
    for outcome, kind in dict.fromkeys((row.outcome, row.figures.kind) for row in tonight.rows):
        if kind not in SUMMED:
            continue
        tables = [_choose(table, outcome, kind) for table in (tonight, *earlier)]
        # Outcomes that the same people answered have the same counts: their bounds are looked for once.
        seen = tuple(tuple((r.breakdown, r.cell, r.figures.n, r.figures.reason) for r in t.rows) for t in tables)
        moves = tuple(tuple((k[:2], m) for k, m in t.moves.items()) for t in tables)
        if (seen, moves) not in settled:
            settled[seen, moves] = list(_find_narrow_counts(tables, profile))
        found += [(date, row, outcome, how) for date, row, how in settled[seen, moves]]
        own = [*_find_narrow_cases(tables[0].rows, profile, bounds), *_find_following(tables[0].rows)]
        own += [*_find_moved(tables, profile), *find_algebraic(tables[0].rows, profile)]
        found += [(tonight.run_date, row, outcome, how) for row, how in own]
    found += [(tonight.run_date, row, row.outcome, FOLLOWS) for row in find_regrouped(tonight.rows)]
    found += [(tonight.run_date, row, row.outcome, how) for row, how in find_told(tonight, earlier, outcomes, profile)]
    return [Exposure(date, row.breakdown, row.cell, outcome, how) for date, row, outcome, how in dict.fromkeys(found)]


def protect_release(rows: Sequence[CohortRow], profile: Profile, earlier: Sequence[Release] = ()) -> list[CohortRow]:
    """`protect_rows`, and then whatever else keeps the attack on all releases together from narrowing a count down."""
    covers, rows = set[Key](), carry_emptied(rows, profile, earlier)
    while True:
        public = protect_rows(rows, profile, earlier, covers)
        if not earlier:
            return public
        exposed = [one for one in find_exposed(Release("", public), earlier, profile) if one.how in (NARROW, UNSETTLED)]
        found = {cover for one in exposed for cover in _find_covers(one, public, earlier, profile)} - covers
        if not found:
            return public
        covers |= found


def _find_covers(
    exposed: Exposure, public: Sequence[CohortRow], earlier: Sequence[Release], profile: Profile
) -> list[Key]:
    """The shown count to hide next: of the same breakdown, with the most levels in common, the smallest."""
    known = set[Key]()
    for release in earlier:
        told = {key_of(row) for row in release.rows if row.figures.n is not None}
        known |= {key for key, move in release.moves.items() if move.people <= profile.known_movers and key in told}
    levels = set(zip(exposed.breakdown, exposed.cell, strict=True))
    beside = [
        (
            row.breakdown != exposed.breakdown,
            -len(levels & set(zip(row.breakdown, row.cell, strict=True))),
            row.figures.n,
            key_of(row),
        )
        for row in public
        if row.outcome == exposed.outcome and row.figures.n and key_of(row) not in known
    ]
    return [key for *_, key in sorted(beside)[:1]]


def _choose(table: Release, outcome: str, kind: str) -> Release:
    rows = [row for row in table.rows if (row.outcome, row.figures.kind) == (outcome, kind)]
    return Release(table.run_date, rows, {key: move for key, move in table.moves.items() if key[2:] == (outcome, kind)})


class System:
    """Whole numbers that have bounds and add up; what is asked is how small and how large some of them can be."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.equations: list[tuple[dict[int, float], float, float]] = []
        self.sums: list[int] = []

    def add(self, low: float, high: float) -> int:
        self.low.append(low)
        self.high.append(high)
        return len(self.low) - 1

    def require(self, terms: Mapping[int, float], low: float, high: float) -> None:
        self.equations.append((dict(terms), low, high))

    def add_table(self, bounds: Sequence[tuple[float, float]], rows: Sequence[CohortRow]) -> list[int]:
        """Variables of a table's rows, with the sums that hold among them."""
        places = [self.add(low, high) for low, high in bounds]
        hidden: dict[int, int] = {}
        for line in find_lines([dict(zip(row.breakdown, row.cell, strict=True)) for row in rows]):
            inside = line.total < len(rows)
            total = places[line.total] if inside else hidden.get(line.total)
            if total is None:
                total = hidden[line.total] = self.add(0, np.inf)
            self.sums.append(len(self.equations))
            self.require({total: -1.0, **{places[i]: 1.0 for i in line.parts}}, 0, 0)
        return places

    def spread(self, targets: Sequence[int], width: float) -> dict[int, float | None]:
        """How far apart each target's bounds are, as far as `width`; None where that was not settled in time.

        Every solution is a table of all variables: a target that has been wide enough needs no programme of its own.
        An empty dict: no table fits.
        """
        widths = self._spread(targets, width) if targets else {}
        if targets and not widths:
            # Parts may lack people whose level of a cohort is not known: their sum is the total at most.
            for i in self.sums:
                self.equations[i] = (self.equations[i][0], -np.inf, 0)
            widths = self._spread(targets, width)
        return widths

    def _spread(self, targets: Sequence[int], width: float) -> dict[int, float | None]:
        least, most = np.full(len(self.low), np.inf), np.full(len(self.low), -np.inf)
        unsettled = set[int]()

        def ask(goal: Floats) -> bool:
            values, proven = self._solve(goal)
            if values is None:
                return proven
            np.minimum(least, values, out=least)
            np.maximum(most, values, out=most)
            return proven

        together = np.isin(np.arange(len(self.low)), list(targets)).astype(np.float64)
        for sign in (1, -1):
            ask(sign * together)
        if not np.isfinite(least).any():
            return {}
        for place in targets:
            for sign in (1, -1):
                if most[place] - least[place] < width - SMALL:
                    alone = np.zeros(len(self.low))
                    alone[place] = sign
                    if not ask(alone):
                        unsettled.add(place)
        wide = {place: float(most[place] - least[place]) for place in targets}
        return {place: None if got < width - SMALL and place in unsettled else got for place, got in wide.items()}

    def _solve(self, goal: Floats) -> tuple[Floats | None, bool]:
        rows = [i for i, (terms, _, _) in enumerate(self.equations) for _ in terms]
        columns = [j for terms, _, _ in self.equations for j in terms]
        values = [v for terms, _, _ in self.equations for v in terms.values()]
        matrix = csr_array((values, (rows, columns)), shape=(len(self.equations), len(self.low)))
        limits = [LinearConstraint(matrix, [e[1] for e in self.equations], [e[2] for e in self.equations])]
        found = milp(
            goal,
            integrality=np.ones(len(self.low)),
            bounds=Bounds(np.array(self.low), np.array(self.high)),
            constraints=limits if self.equations else [],
            options={"time_limit": SECONDS},
        )
        return (None if found.x is None else np.round(found.x)), found.status != 1


def _bound_count(row: CohortRow, profile: Profile, everybody: float) -> tuple[float, float]:
    n, (least, most) = row.figures.n, redacted_range(profile)
    if n is not None:
        return rounding_cell(n, profile)
    if row.figures.reason == FEW_MOVED:
        return 0, everybody
    return (least, most) if row.figures.reason == TOO_FEW else (most + 1, everybody)


def _count_everybody(rows: Sequence[CohortRow], profile: Profile) -> float:
    return max([1000.0, *(2.0 * (row.figures.n or 0) for row in rows)]) + profile.redact_up_to


def _find_narrow_counts(tables: Sequence[Release], profile: Profile) -> Iterator[tuple[str, CohortRow, str]]:
    """The protected counts of all releases, their rows as one system joined by the changes that are known.

    What labels and the outsider's own knowledge tell without any sum is no fault of the table.
    """
    system, targets = _join_tables(tables, profile, with_sums=True)
    widths = system.spread(list(targets), profile.least_width)
    if targets and not widths:
        yield from ((date, row, CONTRADICTION) for date, row in list(targets.values())[:1])
    narrow = [place for place, width in widths.items() if width is None or width < profile.least_width]
    if narrow:
        bare, same = _join_tables(tables, profile, with_sums=False)
        place_of = {(date, key_of(row)): place for place, (date, row) in same.items()}
        beforehand = bare.spread(list(same), profile.least_width)
        for place in narrow:
            date, row = targets[place]
            width, allowed = widths[place], beforehand.get(place_of[date, key_of(row)])
            if width is None or allowed is None or width < allowed:
                yield date, row, UNSETTLED if width is None else NARROW


def _join_tables(
    tables: Sequence[Release], profile: Profile, with_sums: bool
) -> tuple[System, dict[int, tuple[str, CohortRow]]]:
    """The system of all releases' counts, and the places in it of those that are protected."""
    system, places, targets = System(), list[dict[Key, int]](), dict[int, tuple[str, CohortRow]]()
    everybody = max((_count_everybody(table.rows, profile) for table in tables), default=0.0)
    for table in tables:
        bounds = [_bound_count(row, profile, everybody) for row in table.rows]
        found = system.add_table(bounds, table.rows if with_sums else [])
        places.append({key_of(row): place for row, place in zip(table.rows, found, strict=True)})
        for row, place in zip(table.rows, found, strict=True):
            if row.figures.reason == TOO_FEW or (profile.rounding == "midpoint 6" and row.figures.n == 3):
                targets[place] = table.run_date, row
    for table, here in zip(tables[1:], places[1:], strict=True):
        shown = {key_of(row) for row in table.rows if row.figures.n is not None}
        for key, move in table.moves.items():
            if move.people > profile.known_movers:
                continue
            # A cell without a row is known to be empty.
            terms = {places[0][key]: 1.0} if key in places[0] else {}
            terms |= {here[key]: -1.0} if key in here else {}
            if terms:
                system.require(terms, move.net, move.net)
            if key in places[0] and (key in shown or key not in here):
                # Who knows the count of then and who moved needs no table of tonight.
                targets.pop(places[0][key], None)
    return system, targets


def _find_narrow_cases(
    rows: Sequence[CohortRow], profile: Profile, beside: Mapping[CellKey, CaseBounds]
) -> Iterator[tuple[CohortRow, str]]:
    """Protected numerators, where equal weights let the outsider read numerators off the proportions.

    Of those that are hidden, what stands beside them may tell bounds.

    Which side of the cut is the small one is taken to be known from everybody's proportion, where that is possible.
    """
    if not rows or rows[0].figures.kind != "proportion" or not is_self_weighted(rows):
        return
    everybody, (_, most) = _count_everybody(rows, profile), redacted_range(profile)
    least = 0 if profile.zero != "shown" else 1
    system, bounds = System(), list[CaseBounds]()
    people = system.add_table([_bound_count(row, profile, everybody) for row in rows], rows)
    for row in rows:
        cases = list_cases(row, profile)
        if cases is not None and not cases:
            return  # no whole number of cases: the weights are not equal after all
        fewest, largest = beside.get(row.place, (0.0, everybody))
        bounds.append((fewest, min(everybody, largest)) if cases is None else (cases[0], cases[-1]))
    with_outcome = system.add_table(bounds, rows)
    shares = [row.figures.estimate for row in rows if row.figures.estimate is not None]
    usually_small = not shares or float(np.median(shares)) <= 0.5
    targets = {}
    for row, n, k in zip(rows, people, with_outcome, strict=True):
        rest = system.add(0, everybody)
        system.require({n: 1.0, k: -1.0, rest: -1.0}, 0, 0)
        if row.figures.n is not None and row.figures.reason == TOO_FEW_CASES:
            side = k if usually_small else rest
            if rounding_cell(row.figures.n, profile)[1] <= most:
                continue
            system.low[side], system.high[side] = max(least, system.low[side]), min(most, system.high[side])
            targets[side] = row
    widths = system.spread(list(targets), profile.least_width)  # none fit: not all are small on the same side
    for place, width in widths.items():
        if width is None or width < profile.least_width:
            yield targets[place], UNSETTLED if width is None else NARROW_CASES


def _find_following(rows: Sequence[CohortRow]) -> Iterator[tuple[CohortRow, str]]:
    """Hidden estimates that some combination of sums leaves alone on its side, were the shown ones known exactly."""
    hidden = [i for i, row in enumerate(rows) if row.figures.estimate is None and row.figures.n != 0]
    lines = find_lines([dict(zip(row.breakdown, row.cell, strict=True)) for row in rows])
    columns = max([len(rows), *(line.total + 1 for line in lines)])
    unknown = [*hidden, *range(len(rows), columns)]
    place = {cell: i for i, cell in enumerate(unknown)}
    matrix = np.zeros((len(lines), len(unknown)))
    for equation, line in zip(matrix, lines, strict=True):
        for i, sign in ((line.total, -1.0), *((part, 1.0) for part in line.parts)):
            if i in place:
                equation[place[i]] = sign
    if not len(matrix) or not unknown:
        return
    _, values, directions = np.linalg.svd(matrix)
    free = directions[int(np.sum(values > SMALL)) :]
    for cell in hidden:
        if rows[cell].disclosure != "shown" and np.all(np.abs(free[:, place[cell]]) < SMALL):
            yield rows[cell], FOLLOWS


def _find_moved(tables: Sequence[Release], profile: Profile) -> Iterator[tuple[CohortRow, str]]:
    for table in tables[1:]:
        then = {key_of(row): row for row in table.rows}
        for row in tables[0].rows:
            move, old = table.moves.get(key_of(row)), then.get(key_of(row))
            if move is None or old is None or not row.figures.n:
                continue
            if 0 < move.people <= profile.known_movers:
                yield row, FEW_CHANGED
            hidden = old.figures.n is None or (old.disclosure != "shown" and row.figures.estimate is not None)
            if move.people == 0 and hidden:
                yield row, SHOWN_AGAIN
