"""Variance by replicate weights: BRR, Fay, jackknives, bootstrap and successive differences, as R's `svrepdesign`.

A figure is made once with the full weight and once with each replicate's, from weighted sums alone: the mean of a cell
is `sum_wy / sum_w`, arrays of 1 + R sums of which the first is the full weight's. Formulas: Wolter, Introduction to
Variance Estimation (2007); for successive differences, Fay and Train (1995).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from expectations.errors import ContractBroken
from expectations.replication import Replication

Floats = NDArray[np.float64]

FARTHEST_MEAN = 0.10  # of the replicates' totals from the full weight's, relative
DEPENDENT = 1e-5  # share of a column's length, as R's qr() judges it


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


@dataclass(frozen=True)
class ReplicateSums:
    """A domain's sums of w and wy over those who answered, with the full weight and each replicate's: (1 + R,).

    `whole` is the total of y; where it was asked for, those who answered stand in it for those who did not. `weights`
    are the replicate weights of those who answered, as `count_df` takes them.
    """

    sum_w: Floats
    sum_wy: Floats
    whole: Floats
    weights: Floats
    replication: Replication

    @cached_property
    def df(self) -> int:
        return count_df(self.weights)

    def vary_mean(self) -> float | None:
        """The variance of the mean or proportion; None where no replicate has it."""
        return self._vary(_divide(self.sum_wy, self.sum_w))

    def vary_ratio(self, denominator: "ReplicateSums") -> float | None:
        """The variance of the ratio of this total to another of the same people."""
        return self._vary(_divide(self.sum_wy, denominator.sum_wy))

    def vary_total(self) -> float | None:
        return self._vary(self.whole)

    def _vary(self, figures: Floats) -> float | None:
        se = estimate_replicated(figures, self.replication)[1]
        return None if se is None else se**2


def vary_standardised(groups: Sequence[ReplicateSums], shares: Floats) -> tuple[float | None, int]:
    """The variance of the mean with these shares (groups,) of a domain's groups, and its degrees of freedom."""
    means = np.array([_divide(group.sum_wy, group.sum_w) for group in groups])
    se = estimate_replicated(shares @ means, groups[0].replication)[1]
    return None if se is None else se**2, count_df(np.vstack([group.weights for group in groups]))


def _divide(top: Floats, bottom: Floats) -> Floats:
    """Not a number where a replicate has nothing to divide by."""
    divided: Floats = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
    return divided


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
    """Degrees of freedom of a cell: the rank of its replicate weights less 1, as R's degf on the cell; at least 0.

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
    return max(0, basis.shape[1] - 1)
