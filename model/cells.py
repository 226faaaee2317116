"""People's categories drawn anew: one column after another, each given those before it.

p(x_j | x_1 .. x_{j-1}) is a multinomial logit on the levels of the columns before, each effect with a prior of RIDGE
people's worth around zero. It is fitted to the two-way tables of x_j and each column before alone, which are all that
its likelihood reads of the answers: what three columns say together of somebody is never learnt.
Shapes: N people, D drawn ones, L levels, Q levels of all columns before.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

SMALLEST = 10  # people: a level of fewer is never one of its own
RIDGE = 1.0
MOST_ROUNDS = 200

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def draw_cells(people: Mapping[str, Integers], count: int, random: np.random.Generator) -> dict[str, Integers]:
    """Codes (D = `count`) of every column of `people` (codes (N) from 0 on), drawn in its order."""
    drawn: dict[str, Integers] = {}
    for name, codes in people.items():
        widths = [int(people[other].max()) + 1 for other in drawn]
        before = mark_levels([people[other] for other in drawn], widths, len(codes))
        slopes = fit_logit(before, codes)
        drawn[name] = draw_levels(softmax(mark_levels(list(drawn.values()), widths, count) @ slopes, axis=1), random)
    return drawn


def mark_levels(columns: Sequence[Integers], widths: Sequence[int], rows: int) -> sp.csr_array:
    """Ones (rows, 1 + Q): a constant, and the level of each column, of which there are `widths`."""
    starts = np.concatenate([[0, 1], 1 + np.cumsum(widths)]).astype(np.int64)
    places = np.stack([np.zeros(rows, dtype=np.int64), *columns], axis=1) + starts[: len(columns) + 1]
    indices, pointers = places.ravel(), np.arange(rows + 1) * places.shape[1]
    return sp.csr_array((np.ones(len(indices)), indices, pointers), shape=(rows, int(starts[-1])))


def fit_logit(before: sp.csr_array, codes: Integers) -> Floats:
    """Slopes (1 + Q, L) of a multinomial logit of `codes` (N); the constant's have no prior but a trace of one."""
    levels = int(codes.max()) + 1
    answers = np.eye(levels)[codes]
    tables = before.T @ answers
    ridge = np.full((before.shape[1], 1), RIDGE)
    ridge[0] = 1e-3 * RIDGE

    def cost(flat: Floats) -> tuple[float, Floats]:
        slopes = flat.reshape(tables.shape)
        logs = log_softmax(before @ slopes, axis=1)
        penalty = 0.5 * float((ridge * slopes**2).sum())
        slope = before.T @ np.exp(logs) - tables + ridge * slopes
        return penalty - float((logs * answers).sum()), slope.ravel()

    found = minimize(cost, np.zeros(tables.size), jac=True, method="L-BFGS-B", options={"maxiter": MOST_ROUNDS})
    return np.asarray(found.x.reshape(tables.shape))


def draw_levels(shares: Floats, random: np.random.Generator) -> Integers:
    """A level for each row of shares (D, L)."""
    edges = shares.cumsum(axis=1)
    return np.asarray((random.random((len(shares), 1)) * edges[:, -1:] >= edges).sum(axis=1), dtype=np.int64)


def join_rare(codes: Integers, into: int | None = None) -> Integers:
    """Levels of fewer than SMALLEST people as level `into`, or the commonest one; nobody's stay nobody's."""
    if not len(codes):
        return codes
    counts = np.bincount(codes)
    target = int(counts.argmax()) if into is None else into
    return np.where(counts[codes] < SMALLEST, target, codes)
