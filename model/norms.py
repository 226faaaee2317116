"""Norms: where a profile stands in the reference population, as percentiles.

Two distributions are frozen for each trait. A profile's own rank is among the reference population's profiles: half of
them are below the 50th percentile. Its interval is of the person's true rank, so its ends are ranked among true traits,
which lie further apart than profiles do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
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
TRAIT_GRID = torch.linspace(-6.0, 8.0, 701)  # trait sds
BLOCK = 4096
CELLS = 8192  # of a table's span
FEWEST_TO_COMPARE = 200  # people who answered about as many items
MOST_PEOPLE = 1 << 20

Floats = npt.NDArray[np.float32]
Block = tuple[Floats, Floats, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Table:
    """Values that rise strictly, and their percentiles (0 to 100)."""

    values: list[float]
    percentiles: list[float]

    def rank(self, values: Floats) -> Floats:
        """Percentiles of values, on straight lines between the table's; beyond its ends, the end's."""
        lines = self._lines
        within = values.astype(np.float64).clip(self.values[0], self.values[-1])
        # What is no number stays none: fmax lets it look for a line, at least.
        cell = np.fmax((within - self.values[0]) * lines.cells, 0.0).astype(np.int32)
        place = lines.first[cell]
        for _ in range(lines.most):
            place += within >= lines.following[place]
        return np.asarray(lines.slope[place] * (within - lines.start[place]) + lines.low[place], dtype=np.float32)

    @cached_property
    def _lines(self) -> "_Lines":
        return _Lines.of(np.array(self.values), np.array(self.percentiles))

    def to_json(self) -> dict[str, list[float]]:
        return {"values": self.values, "percentiles": self.percentiles}


@dataclass(frozen=True)
class _Lines:
    """A table's lines, and for narrow cells of its span the `first` line that runs through each: `most` later ones may.

    Found so, a value's line costs a third of a search among all of them.
    """

    start: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    slope: npt.NDArray[np.float64]
    following: npt.NDArray[np.float64]
    first: npt.NDArray[np.int32]
    cells: float  # to a unit of the values
    most: int

    @staticmethod
    def of(values: npt.NDArray[np.float64], percentiles: npt.NDArray[np.float64]) -> "_Lines":
        if len(values) == 1:  # everybody alike
            values, percentiles = np.append(values, values[0] + 1.0), np.append(percentiles, percentiles[0])
        cells = CELLS / (values[-1] - values[0])
        edges = values[0] + np.arange(CELLS + 2) / cells
        # A cell more on either side: its number is rounded.
        first, last = (
            np.searchsorted(values, edges + side / cells, side="right").clip(1, len(values) - 1) - 1 for side in (-1, 2)
        )
        return _Lines(
            start=values[:-1],
            low=percentiles[:-1],
            slope=np.diff(percentiles) / np.diff(values),
            following=np.append(values[1:-1], np.inf),
            first=first.astype(np.int32),
            cells=cells,
            most=int((last - first).max()),
        )


@dataclass(frozen=True)
class Norms:
    """Tables of profile means and of the trait itself for each trait, and of person fit by the number of answers.

    `fits` rise by the fewest answers that they are for.
    """

    profiles: dict[str, Table]
    traits: dict[str, Table]
    fits: list[tuple[int, Table]]

    def rank(self, trait: str, means: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
        """Percentiles of profiles by their posterior means, and of their intervals' ends, which hold them."""
        middle = self.profiles[trait].rank(means)
        below, above = (self.traits[trait].rank(end) for end in (low, high))
        return middle, np.minimum(below, middle), np.maximum(above, middle)

    def rank_fit(self, fit: Floats, answered: npt.NDArray[np.int16]) -> Floats:
        """Percentiles of person fit among people who answered about as many items; low = unusual."""
        place = np.searchsorted([fewest for fewest, _ in self.fits], answered, side="right") - 1
        ranks = np.zeros(len(fit), dtype=np.float32)
        for position, (_, table) in enumerate(self.fits):
            chosen = place.clip(0) == position
            ranks[chosen] = table.rank(fit[chosen])
        return ranks

    def to_json(self) -> dict[str, Any]:
        return {
            "profiles": {key: table.to_json() for key, table in self.profiles.items()},
            "traits": {key: table.to_json() for key, table in self.traits.items()},
            "fits": [{"fewest_answers": fewest, **table.to_json()} for fewest, table in self.fits],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Norms":
        fits = [(part["fewest_answers"], Table(part["values"], part["percentiles"])) for part in data["fits"]]
        profiles, traits = (
            {key: Table(**table) for key, table in data[part].items()} for part in ("profiles", "traits")
        )
        return Norms(profiles, traits, fits)


@torch.no_grad()
def make_norms(network: ProfileNetwork, paths: Sequence[Path], weight_column: str | None) -> Norms:
    """Norms of the people in the files who answered anything, held-out fold included, survey-weighted.

    Of more than MOST_PEOPLE these many: a percentile is known to a twentieth of a point then.
    """
    blocks, weights, normed = [], [], 0
    for people in iterate_people(paths, network.spec, weight_column):
        answered = (people.codes != MISSING).any(axis=1)
        weights.append(people.weights[answered])
        codes = torch.split(torch.from_numpy(people.codes[answered]), BLOCK)
        blocks += [describe_block(network, network.categories(block)) for block in codes]
        normed += int(answered.sum())
        if normed >= MOST_PEOPLE:
            break
    return tabulate_norms(network, blocks, np.concatenate(weights))


@torch.no_grad()
def describe_block(network: ProfileNetwork, categories: torch.Tensor) -> Block:
    """Profile means (B, T), person fit (B) and numbers of answers (B) of people's categories (B, J)."""
    posterior = network.posterior(categories)
    fit = network.person_fit(categories, posterior)
    return posterior.mean[:, : network.traits].numpy(), fit.numpy(), (categories >= 0).sum(dim=1).numpy()


def tabulate_norms(network: ProfileNetwork, blocks: Sequence[Block], weights: npt.NDArray[np.float64]) -> Norms:
    """Norms of people as `describe_block` tells of them, and their weights."""
    means, fits, counts = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    profiles = {trait.key: tabulate(means[:, place], weights) for place, trait in enumerate(network.spec.traits)}
    traits = {trait.key: tabulate_trait(network, place) for place, trait in enumerate(network.spec.traits)}
    return Norms(profiles, traits, tabulate_fits(fits, counts, weights))


def tabulate_trait(network: ProfileNetwork, trait: int) -> Table:
    """The distribution function of a trait in the network's population: a mixture of normals."""
    log_mass, means, factors = network.prior.components()
    sd = factors[:, trait].norm(dim=-1)[:, None]
    below = torch.special.ndtr((TRAIT_GRID - means[:, trait, None]) / sd)
    percentiles = (100 * log_mass.exp() @ below).double().numpy()
    rising = np.concatenate([[True], np.diff(percentiles) > 0])
    return Table(TRAIT_GRID.double().numpy()[rising].tolist(), percentiles[rising].tolist())


def tabulate_fits(
    fits: Floats, counts: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> list[tuple[int, Table]]:
    """A table for each number of answers; from the top, numbers that too few people have join the next lower one.

    What is left at the bottom joins the lowest table: among a handful of people a rank says nothing.
    """
    starts: list[int] = []
    above = int(counts.max()) + 1
    for fewest in sorted(set(counts.tolist()), reverse=True):
        if ((counts >= fewest) & (counts < above) & (weights > 0)).sum() >= FEWEST_TO_COMPARE:
            starts.insert(0, fewest)
            above = fewest
    starts[:1] = [int(counts.min())]
    tables = []
    for fewest, end in pairwise([*starts, int(counts.max()) + 1]):
        chosen = (counts >= fewest) & (counts < end)
        tables.append((fewest, tabulate(fits[chosen], weights[chosen])))
    return tables


def tabulate(values: Floats, weights: npt.NDArray[np.float64]) -> Table:
    """Weighted mid-percentiles of values, every STEP points and at both ends.

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
    return Table(table[rising].tolist(), grid[rising].tolist())
