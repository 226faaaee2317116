"""What people would have answered to the items that they skipped: expected scores, and totals at or above a cut.

Shapes: B people, J items, K the most categories of an item, S draws, V values that a scale's sum can take.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network import Draws, ProfileNetwork
from model.spec import ScaleSpec

BLOCK = 512
DRAWS_AT_ONCE = 4


@dataclass(frozen=True)
class Outlook:
    """Score of each item (B, J), as answered or else expected; by scale the probability (B) to reach its cut."""

    scores: Tensor
    cuts: dict[str, Tensor]


def foretell(network: ProfileNetwork, drawn: Draws, categories: Tensor) -> Outlook:
    """Given draws of people with the answers of `categories` (B, J); B is any number.

    Items are independent given the latents, so a total's distribution is a convolution for each draw, and the mean
    of those over the draws' masses. Scores and totals are in the scales' own direction.
    """
    answered = categories >= 0
    scores = network.items.scores(categories)
    cut = [scale for scale in network.spec.scales if scale.cut]
    reached = {scale.key: _passes(scale, _total(network, scale, scores)).float() for scale in cut}
    open_rows = torch.nonzero(~answered.all(dim=1))[:, 0]
    for rows in torch.split(open_rows, BLOCK) if len(open_rows) else ():
        # Always one shape: a person's arithmetic must not depend on how many others skipped an item.
        padded = torch.cat([rows, rows[:1].expand(BLOCK - len(rows))])
        part = Draws(drawn.latents[:, padded], drawn.log_weights[:, padded])
        expected, probabilities = _foretell_block(network, part, categories[padded], cut)
        scores[rows] = torch.where(answered[rows], scores[rows], expected[: len(rows)])
        for scale in cut:
            complete = answered[rows][:, _members(network, scale)].all(dim=1)
            found = probabilities[scale.key][: len(rows)].clamp(0, 1)
            reached[scale.key][rows] = torch.where(complete, reached[scale.key][rows], found)
    return Outlook(scores, reached)


def _foretell_block(
    network: ProfileNetwork, drawn: Draws, categories: Tensor, cut: Sequence[ScaleSpec]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Expected scores (B, J) and probabilities (B) of reaching the cuts."""
    masses = drawn.masses()
    location, spread = network.place(drawn.latents)
    scores = torch.zeros(categories.shape)
    reached = {scale.key: torch.zeros(len(categories)) for scale in cut}
    # Some draws at a time, and each of them whole: in the cache, and few operations.
    for part in torch.split(torch.arange(len(masses)), DRAWS_AT_ONCE):
        given = network.items.probabilities(location[part], None if spread is None else spread[part])
        mass = masses[part]
        scores += (mass[..., None] * (given * network.items.category_scores).sum(dim=-1)).sum(dim=0)
        given = _fix_answers(given, categories)
        for scale in cut:
            reached[scale.key] += (mass * _reach_cut(network, scale, given)).sum(dim=0)
    return scores, reached


def _total(network: ProfileNetwork, scale: ScaleSpec, scores: Tensor) -> Tensor:
    return scores[:, _members(network, scale)].sum(dim=1) * scale.multiply


def _members(network: ProfileNetwork, scale: ScaleSpec) -> list[int]:
    return [network.spec.columns.index(key) for key in scale.items]


def _passes(scale: ScaleSpec, total: Tensor) -> Tensor:
    assert scale.cut is not None
    bound = float(scale.cut[2:])
    return total >= bound if scale.cut.startswith(">=") else total <= bound


def _start_sum(network: ProfileNetwork, scale: ScaleSpec) -> int:
    """The lowest sum of a scale's levels."""
    return sum(min(network.spec.items[member].levels) for member in _members(network, scale))


def _fix_answers(probability: Tensor, categories: Tensor) -> Tensor:
    """Category probabilities (S, B, J, K), one for the answer that was given."""
    certain = torch.zeros(probability.shape[1:]).scatter_(-1, categories.clamp(min=0)[..., None], 1.0)
    return torch.where((categories >= 0)[..., None], certain, probability)


def _reach_cut(network: ProfileNetwork, scale: ScaleSpec, given: Tensor) -> Tensor:
    """Probability (S, B) that the total reaches the cut, from category probabilities (S, B, J, K)."""
    members = _members(network, scale)
    levels = [network.spec.items[member].levels for member in members]
    width = sum(max(level) - min(level) for level in levels) + 1
    # The values of the sum come first, so that a step moves whole planes.
    mass = torch.zeros(width, *given.shape[:2])
    mass[0] = 1.0
    reach = 1
    for member, level in zip(members, levels, strict=True):
        moved = torch.zeros_like(mass)
        steps = [int(score) - min(level) for score in network.items.category_scores[member].tolist()]
        for category, step in enumerate(steps[: len(level)]):
            moved[step : step + reach].addcmul_(given[:, :, member, category], mass[:reach])
        mass, reach = moved, reach + max(level) - min(level)
    totals = (torch.arange(width) + _start_sum(network, scale)) * scale.multiply
    return mass[_passes(scale, totals)].sum(dim=0)
