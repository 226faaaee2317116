"""Variance by replicate weights: BRR, Fay, jackknives, bootstrap and successive differences, as R's `svrepdesign`.

A figure is made once with the full weight and once with each replicate's, from weighted sums alone: the mean of a cell
is `sum_wy / sum_w`, arrays of 1 + R sums of which the first is the full weight's. Formulas: Wolter, Introduction to
Variance Estimation (2007); for successive differences, Fay and Train (1995).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from expectations.errors import ContractBroken

Method = Literal["BRR", "Fay", "JK1", "JKn", "bootstrap", "ACS", "successive-difference"]
Floats = NDArray[np.float64]

FARTHEST_MEAN = 0.10  # of the replicates' totals from the full weight's, relative
DEPENDENT = 1e-5  # share of a column's length, as R's qr() judges it


@dataclass(frozen=True)
class Replication:
    """The variance: `scale` x the sum of `rscales` (R,) x squares about the replicates' mean (`mse`: the estimate)."""

    scale: float
    rscales: Floats
    mse: bool = False


def choose_scales(
    method: Method,
    replicates: int,
    rho: float | None = None,
    scale: float | None = None,
    rscales: Sequence[float] | None = None,
    mse: bool = False,
) -> Replication:
    """The scales of a method with so many replicates; the bootstrap and JK1 take others, JKn needs its own `rscales`.

    Raises ContractBroken for scales that are missing, too many, or that the method does not have.
    """
    if replicates < 2:
        raise ContractBroken(f"design.replicates: {replicates} columns of replicate weights, at least 2 are needed")
    if (method == "Fay") != (rho is not None):
        raise ContractBroken("design.replicates: `rho` is needed for Fay's method, and for no other")
    if method not in ("JK1", "JKn", "bootstrap") and not (scale is None and rscales is None):
        raise ContractBroken(f"design.replicates: {method} has its own scale: leave out `scale` and `rscales`")
    if method == "JKn" and rscales is None:
        raise ContractBroken("design.replicates: JKn needs `rscales`, (m - 1) / m of each replicate's stratum")
    if rscales is not None and len(rscales) != replicates:
        raise ContractBroken(
            f"design.replicates: {len(rscales)} `rscales` for {replicates} columns of replicate weights: give one each"
        )
    own = {
        "BRR": 1 / replicates,
        "Fay": 1 / (replicates * (1 - (rho or 0.0)) ** 2),
        "JK1": (replicates - 1) / replicates,
        "JKn": 1.0,
        "bootstrap": 1 / (replicates - 1),
    }
    given = own.get(method, 4 / replicates) if scale is None else scale
    return Replication(given, np.ones(replicates) if rscales is None else np.array(rscales, dtype=np.float64), mse)


def check_totals(totals: Floats, columns: Sequence[str]) -> None:
    """Whether the replicate weights belong to the full one, from the total of each: `totals` is (1 + R,).

    Raises ContractBroken that names a replicate whose weights add up to nothing, or says how far their mean is off.
    """
    full, others = float(totals[0]), totals[1:]
    wrong = [name for name, total in zip(columns, others, strict=True) if not (math.isfinite(total) and total > 0)]
    if wrong:
        raise ContractBroken(f"replicate weight {wrong[0]} adds up to nothing: have the extract corrected")
    mean = math.fsum(others) / len(others)
    if abs(mean / full - 1) > FARTHEST_MEAN:
        raise ContractBroken(
            f"the replicate weights add up to {mean:,.0f} on average, the full weight to {full:,.0f}: they belong to "
            "another weight, or are factors that must be multiplied by it first"
        )


def estimate_replicated(figures: Floats, replication: Replication) -> tuple[float, float | None]:
    """The estimate and its SE, from the figure with the full weight and each replicate's: `figures` is (1 + R,).

    As in R, a replicate without the figure (nobody of the cell has a weight in it: not a number) is left out, and the
    mean is of the replicates with a scale above 0. The SE is null where no replicate has the figure.
    """
    estimate, replicates = float(figures[0]), figures[1:]
    known = np.isfinite(replicates)
    replicates, rscales = replicates[known], replication.rscales[known]
    if not np.any(rscales > 0):
        return estimate, None
    centre = estimate if replication.mse else math.fsum(replicates[rscales > 0]) / int(np.sum(rscales > 0))
    return estimate, math.sqrt(replication.scale * math.fsum(rscales * (replicates - centre) ** 2))


def count_df(weights: Floats) -> int:
    """Degrees of freedom of a cell: the rank of its replicate weights less 1, as R's degf on the cell.

    `weights` are (people with an answer, R), or a matrix with the same products of columns, such as the triangle that
    `np.linalg.qr` leaves of them. A column counts where what it adds to those before is not negligible.
    """
    basis = np.empty((len(weights), 0))
    for column in weights.T:
        left = column
        for _ in range(2):  # once more for what rounding left
            left = left - basis @ (basis.T @ left)
        length = float(np.linalg.norm(left))
        if basis.shape[1] < len(weights) and length > DEPENDENT * float(np.linalg.norm(column)):
            basis = np.column_stack([basis, left / length])
    return basis.shape[1] - 1
