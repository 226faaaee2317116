"""Numbers drawn anew from a histogram that tells no person's number.

A number that SMALLEST people or more share stands for itself; the others lie in bins of as many people, and come out
uniform between the bins' edges. The outermost bins are centred on their people's mean, so that neither the least nor
the largest number is told. Shapes: N people, D drawn ones.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from model.cells import SMALLEST

MOST_DECIMALS = 6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Bins from `low` to `high`, the same where it is one number, with their people; rounded to `decimals`.

    What is drawn lies within `span`.
    """

    low: Floats
    high: Floats
    people: npt.NDArray[np.int64]
    decimals: int
    span: tuple[float, float] = (-math.inf, math.inf)

    def draw(self, count: int, random: np.random.Generator) -> Floats:
        which = random.choice(len(self.people), count, p=self.people / self.people.sum())
        drawn = self.low[which] + (self.high - self.low)[which] * random.random(count)
        return np.clip(drawn.round(self.decimals), *self.span)


def make_histogram(values: Floats, decimals: int, span: tuple[float, float] = (-math.inf, math.inf)) -> Histogram:
    """Of known numbers (N), one at least; `span` has the least and the largest that there may be."""
    numbers, counts = np.unique(values, return_counts=True)
    shared = counts >= SMALLEST
    low, high, people = [numbers[shared]], [numbers[shared]], [counts[shared]]
    rest = np.sort(values[~np.isin(values, numbers[shared])])
    if len(rest):
        bins = np.array_split(rest, max(1, len(rest) // SMALLEST))
        inner = np.array([(one[-1] + other[0]) / 2 for one, other in pairwise(bins)])
        first, last = (inner[0], inner[-1]) if len(inner) else (rest.mean(), rest.mean())
        outer = [min(first, 2 * bins[0].mean() - first)], [max(last, 2 * bins[-1].mean() - last)]
        edges = np.concatenate([outer[0], inner, outer[1]])
        low, high = [*low, edges[:-1]], [*high, edges[1:]]
        people.append(np.array([len(one) for one in bins]))
    return Histogram(np.concatenate(low), np.concatenate(high), np.concatenate(people), decimals, span)


def count_decimals(values: Floats) -> int:
    """How many decimals the numbers are written with, up to MOST_DECIMALS."""
    return next((d for d in range(MOST_DECIMALS) if np.array_equal(values.round(d), values)), MOST_DECIMALS)
