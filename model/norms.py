"""Norms: where a profile mean stands in the training population, as a percentile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.errors import ModelError
from model.inputs import iterate_people
from model.network import ProfileNetwork
from model.spec import MISSING

STEP = 0.5  # percentile points between two entries of a table
BLOCK = 4096


@dataclass(frozen=True)
class Norms:
    """For each trait a table of profile means, rising strictly, and their percentiles (0 to 100)."""

    means: dict[str, list[float]]
    percentiles: dict[str, list[float]]

    def rank(self, trait: str, means: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Percentiles of profile means; beyond the table's ends, the end's."""
        return np.interp(means, self.means[trait], self.percentiles[trait]).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        return {key: {"mean": self.means[key], "percentile": self.percentiles[key]} for key in self.means}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Norms":
        return Norms({k: v["mean"] for k, v in data.items()}, {k: v["percentile"] for k, v in data.items()})


@torch.no_grad()
def make_norms(network: ProfileNetwork, paths: Sequence[Path], weight_column: str | None) -> Norms:
    """Norms of everybody in the files who answered anything, held-out fold included, survey-weighted."""
    means, weights = [], []
    for people in iterate_people(paths, network.spec, weight_column):
        answered = (people.codes != MISSING).any(axis=1)
        weights.append(people.weights[answered])
        for block in torch.split(torch.from_numpy(people.codes[answered]), BLOCK):
            means.append(network.posterior(network.categories(block)).mean.numpy())
    every, weight = np.concatenate(means), np.concatenate(weights)
    tables = {
        trait.key: tabulate_percentiles(every[:, position], weight)
        for position, trait in enumerate(network.spec.traits)
    }
    return Norms({key: table[0] for key, table in tables.items()}, {key: table[1] for key, table in tables.items()})


def tabulate_percentiles(
    values: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Values that rise strictly, and their weighted mid-percentiles, every STEP points and at both ends.

    Mid-percentile: 100 (weight below + half of the weight at the value) / weight. People with the same answers share
    a value, and on a floored scale a third of them may: they stand in the middle of their own weight.
    """
    kept = weights > 0
    if not kept.any():
        raise ModelError("Nobody who answered has a weight above zero: there are no norms.")
    unique, place = np.unique(values[kept].astype(np.float64), return_inverse=True)
    mass = np.bincount(place, weights[kept])
    middle = 100 * (np.cumsum(mass) - mass / 2) / mass.sum()
    grid = np.arange(0, 100 + STEP, STEP)
    grid = np.concatenate([middle[:1], grid[(grid > middle[0]) & (grid < middle[-1])], middle[-1:]])
    table = np.interp(grid, middle, unique)
    rising = np.concatenate([[True], np.diff(table) > 0])
    return table[rising].tolist(), grid[rising].tolist()
