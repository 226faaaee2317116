"""Complementary suppression: no redacted cell may follow from its neighbours and a total.

Cells of all breakdowns are read as one system of sums: a cell of a breakdown is the sum of the cells of every finer
breakdown that lie inside it, and two breakdowns add up alike over what they share. People whose level of a cohort is
unknown are taken to be none, which can only hide more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9


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


def hide_neighbours(
    lines: Sequence[Line],
    sizes: Sequence[int],
    secret: set[int],
    hidden: set[int],
    is_small: Callable[[list[int]], bool],
) -> set[int]:
    """The further cells to hide, so that no secret follows from what is still shown.

    `hidden` are the cells without a figure: the secret ones, and others that are merely not shown. A line gives a
    secret away where it is the only hidden cell, or where the hidden parts together are small (`is_small`); it then
    loses its next smallest cell, until no line does. What still follows from several lines at once is found by linear
    algebra, and hides a cell more.
    """
    gone, guarded, added = set(hidden), set(secret), set[int]()
    while True:
        at_risk = _first_telling_line(lines, sizes, gone, guarded, is_small)
        if at_risk is None:
            at_risk = _smallest_cell(_lines_of_determined(lines, len(sizes), gone, guarded), sizes, gone)
        if at_risk is None:
            return added
        for cells in (gone, guarded, added):
            cells.add(at_risk)


def _first_telling_line(
    lines: Sequence[Line],
    sizes: Sequence[int],
    gone: set[int],
    guarded: set[int],
    is_small: Callable[[list[int]], bool],
) -> int | None:
    known = {line.total for line in lines if not gone.intersection(line.parts)}
    known.update(i for i in range(len(sizes)) if i not in gone)
    for line in lines:
        missing = [i for i in line.parts if i in gone]
        total_known = line.total in known
        alone = len(missing) == 1 if total_known else not missing and line.total in guarded
        together = total_known and missing and is_small(missing)
        if (alone or together) and guarded & {line.total, *missing}:
            cell = _smallest_cell([line], sizes, gone)
            if cell is not None:
                return cell
    return None


def _smallest_cell(lines: Sequence[Line], sizes: Sequence[int], gone: set[int]) -> int | None:
    """The shown cell with the fewest people in these lines; an empty cell hides nothing."""
    shown = {i for line in lines for i in (line.total, *line.parts) if i < len(sizes) and i not in gone and sizes[i]}
    return min(shown, key=lambda i: (sizes[i], i), default=None)


def _lines_of_determined(lines: Sequence[Line], cells: int, gone: set[int], guarded: set[int]) -> list[Line]:
    """Lines of guarded cells that the shown ones determine; any with a hidden cell where those have none shown."""
    unknown = sorted(gone | {line.total for line in lines if line.total >= cells})
    if not guarded or not lines:
        return []
    freedom = np.abs(_null_space(lines, unknown)).max(axis=1, initial=0)
    determined = {i for i, free in zip(unknown, freedom, strict=True) if i in guarded and free < ROUNDING}
    own = [line for line in lines if determined & {line.total, *line.parts}]
    if any(i < cells and i not in gone for line in own for i in (line.total, *line.parts)):
        return own
    return [line for line in lines if gone & {line.total, *line.parts}] if own else []


def _null_space(lines: Sequence[Line], unknown: Sequence[int]) -> NDArray[np.float64]:
    """A row per unknown: the ways in which it may vary while every sum still holds."""
    column = {cell: j for j, cell in enumerate(unknown)}
    sums = np.zeros((len(lines), len(unknown)))
    for row, line in zip(sums, lines, strict=True):
        for cell, sign in [(line.total, -1.0), *((part, 1.0) for part in line.parts)]:
            if cell in column:
                row[column[cell]] = sign
    _, scale, directions = np.linalg.svd(sums)
    rank = int((scale > ROUNDING * max(1.0, scale.max(initial=0))).sum())
    return np.asarray(directions[rank:].T)
