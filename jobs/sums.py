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

    A hidden cell follows where its values in such tables lie less than its `need` apart. A table is told by how it
    differs from the true one, so that every sum of differences is 0. Tables may split people: whole numbers take far
    longer. `needs` has the width for the cells that need more than 1; `fixed` cells are known to whoever reads.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        sizes: Sequence[int],
        rooms: Sequence[Room],
        needs: Mapping[int, float] | None = None,
        fixed: Set[int] = frozenset(),
    ) -> None:
        columns = max([len(sizes), *(line.total + 1 for line in lines)])
        self.sizes = np.array(sizes)
        self.fixed = np.array(sorted(fixed), dtype=np.int64)
        self.unpublished = range(len(sizes), columns)
        self.rooms = np.full((columns, 2), (-np.inf, np.inf))
        self.rooms[: len(sizes)] = np.reshape(rooms, (-1, 2))
        self.needs = np.ones(columns)
        self.needs[list(needs or {})] = list((needs or {}).values())
        # No wider than what the cell's own label tells, but never none at all.
        self.needs = np.maximum(1, np.minimum(self.needs, self.rooms[:, 1] - self.rooms[:, 0]))
        members = [i for line in lines for i in (line.total, *line.parts)]
        signs = [sign for line in lines for sign in (-1.0, *[1.0] * len(line.parts))]
        starts = np.cumsum([0, *(1 + len(line.parts) for line in lines)])
        self.sums = csr_array((signs, members, starts), shape=(len(lines), columns))
        # How far below and above the truth each cell has been in a table that was found.
        self.low, self.high = np.zeros(columns), np.zeros(columns)

    def find_cover(self, hidden: Set[int], guarded: Set[int]) -> set[int]:
        """The shown cells to hide so that the first guarded cell that follows no longer does; none where none follows.

        Hiding more leaves possible whatever was possible, so that a cell that has moved once is not asked for again.
        """
        doubtful = self._find_doubtful(guarded)
        if not doubtful:
            return set()
        unknown = np.array([*sorted(hidden), *self.unpublished])
        sums = self.sums[:, unknown]
        _, groups = connected_components(block_array([[None, sums], [sums.T, None]]), directed=False)
        group_of_line, group_of_cell = np.split(groups, [sums.shape[0]])
        tried = set[int]()
        for cell, group in zip(unknown.tolist(), group_of_cell, strict=True):
            if cell in doubtful and not self._is_free(cell):
                inside = group_of_cell == group
                cells, joined = unknown[inside], sums[group_of_line == group][:, inside]
                if group not in tried:
                    self._stretch(np.isin(cells, list(doubtful)).astype(np.float64), cells, joined)
                    tried.add(group)
                if not self._is_free(cell):
                    self._stretch((cells == cell).astype(np.float64), cells, joined)
                if not self._is_free(cell) and (cover := self._cheapest_cover(cell, unknown)):
                    return cover
        return set()

    def _find_doubtful(self, guarded: Set[int]) -> set[int]:
        return {cell for cell in guarded if not self._is_free(cell)}

    def _is_free(self, cell: int) -> bool:
        return bool(self.high[cell] - self.low[cell] >= self.needs[cell] - TOLERANCE)

    def _stretch(self, goal: NDArray[np.float64], cells: Ints, sums: csr_array) -> None:
        """Moves the goal's cells together as far as they go, both ways, and notes where every cell has been."""
        for sign in (1, -1):
            found = _solve(-sign * goal, sums, self.rooms[cells])
            if found is not None:
                self.low[cells] = np.minimum(self.low[cells], found)
                self.high[cells] = np.maximum(self.high[cells], found)

    def _cheapest_cover(self, cell: int, unknown: Ints) -> set[int]:
        """The shown cells, by people the fewest, that change in a table that widens the cell's bounds enough.

        An empty cell hides nothing, nor does one that is known.
        """
        shown = np.setdiff1d(np.flatnonzero(self.sizes), np.concatenate([unknown, self.fixed]))
        low, high = self.rooms[shown].T
        none = np.zeros(len(shown))
        rooms = np.vstack([self.rooms[unknown], np.column_stack([none, high]), np.column_stack([none, -low])])
        sums = hstack([self.sums[:, unknown], self.sums[:, shown], -self.sums[:, shown]])
        people = np.concatenate([np.zeros(len(unknown)), self.sizes[shown], self.sizes[shown]])
        place = int(np.flatnonzero(unknown == cell)[0])
        up = min(self.rooms[cell, 1], self.low[cell] + self.needs[cell])
        down = max(self.rooms[cell, 0], self.high[cell] - self.needs[cell])
        # All of the need in one direction, or else a first step of it.
        for ends in ((up, down), (min(up, self.high[cell] + 1), max(down, self.low[cell] - 1))):
            tables = []
            for end, side, gain in ((ends[0], 0, ends[0] - self.high[cell]), (ends[1], 1, self.low[cell] - ends[1])):
                if gain > TOLERANCE:
                    tightened = rooms.copy()
                    tightened[place, side] = end
                    tables.append(_solve(people, sums, tightened))
            found = [table for table in tables if table is not None]
            if found:
                up_by, down_by = np.split(min(found, key=lambda table: float(people @ table))[len(unknown) :], 2)
                if cover := set(shown[up_by + down_by > TOLERANCE].tolist()):
                    return cover
        return set()


def _solve(cost: NDArray[Any], sums: csr_array, rooms: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The cheapest differences that add up to 0 and lie within their rooms; None where there are none.

    Raises StageError where HiGHS finds neither.
    """
    if (rooms[:, 0] > rooms[:, 1]).any():
        return None
    found = linprog(cost, A_eq=sums, b_eq=np.zeros(sums.shape[0]), bounds=rooms)
    if found.status not in (SOLVED, INFEASIBLE):
        raise StageError(
            f"whether a redacted count follows from the others was not found out ({found.message}): take a breakdown "
            "out of the codebook, or report this fault"
        )
    return np.asarray(found.x) if found.status == SOLVED else None
