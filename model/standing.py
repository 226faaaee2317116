"""Where a profile stands among a group of people: the same two distributions as the norms of everybody.

Shapes: P people of the group.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from model.norms import TRAIT_GRID, Floats, Table, tabulate

BLOCK = 4096


@dataclass(frozen=True)
class GroupNorms:
    """Of one trait in one group: a table of the profiles' means, and of the trait itself."""

    profiles: Table
    traits: Table

    @staticmethod
    def of(means: Floats, sds: Floats, weights: npt.NDArray[np.float64]) -> "GroupNorms":
        """From the profiles (P) of the group's people and their survey weights, of which one has to be above 0.

        The trait's distribution is the weighted mean of the people's posteriors, which lie further apart than their
        means do (the aggregate posterior: it is the group's distribution where the model holds).
        """
        kept = weights > 0
        means, sds, share = means[kept], sds[kept], weights[kept] / weights[kept].sum()
        grid = TRAIT_GRID.double().numpy()
        below = np.zeros(len(grid))
        for start in range(0, len(means), BLOCK):
            some = slice(start, start + BLOCK)
            below += share[some] @ ndtr((grid - means[some, None]) / sds[some, None])
        rising = np.concatenate([[True], np.diff(below) > 0])
        traits = Table(grid[rising].tolist(), (100 * below[rising]).tolist())
        return GroupNorms(tabulate(means, weights[kept]), traits)

    def rank(self, mean: float, low: float, high: float) -> tuple[float, float, float]:
        """Percentile of a profile by its mean, and of its interval's ends, which hold it."""
        middle = float(self.profiles.rank(np.array([mean], dtype=np.float32))[0])
        ends = self.traits.rank(np.array([low, high], dtype=np.float32))
        return middle, min(float(ends[0]), middle), max(float(ends[1]), middle)
