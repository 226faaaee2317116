"""An attacker with the public table alone: what can be worked out of the cells that are redacted?

Written apart from `jobs.suppression`, and by other means: least squares for what follows from sums alone, linear
programming for what follows from rounding intervals and from knowing that a redacted count is 1-7.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.optimize import linprog

from jobs.survey import CohortRow

Found = tuple[str, tuple[str, ...], tuple[str, ...], str]

HALF_STEP = 2
LARGEST_REDACTED = 7


def list_sums(rows: Sequence[CohortRow]) -> tuple[np.ndarray, int]:
    """Every sum of cells as a row of +1 (parts) and -1 (their total), with a column for each total not published."""
    cells = [dict(zip(row.breakdown, row.cell, strict=True)) for row in rows]
    column = {tuple(sorted(cell.items())): i for i, cell in enumerate(cells)}
    breakdowns = {tuple(sorted(cell)) for cell in cells}
    sums = []
    for coarse in {tuple(sorted(set(a) & set(b))) for a, b in product(breakdowns, repeat=2)}:
        for fine in breakdowns:
            if not set(coarse) < set(fine):
                continue
            parts: dict[tuple[tuple[str, str], ...], list[int]] = {}
            for i, cell in enumerate(cells):
                if tuple(sorted(cell)) == fine:
                    parts.setdefault(tuple((name, cell[name]) for name in coarse), []).append(i)
            sums += [(column.setdefault(total, len(column)), members) for total, members in parts.items()]
    matrix = np.zeros((len(sums), len(column)))
    for equation, (total, members) in zip(matrix, sums, strict=True):
        equation[total] = -1
        equation[members] = 1
    return matrix, len(column)


def find_recoverable(rows: Sequence[CohortRow]) -> list[Found]:
    """The redacted figures that follow from the others: (outcome, breakdown, cell, which figure)."""
    found = []
    for outcome in sorted({row.outcome for row in rows}):
        chosen = [row for row in rows if row.outcome == outcome]
        matrix, columns = list_sums(chosen)
        no_count = [i for i, row in enumerate(chosen) if row.figures.n is None]
        # An empty cell has no estimate, but everybody knows its total: nothing.
        no_figure = [i for i, row in enumerate(chosen) if row.figures.estimate is None and row.figures.n != 0]
        for figure, hidden in (("count", no_count), ("estimate", no_figure)):
            unknown = hidden + list(range(len(chosen), columns))
            secret = [i for i in hidden if chosen[i].disclosure != "shown"]
            determined = [i for i in secret if _follows_by_sums(matrix[:, unknown], unknown.index(i))]
            if figure == "count":
                determined += [i for i in secret if i not in determined and _follows_by_bounds(matrix, chosen, i)]
            found += [(outcome, chosen[i].breakdown, chosen[i].cell, figure) for i in determined]
    return found


def _follows_by_sums(matrix: np.ndarray, place: int) -> bool:
    """Whether some combination of the sums leaves this unknown alone on its side."""
    alone = np.zeros(matrix.shape[1])
    alone[place] = 1
    combination, *_ = np.linalg.lstsq(matrix.T, alone, rcond=None)
    return bool(np.allclose(matrix.T @ combination, alone, atol=1e-9))


def _follows_by_bounds(matrix: np.ndarray, rows: Sequence[CohortRow], place: int) -> bool:
    """Whether only one whole number is left for a redacted count of 1-7, or of more where a neighbour was hidden."""
    bounds: list[tuple[float, float | None]] = []
    for row in rows:
        if row.figures.n is not None:
            slack = HALF_STEP if row.figures.n else 0
            bounds.append((row.figures.n - slack, row.figures.n + slack))
        else:
            bounds.append((1, LARGEST_REDACTED) if row.disclosure == "suppressed" else (LARGEST_REDACTED + 1, None))
    bounds += [(0, None)] * (matrix.shape[1] - len(rows))
    goal = np.zeros(matrix.shape[1])
    goal[place] = 1
    nothing = np.zeros(len(matrix))
    ends = [linprog(sign * goal, A_eq=matrix, b_eq=nothing, bounds=bounds) for sign in (1, -1)]
    return all(end.status == 0 for end in ends) and -ends[1].fun - ends[0].fun < 1
