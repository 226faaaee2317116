"""An attacker with the public table alone: what can be worked out of the cells that are redacted?

Written apart from `jobs.suppression`, and by other means: least squares for what follows from sums alone, integer
programming for what follows from rounding intervals and from knowing that a redacted count is 1-7.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from jobs.survey import CohortRow

Found = tuple[str, tuple[str, ...], tuple[str, ...], str]

HALF_STEP = 2
LARGEST_REDACTED = 7
EVERYBODY = 10_000  # more than there are


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
                determined += [i for i in _follow_by_bounds(matrix, chosen, secret) if i not in determined]
            found += [(outcome, chosen[i].breakdown, chosen[i].cell, figure) for i in determined]
    return found


def _follows_by_sums(matrix: np.ndarray, place: int) -> bool:
    """Whether some combination of the sums leaves this unknown alone on its side."""
    alone = np.zeros(matrix.shape[1])
    alone[place] = 1
    combination, *_ = np.linalg.lstsq(matrix.T, alone, rcond=None)
    return bool(np.allclose(matrix.T @ combination, alone, atol=1e-9))


def _follow_by_bounds(matrix: np.ndarray, rows: Sequence[CohortRow], secret: Sequence[int]) -> list[int]:
    """Redacted counts, 1-7 or more where a neighbour was hidden, for which only one whole number is left.

    Every table that the programmes find has a value for all cells: one that has had two needs no programme of its own.
    """
    bounds: list[tuple[float, float]] = []
    for row in rows:
        if row.figures.n is not None:
            slack = HALF_STEP if row.figures.n else 0
            bounds.append((row.figures.n - slack, row.figures.n + slack))
        else:
            bounds.append(
                (1, LARGEST_REDACTED) if row.disclosure == "suppressed" else (LARGEST_REDACTED + 1, EVERYBODY)
            )
    bounds += [(0, np.inf)] * (matrix.shape[1] - len(rows))
    sums, limits = LinearConstraint(matrix, 0, 0), Bounds(*zip(*bounds, strict=True))
    tables: list[np.ndarray] = []
    for place in secret:
        for sign in (1, -1):
            if len({table[place] for table in tables}) < 2:
                goal = sign * np.eye(1, len(bounds), place)[0]
                end = milp(goal, integrality=1, bounds=limits, constraints=sums)
                assert end.status == 0, end.message
                tables.append(np.round(end.x))
    return [i for i in secret if len({table[i] for table in tables}) < 2]
