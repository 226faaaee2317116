"""Sums of plausible values with every replicate weight: what the variance of a trait's mean is made of, by replicates.

Each plausible value is estimated with the full weight and with each replicate's, as any other outcome; Rubin's rules
come after. As elsewhere the sums are exact for what they add, so that no order changes a digit: values lie on a grid of
2^-10 reference sds (they are draws: what is rounded off is noise), and weights are split into two parts on grids so
wide that products and their sums are whole multiples of a double's last digit.
Shapes: N people, M values, T traits, R replicate weights.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from expectations.replication import Replication
from jobs.domain_sums import MANTISSA_BITS, split_values
from jobs.replicate_sums import WEIGHTS, shorten
from jobs.replicates import ReplicateSums

STEP = 2.0**-10

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Key = tuple[int, int]  # a breakdown's number, and its cell's


@dataclass
class TraitSums:
    """For each cell the sums of a coarse and a fine part: `weights` (2, 1 + R), `values` (2, 1 + R, M T).

    `people` are the replicate weights of the cell's people: at most R rows with the same products of columns.
    """

    weights: dict[Key, Floats] = field(default_factory=dict)
    values: dict[Key, Floats] = field(default_factory=dict)
    people: dict[Key, Floats] = field(default_factory=dict)

    def add(self, other: "TraitSums") -> "TraitSums":
        return TraitSums(
            _merge(self.weights, other.weights, np.add),
            _merge(self.values, other.values, np.add),
            _merge(self.people, other.people, lambda one, two: shorten(np.vstack([one, two]))),
        )

    def split(self, key: Key, traits: int, trait: int, replication: Replication) -> list[ReplicateSums]:
        """Those of each plausible value of a trait in a cell."""
        w, wy = self.weights[key].sum(axis=0), self.values[key].sum(axis=0)
        values = wy.reshape(len(w), -1, traits)[:, :, trait]
        return [ReplicateSums(w, value, value, self.people[key], replication) for value in values.T]


def _merge(one: Mapping[Key, Floats], two: Mapping[Key, Floats], join: Callable[..., Floats]) -> dict[Key, Floats]:
    return {**one, **two, **{key: join(one[key], two[key]) for key in one.keys() & two.keys()}}


def choose_grids(largest_weight: float, people: int, farthest: float) -> tuple[float, float]:
    """The steps of the two parts of weights, with which the sums of values up to `farthest` are exact."""
    room = max(1, people).bit_length() - MANTISSA_BITS
    coarse = 2.0 ** (math.frexp(largest_weight * farthest / STEP)[1] + room)
    return coarse, 2.0 ** (math.frexp(coarse / 2 * farthest / STEP)[1] + room)


def add_replicates(
    people: pa.Table, values: NDArray[np.float32], cells: Sequence[Integers], grids: tuple[float, float]
) -> TraitSums:
    """The sums of some people: their values are (N, M, T), `cells` tell for each breakdown everybody's, -1 for none."""
    replicates = pc.list_flatten(people[WEIGHTS]).to_numpy().reshape(len(people), -1)
    parts = np.stack(split_values(np.column_stack([people["weight"].to_numpy(), replicates]), grids))
    rounded = np.rint(values.reshape(len(values), -1).astype(np.float64) / STEP) * STEP
    total = TraitSums()
    for number, places in enumerate(cells):
        order = np.argsort(places, kind="stable")
        names, starts = np.unique(places[order], return_index=True)
        for name, rows in zip(names, np.split(order, starts[1:]), strict=True):
            if name >= 0:
                key, weights = (number, int(name)), parts[:, rows]
                total.weights[key] = weights.sum(axis=1)
                total.values[key] = weights.transpose(0, 2, 1) @ rounded[rows]
                total.people[key] = shorten(replicates[rows])
    return total
