"""Whether a new model may come into force: no cohort served worse, its sds honest, its unit the reference's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.amortise import simulate_people
from model.calibration import measure_deviation
from model.network import ProfileNetwork
from model.validation import HiddenCells

WORST_LOSS = 0.01  # nats per answer that a new model may lose against the champion
SIGNIFICANCE = 0.05  # of all cohorts together
FEWEST_IN_COHORT = 50
COVERAGE, COVERAGE_TOLERANCE = 0.90, 0.03
LEVELS = (0.0, 1 / 3, 2 / 3, 0.9, 1.0)  # quantiles of the trait between which coverage is looked at
NOISE = 4.0  # standard errors that sampling may add to a tolerance
SIMULATED = 4096
LARGEST_RANK_DEVIATION = 0.06  # of the ranks' distribution from the uniform, at any point
BLOCK = 2048

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Paired difference per hidden answer in nats, new less old; `p` is one-sided, for a loss above WORST_LOSS."""

    group: str
    people: int
    difference: float
    se: float
    p: float


def compare_costs(new: Tensor, old: Tensor, cells: HiddenCells, groups: Mapping[str, Floats]) -> list[Comparison]:
    """For everybody and each group (name: 0/1 by row of `cells`); groups of too few people are left out.

    A ratio of weighted sums, its se by linearisation over people.
    """
    weights = cells.weights.double().numpy()
    answers = (cells.hidden >= 0).sum(dim=1).double().numpy()
    differences = (new - old).double().numpy()
    found = []
    for name, member in {"all": np.ones(len(weights)), **groups}.items():
        weight = weights * member
        total = float((weight * answers).sum())
        people = len(np.unique(np.flatnonzero(weight * answers > 0) % cells.people))
        if total <= 0 or (name != "all" and people < FEWEST_IN_COHORT):
            continue
        ratio = float((weight * differences).sum()) / total
        by_person = (weight * (differences - ratio * answers)).reshape(-1, cells.people).sum(axis=0)
        se = float(np.sqrt(np.square(by_person).sum())) / total
        p = 0.5 * math.erfc((ratio - WORST_LOSS) / se / math.sqrt(2)) if se > 0 else float(ratio <= WORST_LOSS)
        found.append(Comparison(name, people, ratio, se, p))
    return found


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = np.empty(len(order)), 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = running
    return [float(p) for p in adjusted]


def find_losses(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for everybody or each group for whom the new model is worse by more than WORST_LOSS."""
    reasons = []
    for comparison, p in zip(comparisons, adjust_holm([c.p for c in comparisons]), strict=True):
        worse = not comparison.difference <= WORST_LOSS
        if worse and (comparison.group == "all" or not p >= SIGNIFICANCE):
            reasons.append(
                f"worse than the champion by more than {WORST_LOSS} nats per hidden answer for {comparison.group} "
                f"({comparison.difference:.4f}, adjusted p {p:.4f})"
            )
    return reasons


@torch.no_grad()
def cover_answers(network: ProfileNetwork, cells: HiddenCells) -> list[dict[str, Any]]:
    """How many hidden answers lie in the middle 90 % of their predictive distribution: all, and by level of the trait.

    Answers are discrete, so where an answer lies is drawn within its category's probability (randomised PIT, Czado,
    Gneiting & Held 2009); under a true model the share is .90 at every level.
    """
    places, traits, people, weights = [], [], [], []
    loads = network.items.loads.argmax(dim=0)
    generator = torch.Generator().manual_seed(2)
    for start in range(0, len(cells.seen), BLOCK):
        seen, hidden = cells.seen[start : start + BLOCK], cells.hidden[start : start + BLOCK]
        probability = network.predict(seen, 32)
        row, item = torch.nonzero(hidden >= 0, as_tuple=True)
        cell = probability[row, item]
        answer = hidden[row, item][:, None]
        below = (cell.cumsum(dim=1) - cell).gather(1, answer)[:, 0]
        places.append(below + torch.rand(len(row), generator=generator) * cell.gather(1, answer)[:, 0])
        traits.append(network.posterior(seen).mean[row, loads[item]])
        people.append((row + start) % cells.people)
        weights.append(cells.weights[start : start + BLOCK][row])
    place, trait, person, weight = (torch.cat(parts).double().numpy() for parts in (places, traits, people, weights))
    inside = (np.abs(place - 0.5) <= COVERAGE / 2).astype(np.float64)
    edges = np.quantile(trait, LEVELS)
    bands = [("all", np.ones(len(trait), bool))]
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        band = (trait >= low) & ((trait <= high) if last else (trait < high))
        bands.append((f"trait quantiles {LEVELS[number]:.2f}-{LEVELS[number + 1]:.2f}", band))
    return [
        {"level": name, "answers": int(band.sum()), **_share(inside[band], weight[band], person[band])}
        for name, band in bands
        if (weight[band] > 0).any()
    ]


def _share(inside: Floats, weight: Floats, person: Floats) -> dict[str, float]:
    """Weighted share and its se, people as clusters; at least that of independent answers of which COVERAGE lie inside.

    A few answers that all lie inside show no variation, and still prove nothing (score rather than Wald test).
    """
    share = float((weight * inside).sum() / weight.sum())
    _, cluster = np.unique(person, return_inverse=True)
    sums = np.bincount(cluster, weight * (inside - share))
    variance = max(float(np.square(sums).sum()), COVERAGE * (1 - COVERAGE) * float(np.square(weight).sum()))
    return {"covered": share, "se": math.sqrt(variance) / float(weight.sum())}


@torch.no_grad()
def place_simulated(network: ProfileNetwork, patterns: Tensor) -> dict[str, Floats]:
    """For each trait, where the true values of people simulated from the model lie in their posteriors (0 to 1)."""
    generator = torch.Generator().manual_seed(3)
    latents, categories = simulate_people(network, patterns, SIMULATED, generator)
    posterior = network.posterior(categories)
    place = torch.special.ndtr((latents - posterior.mean) / posterior.sd())[:, : network.traits].double().numpy()
    return {trait.key: place[:, number] for number, trait in enumerate(network.spec.traits)}


def rank_simulated(places: Mapping[str, Floats]) -> dict[str, float]:
    """Simulation-based calibration (Talts et al. 2018): for each trait, how far the places of `place_simulated` are
    from uniform (Kolmogorov-Smirnov distance, 0 to 1)."""
    return {key: measure_deviation(place) for key, place in places.items()}


def cover_simulated(places: Mapping[str, Floats]) -> dict[str, float]:
    """For each trait, the share of those places that lie in the middle 90 %.

    Hidden answers do not show sds that lie: they are foretold from draws that are weighed by the answers seen.
    """
    return {key: float((np.abs(place - 0.5) <= COVERAGE / 2).mean()) for key, place in places.items()}


def find_miscalibration(
    coverage: Sequence[Mapping[str, Any]], ranks: Mapping[str, float], intervals: Mapping[str, float]
) -> list[str]:
    """A sentence for each level and trait whose intervals say too much or too little."""
    reasons = [
        f"its 90 % predictions cover {band['covered']:.3f} of the hidden answers ({band['level']})"
        for band in coverage
        if not abs(band["covered"] - COVERAGE) <= COVERAGE_TOLERANCE + NOISE * band["se"]
    ]
    reasons += [
        f"its posterior of {key} is not calibrated: ranks deviate from the uniform by {deviation:.3f}"
        for key, deviation in ranks.items()
        if not deviation <= LARGEST_RANK_DEVIATION + 1 / math.sqrt(SIMULATED)
    ]
    chance = NOISE * math.sqrt(COVERAGE * (1 - COVERAGE) / SIMULATED)
    reasons += [
        f"its 90 % intervals of {key} cover {covered:.3f} of simulated people"
        for key, covered in intervals.items()
        if not abs(covered - COVERAGE) <= COVERAGE_TOLERANCE + chance
    ]
    return reasons
