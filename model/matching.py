"""What people's other answers say of a trait, by which those of different groups are matched.

The trait lies on a grid; items are the model's, the same in every group, while each group has its own distribution.
Without that, matching by a score with measurement error takes a difference between groups for one of the item (Shealy &
Stout 1993: the regression correction). Shapes: N people, J items, Q points, K the most categories, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUNDS = 40
TOLERANCE = 1e-4  # of a round's change of a group's mass at any point
SMALLEST = 1e-12

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TraitItems:
    """Items of one trait as the model has them: `probability` (J, Q, K) at `theta` (Q), with `density` (Q), summing to
    1, in the population; `scores` (J, K) of the categories, of which an item has `sizes` many."""

    trait: str
    keys: tuple[str, ...]
    sizes: tuple[int, ...]
    theta: Floats
    probability: Floats
    scores: Floats
    density: Floats


@dataclass(frozen=True)
class Evidence:
    """Log likelihood (J, N, Q) of each answer; 0 where there is none."""

    items: TraitItems
    logs: Floats
    group: Integers
    weights: Floats

    @staticmethod
    def of(items: TraitItems, categories: Integers, group: Integers, weights: Floats) -> Evidence:
        """`categories` (N, J), -1 where there is no answer; `group` (N) from 0 on."""
        tables = np.log(np.maximum(items.probability, SMALLEST)).transpose(0, 2, 1)
        none = np.zeros((len(items.keys), 1, len(items.theta)))
        tables = np.concatenate([tables, none], axis=1)  # the last category, -1, is no answer
        logs = np.stack([table[column] for table, column in zip(tables, categories.T, strict=True)])
        return Evidence(items, logs, group, weights)

    def match_all(self, anchors: Members) -> Iterator[Floats]:
        """For each item, the posterior (N, Q) of the trait given a person's answers to the `anchors` (J) but for it."""
        together = self.logs[anchors].sum(axis=0)
        own = np.log(np.maximum(self.find_densities(together), SMALLEST))[self.group]
        for place, logs in enumerate(self.logs):
            yield normalise(together - logs + own if anchors[place] else together + own)

    def find_densities(self, logs: Floats) -> Floats:
        """Distribution (G, Q) of the trait in each group, by maximum likelihood on the grid (EM), from answers' log
        likelihoods (N, Q)."""
        likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
        found = []
        for number in range(int(self.group.max()) + 1):
            member = self.group == number
            own, weight = likelihood[member], self.weights[member] / self.weights[member].sum()
            density = self.items.density
            for _ in range(ROUNDS):
                before = density
                density = density * ((weight / (own @ density)) @ own)
                if np.abs(density - before).max() < TOLERANCE:
                    break
            found.append(density)
        return np.stack(found)


def normalise(logs: Floats) -> Floats:
    """Masses (N, Q) from their logarithms."""
    mass = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))
