"""How honest profiles are, by level of the trait: people simulated from the model, whose true traits are known.

Shapes: B people, T traits, J items, D latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.amortise import simulate_people
from model.network import ProfileNetwork

PEOPLE = 40_000
BLOCK = 4_000
LEVELS = (-math.inf, -1.0, 0.0, 1.0, 2.0, math.inf)  # true traits, in sds
HALF_WIDTH = 1.6448536269514722  # sds on either side of a 90 % interval
FEWEST_IN_BAND = 50
RANK_BINS = 20
SEED = 12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Simulated people whose true trait lies in [low, high); None where too few do.

    `coverage` of 90 % intervals with its standard error; `bias` is posterior mean less truth, `error` the root mean
    square of that, in trait sds.
    """

    low: float
    high: float
    people: int
    coverage: float | None
    coverage_se: float | None
    bias: float | None
    error: float | None


@dataclass(frozen=True)
class Calibration:
    """`ranks` counts true values by their place in their own posterior, in RANK_BINS equal parts from 0 to 1.

    `deviation` is the largest gap between those places' distribution function and the uniform one; `reliability` the
    squared correlation of posterior means with the truth.
    """

    trait: str
    whole: Band
    bands: list[Band]
    ranks: list[int]
    deviation: float
    reliability: float


@torch.no_grad()
def calibrate(network: ProfileNetwork, patterns: Tensor, people: int = PEOPLE) -> list[Calibration]:
    """For each trait, from simulated people; `patterns` (B, J) say who answered what, and somebody must have.

    Simulation-based calibration (Talts, Betancourt, Simpson, Vehtari & Gelman 2018): a truth's place in its posterior
    is uniform where posteriors are right. The posterior is normal, so the place is exact and needs no draws.
    """
    answered = patterns[patterns.any(dim=1)]
    generator = torch.Generator().manual_seed(SEED)
    truth, mean, sd = [], [], []
    for start in range(0, people, BLOCK):
        count = min(BLOCK, people - start)
        # Nobody is thinned: the patterns are those of real people, as they are.
        latents, categories = simulate_people(network, answered, count, generator, thinned=0.0)
        posterior = network.posterior(categories)
        truth.append(latents[:, : network.traits])
        mean.append(posterior.mean[:, : network.traits])
        sd.append(posterior.sd()[:, : network.traits])
    theta, middle, spread = (torch.cat(parts).double().numpy() for parts in (truth, mean, sd))
    return [
        calibrate_trait(trait.key, theta[:, number], middle[:, number], spread[:, number])
        for number, trait in enumerate(network.spec.traits)
    ]


def calibrate_trait(trait: str, truth: Floats, mean: Floats, sd: Floats) -> Calibration:
    """From true values, posterior means and posterior sds of people (B each)."""
    pairs = list(pairwise(LEVELS))
    places = torch.special.ndtr(torch.from_numpy((truth - mean) / sd)).numpy()
    ranks = np.bincount((places * RANK_BINS).astype(np.int64).clip(max=RANK_BINS - 1), minlength=RANK_BINS)
    return Calibration(
        trait=trait,
        whole=measure_band(-math.inf, math.inf, truth, mean, sd),
        bands=[measure_band(low, high, truth, mean, sd) for low, high in pairs],
        ranks=ranks.tolist(),
        deviation=measure_deviation(places),
        reliability=float(np.corrcoef(truth, mean)[0, 1] ** 2),
    )


def measure_band(low: float, high: float, truth: Floats, mean: Floats, sd: Floats) -> Band:
    inside = (truth >= low) & (truth < high)
    people = int(inside.sum())
    if people < FEWEST_IN_BAND:
        return Band(low, high, people, None, None, None, None)
    errors = (mean - truth)[inside]
    coverage = float((np.abs(errors) <= HALF_WIDTH * sd[inside]).mean())
    se = math.sqrt(coverage * (1 - coverage) / people)
    return Band(low, high, people, coverage, se, float(errors.mean()), float(np.sqrt(np.square(errors).mean())))


def measure_deviation(places: Floats) -> float:
    """Kolmogorov-Smirnov distance (0 to 1) of places from the uniform distribution."""
    ordered = np.sort(places)
    above = np.arange(1, len(ordered) + 1) / len(ordered) - ordered
    below = ordered - np.arange(len(ordered)) / len(ordered)
    return float(max(above.max(), below.max()))
