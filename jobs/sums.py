"""The sums that hold among the cells of a table, and what follows from them of the cells that are hidden.

Cells of all breakdowns are read as one system of sums: a cell of a breakdown is the sum of the cells of every finer
breakdown that lie inside it, and two breakdowns add up alike over what they share. Who reads the table is taken to know
the shown cells before they were rounded, and how many people's level of a cohort is unknown: both can only hide more.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import block_array, csr_array, hstack
from scipy.sparse.csgraph import connected_components

from jobs.errors import StageError

# How far below and above the truth a hidden cell may lie, for all that its label tells: (low <= 0, high >= 0).
Room = tuple[float, float]
Ints = NDArray[np.int64]

TOLERANCE = 1e-6
SOLVED, INFEASIBLE = 0, 2  # of linprog


@dataclass(frozen=True)
class Line:
    """Cells `parts` add up to cell `total`, both by position; a total past the last cell is one nobody published."""

    total: int
    parts: tuple[int, ...]


def find_lines(cells: Sequence[Mapping[str, str]]) -> list[Line]:
    """Every sum that holds among the cells; a cell is its cohorts' levels, `{}` is everybody."""
    place = {frozenset(cell.items()): i for i, cell in enumerate(cells)}
    finer = sorted({tuple(sorted(cell)) for cell in cells})
    totals = {*map(frozenset, finer), *(frozenset(a) & frozenset(b) for a, b in combinations(finer, 2))}
    inside: dict[frozenset[tuple[str, str]], dict[tuple[str, ...], list[int]]] = {}
    for i, cell in enumerate(cells):
        for names in sorted(map(sorted, totals)):
            if set(names) < set(cell):
                total = frozenset((name, cell[name]) for name in names)
                inside.setdefault(total, {}).setdefault(tuple(sorted(cell)), []).append(i)
    return [
        Line(place.setdefault(total, len(place)), tuple(parts))
        for total, by_breakdown in inside.items()
        for parts in by_breakdown.values()
    ]


class Audit:
    """Looks for other tables with the same sums and the same shown cells, by linear programmes.

    A hidden cell follows where no such table has it higher or lower by 1 or more. A table is told by how it differs
    from the true one, so that every sum of differences is 0. Tables may split people: whole numbers take far longer.
    """

    def __init__(self, lines: Sequence[Line], sizes: Sequence[int], rooms: Sequence[Room]) -> None:
        columns = max([len(sizes), *(line.total + 1 for line in lines)])
        self.sizes = np.array(sizes)
        self.unpublished = range(len(sizes), columns)
        self.rooms = np.full((columns, 2), (-np.inf, np.inf))
        self.rooms[: len(sizes)] = np.reshape(rooms, (-1, 2))
        members = [i for line in lines for i in (line.total, *line.parts)]
        signs = [sign for line in lines for sign in (-1.0, *[1.0] * len(line.parts))]
        starts = np.cumsum([0, *(1 + len(line.parts) for line in lines)])
        self.sums = csr_array((signs, members, starts), shape=(len(lines), columns))
        self.moved: set[int] = set()

    def find_cover(self, hidden: Set[int], guarded: Set[int]) -> set[int]:
        """The shown cells to hide so that the first guarded cell that follows no longer does; none where none follows.

        Hiding more leaves possible whatever was possible, so that a cell that has moved once is not asked for again.
        """
        if guarded <= self.moved:
            return set()
        unknown = np.array([*sorted(hidden), *self.unpublished])
        sums = self.sums[:, unknown]
        _, groups = connected_components(block_array([[None, sums], [sums.T, None]]), directed=False)
        group_of_line, group_of_cell = np.split(groups, [sums.shape[0]])
        for cell, group in zip(unknown.tolist(), group_of_cell, strict=True):
            if cell in guarded and cell not in self.moved:
                inside = group_of_cell == group
                cells, joined = unknown[inside], sums[group_of_line == group][:, inside]
                if not self._moves(cell, cells, joined, guarded) and (cover := self._cheapest_cover(cell, unknown)):
                    return cover
        return set()

    def _moves(self, cell: int, cells: Ints, sums: csr_array, guarded: Set[int]) -> bool:
        """Whether another table is possible; the cells still in doubt go the same way as far as they can."""
        doubtful = np.isin(cells, list(guarded - self.moved))
        for step in (1, -1):
            found = _solve(-step * doubtful, sums, self.rooms[cells], cells == cell, step)
            if found is not None:
                self.moved.update(cells[np.abs(found) > 1 - TOLERANCE].tolist())
                return True
        return False

    def _cheapest_cover(self, cell: int, unknown: Ints) -> set[int]:
        """The shown cells, by people the fewest, that change in another table; an empty cell hides nothing."""
        shown = np.setdiff1d(np.flatnonzero(self.sizes), unknown)
        low, high = self.rooms[shown].T
        none = np.zeros(len(shown))
        rooms = np.vstack([self.rooms[unknown], np.column_stack([none, high]), np.column_stack([none, -low])])
        sums = hstack([self.sums[:, unknown], self.sums[:, shown], -self.sums[:, shown]])
        people = np.concatenate([np.zeros(len(unknown)), self.sizes[shown], self.sizes[shown]])
        place = np.arange(len(people)) == np.flatnonzero(unknown == cell)[0]
        tables = [found for step in (1, -1) if (found := _solve(people, sums, rooms, place, step)) is not None]
        if not tables:
            return set()
        up, down = np.split(min(tables, key=lambda table: float(people @ table))[len(unknown) :], 2)
        return set(shown[up + down > TOLERANCE].tolist())


def _solve(
    cost: NDArray[Any], sums: csr_array, rooms: NDArray[np.float64], place: NDArray[np.bool_], step: int
) -> NDArray[np.float64] | None:
    """The cheapest differences that add up to 0, within their rooms and `step` or more at `place`; None if none do.

    Raises StageError where HiGHS finds neither.
    """
    low, high = rooms.T.copy()
    (low if step > 0 else high)[place] = step
    if (low > high).any():
        return None
    found = linprog(cost, A_eq=sums, b_eq=np.zeros(sums.shape[0]), bounds=np.column_stack([low, high]))
    if found.status not in (SOLVED, INFEASIBLE):
        raise StageError(
            f"whether a redacted count follows from the others was not found out ({found.message}): take a breakdown "
            "out of the codebook, or report this fault"
        )
    return np.asarray(found.x) if found.status == SOLVED else None
