"""Link a later model to the reference population: same items, same unit, and how sure that is.

Later models of a series keep the reference's item parameters (fixed parameter calibration, Kim 2006) and the shape of
its population, and learn where their own population stands. Whether the items still behave alike is measured by each
item's shift: how far its location on the trait would have to move to foretell tonight's answers best from people's
other answers. An item that has drifted is no anchor any more: it gets a location of its own.
Shapes: B people, J items, T traits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.likelihood import log_between
from model.network import ProfileNetwork
from model.spec import MISSING, FeatureSpec
from model.unit import place_population

MOST_PEOPLE = 4096
DRAWS = 32
GRID = torch.linspace(-1.5, 1.5, 25)  # trait sds
LARGEST_DRIFT = 0.3  # trait sds: an item that has moved further is no anchor
FEWEST_ANSWERS = 200  # fewer do not tell where an item stands
ROUNDS = 4  # a drifted item bears on where the population stands, and that on how far it has drifted


@dataclass(frozen=True)
class Link:
    """`errors` (trait: sd of a mean's unit) enter the variance of a change; `drifted` items are no anchors.

    `broken` says for each trait that cannot be linked why; empty where the unit holds.
    """

    errors: dict[str, float]
    drifted: list[str]
    broken: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"errors": self.errors, "drifted": self.drifted, "broken": self.broken}


def move_to(
    network: ProfileNetwork,
    categories: Tensor,
    weights: Tensor,
    *,
    reference: Mapping[str, float],
    moved: Mapping[str, float],
) -> tuple[Link, dict[str, float]]:
    """Bring a champion to tonight's population, in place; returns the link and how far items have moved in all.

    `reference` are the items' shifts in the reference population, `moved` how far the champion's drifted items stand
    from their locations there (trait sds); both count when an item is judged. `categories` (B, J), `weights` (B).
    """
    moved = dict(moved)
    for last in range(ROUNDS):
        place_population(network, categories, weights)
        now = measure_shifts(network, categories, weights)
        found = link(network.spec, reference, {key: shift + moved.get(key, 0.0) for key, shift in now.items()})
        if found.broken or not found.drifted or last == ROUNDS - 1:
            break
        steps = {key: now[key] - reference[key] for key in found.drifted}
        network.items.move(steps)
        moved |= {key: moved.get(key, 0.0) + step for key, step in steps.items()}
    return found, moved


@torch.no_grad()
def measure_shifts(network: ProfileNetwork, categories: Tensor, weights: Tensor) -> dict[str, float]:
    """Each trait item's shift in trait sds, by maximum likelihood on a grid; items that too few answered are left out.

    A person's latents are inferred without the item itself, or the answer would excuse itself. `categories` (B, J),
    `weights` (B).
    """
    categories, weights = categories[: 2 * MOST_PEOPLE], weights[: 2 * MOST_PEOPLE].float()
    shifts: dict[str, float] = {}
    slopes = network.items.discriminations().sum(dim=0)
    for position, item in enumerate(network.spec.items):
        rows = torch.nonzero((categories[:, position] >= 0) & (weights > 0))[:MOST_PEOPLE, 0]
        if item.trait is None or len(rows) < FEWEST_ANSWERS:
            continue
        answers = torch.full_like(categories[rows], MISSING)
        answers[:, position] = categories[rows, position]
        others = categories[rows].clone()
        others[:, position] = MISSING
        inferred = network.infer(others, DRAWS)
        location, spread = network.place(inferred.latents)
        location, spread = location[..., position], None if spread is None else spread[..., position]
        log_mass = inferred.log_weights.log_softmax(dim=0)
        edges = [part[:, position] for part in network.items.gather_edges(answers)]
        costs = torch.stack(
            [
                torch.logsumexp(log_mass + log_between(location - slopes[position] * step, spread, *edges), dim=0)
                @ weights[rows]
                for step in GRID
            ]
        )
        shifts[item.key] = _find_peak(costs)
    return shifts


def _find_peak(values: Tensor) -> float:
    """Where the parabola through the highest grid value and its neighbours peaks."""
    top = int(values.argmax().clamp(1, len(GRID) - 2))
    left, middle, right = values[top - 1 : top + 2].tolist()
    bend = left - 2 * middle + right
    step = float(GRID[1] - GRID[0])
    offset = 0.0 if bend >= 0 else 0.5 * step * (left - right) / bend
    return float(GRID[top]) + max(-step, min(step, offset))


def link(spec: FeatureSpec, reference: Mapping[str, float], now: Mapping[str, float]) -> Link:
    """Compare items' shifts with those in the reference population.

    Linking error of a trait, as in PISA (Monseur & Berezner 2007): sqrt(sum (d_j - mean d)^2 / (n (n - 1))) over its n
    anchors. A trait needs half of its items, and two at least, as anchors.
    """
    errors, drifted, broken = {}, [], []
    for trait in spec.traits:
        moved = {key: now[key] - reference[key] for key in trait.items if key in now and key in reference}
        centre = float(torch.tensor(list(moved.values())).median()) if moved else 0.0
        anchors = [shift for shift in moved.values() if abs(shift - centre) <= LARGEST_DRIFT]
        drifted += [key for key, shift in moved.items() if abs(shift - centre) > LARGEST_DRIFT]
        if len(anchors) < max(2, math.ceil(len(trait.items) / 2)):
            broken.append(f"trait {trait.key}: only {len(anchors)} of {len(trait.items)} items still behave as before")
            continue
        mean = sum(anchors) / len(anchors)
        squares = sum((shift - mean) ** 2 for shift in anchors)
        errors[trait.key] = math.sqrt(squares / (len(anchors) * (len(anchors) - 1)))
    return Link(errors, drifted, broken)
