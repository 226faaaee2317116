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
from model.design import Design
from model.fairness import FEWEST_IN_COHORT, judge_excess
from model.multiplicity import SIGNIFICANCE, adjust_holm
from model.network import ProfileNetwork
from model.predicting import COVERAGE, Foretold
from model.validation import HiddenCells

WORST_LOSS = 0.01  # nats per answer that a new model may lose against the champion
COVERAGE_TOLERANCE = 0.03
LEVELS = (0.0, 1 / 3, 2 / 3, 0.9, 1.0)  # quantiles of the trait between which coverage is looked at
NOISE = 4.0  # standard errors that sampling may add to a tolerance
SIMULATED = 4096
LARGEST_RANK_DEVIATION = 0.06  # of the ranks' distribution from the uniform, at any point

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """Paired difference per hidden answer in nats, new less old; `p` is one-sided, for a loss above WORST_LOSS."""

    group: str
    people: int
    difference: float
    se: float
    p: float


def compare_costs(
    new: Tensor, old: Tensor, cells: HiddenCells, groups: Mapping[str, Members], design: Design
) -> list[Comparison]:
    """For everybody and each group (name: members among the people); groups of too few people are left out.

    `new` and `old` are costs by row of `cells`. A ratio of weighted sums, its se by linearisation over the `design`.
    """
    answers, differences = cells.sum_rounds((cells.hidden >= 0).sum(dim=1)), cells.sum_rounds(new - old)
    found = []
    for name, member in {"all": np.ones(cells.people, dtype=bool), **groups}.items():
        people = int((member & (answers > 0) & (design.weights > 0)).sum())
        if people and (name == "all" or people >= FEWEST_IN_COHORT):
            ratio = design.estimate_ratio(differences * member, answers * member)
            p = judge_excess(ratio.value, WORST_LOSS, ratio.se, ratio.df)
            found.append(Comparison(name, people, ratio.value, ratio.se, p))
    return found


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


def cover_answers(foretold: Foretold) -> list[dict[str, Any]]:
    """How many hidden answers lie in the middle 90 % of their predictive distribution: all, and by level of the trait.

    Under a true model the share is .90 at every level.
    """
    place, inside, weight, person = foretold.trait, foretold.inside, foretold.weight, foretold.person
    known = place[~np.isnan(place)]  # of items that have a trait
    edges = np.quantile(known, LEVELS) if len(known) else np.empty(0)
    bands = [("all", np.ones(len(place), bool))]
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        band = (place >= low) & ((place <= high) if last else (place < high))
        bands.append((f"trait quantiles {LEVELS[number]:.2f}-{LEVELS[number + 1]:.2f}", band))
    return [
        {"level": name, "answers": int(band.sum()), **_share(inside[band], weight[band], person[band])}
        for name, band in bands
        if (weight[band] > 0).any()
    ]


def _share(inside: Floats, weight: Floats, person: Integers) -> dict[str, float]:
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
