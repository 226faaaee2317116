"""What people would have answered to the items that they skipped: expected scores, and totals at or above a cut.

Only skipped answers are reckoned with, so the cost is that of what is missing. Shapes: B people, J items, K the most
categories of an item, S draws, P skipped answers of the people, W the values that one score can take, V those of a sum
of skipped scores, O people who skipped an item of a scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network import ProfileNetwork
from model.spec import ScaleSpec
from model.weighing import Placed

# The last values of a tensor are computed apart from the others, with other last bits: they are nobody's.
PADDING = 32
MOST_AT_ONCE = 2**17  # probabilities of sums: they fit into a cache, and few wait for who skipped most


@dataclass(frozen=True)
class Outlook:
    """Score of each item (B, J), as answered or else expected; by scale the probability (B) to reach its cut."""

    scores: Tensor
    cuts: dict[str, Tensor]


def foretell(network: ProfileNetwork, placed: Placed, masses: Tensor, categories: Tensor) -> Outlook:
    """Given draws of people with the answers of `categories` (B, J), and the draws' masses (S, B); B is any number.

    Items are independent given the latents, so a total's distribution is a convolution for each draw, and the mean
    of those over the draws' masses. Scores and totals are in the scales' own direction.
    """
    person, item = torch.nonzero(categories < 0, as_tuple=True)
    scores = network.items.scores(categories)
    cut = [scale for scale in network.spec.scales if scale.cut]
    reached = {scale.key: _passes(scale, _total(network, scale, scores)).float() for scale in cut}
    given = _categorise(network, placed, person, item)
    mass = masses[:, person]
    mean = _average(given, mass)
    scores[person, item] = _sum_planes(mean * network.items.category_scores[item].T)
    lowest = torch.tensor([float(min(item.levels)) for item in network.spec.items])
    floor = torch.where(categories < 0, lowest, scores)
    steps = (network.items.category_scores - lowest[:, None]).long()
    for scale in cut:
        members = _members(network, scale)
        mine = torch.nonzero(torch.isin(item, torch.tensor(members)))[:, 0]
        width = int(steps[members].max()) + 1
        for owners, sums in _Skips(mine, person[mine], steps[item].T, width).add_up(given, mean, mass):
            totals = (floor[owners][:, members].sum(dim=1) + torch.arange(len(sums))[:, None]) * scale.multiply
            reached[scale.key][owners] = _sum_planes(sums * _passes(scale, totals)).clamp(0, 1)
    return Outlook(scores, reached)


def _categorise(network: ProfileNetwork, placed: Placed, person: Tensor, item: Tensor) -> Tensor:
    """Probability of each category (K, S, P) of answers that people skipped; zero beyond an item's last."""
    rows, columns = (torch.cat([part, part.new_zeros(PADDING)]) for part in (person, item))
    location, spread = placed.of(rows, columns)
    edges = network.items.edges()[columns].T.contiguous()
    logits = edges[:, None] - location
    below = torch.sigmoid(logits if spread is None else logits * spread)[..., : len(person)]
    return below[1:] - below[:-1]


@dataclass(frozen=True)
class _Skips:
    """Which of all skipped answers are `mine`, one scale's, in the order of their `person`; what each category of all
    answers adds to the item's lowest score, `steps` (K, P), here one of `width` (W) values."""

    mine: Tensor
    person: Tensor
    steps: Tensor
    width: int

    def add_up(self, given: Tensor, mean: Tensor, mass: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """People (O), and the distribution (V, O) of the sum of what their answers add, some at a time.

        Of all answers' categories' probabilities by draw, `given` (K, S, P), their mean (K, P), and the masses (S, P).
        """
        if not len(self.person):
            return
        people, counts = torch.unique(self.person, return_counts=True)
        firsts = counts.cumsum(0) - counts
        once = firsts[counts == 1]
        yield people[counts == 1], self._by_step(mean, once)
        # Who skipped most comes first: with every answer that is added fewer are left.
        order = torch.argsort(counts, descending=True, stable=True)[: len(people) - len(once)]
        at_once = max(1, MOST_AT_ONCE // ((int(counts.max()) * (self.width - 1) + 1) * len(mass)))
        for chosen in torch.split(order, at_once) if len(order) else ():
            skipped, first = counts[chosen], firsts[chosen]
            sums = torch.zeros(int(skipped[0]) * (self.width - 1) + 1, len(mass), len(chosen))
            sums[: self.width], values = self._by_step(given, first), self.width
            for answer in range(1, int(skipped[0])):
                left = int((skipped > answer).sum())
                added = self._by_step(given, first[:left] + answer)
                # Products, then sums: at a tensor's end a fused step would have other last bits.
                moved = torch.zeros(values + self.width - 1, len(mass), left)
                for step in range(self.width):
                    moved[step : step + values] += sums[:values, :, :left] * added[step]
                values += self.width - 1
                sums[:values, :, :left] = moved
            yield people[chosen], _average(sums, mass[:, self.mine[first]])

    def _by_step(self, chances: Tensor, answers: Tensor) -> Tensor:
        """Probabilities (W, ..., A) of what A of `mine` add, from those of all answers' categories (K, ..., P)."""
        chosen = chances[..., self.mine[answers]]
        steps = self.steps[:, self.mine[answers]].view(len(chosen), *(1,) * (chosen.dim() - 2), -1)
        return torch.zeros(self.width, *chosen.shape[1:]).scatter_add_(0, steps.expand_as(chosen), chosen)


def _average(values: Tensor, masses: Tensor) -> Tensor:
    """Mean (..., P) of draws (..., S, P) by their masses (S, P)."""
    return _sum_planes((values * masses).movedim(-2, 0))


def _sum_planes(values: Tensor) -> Tensor:
    """Sum over the first dimension, one after another: the same bits whatever stands beside."""
    total = torch.zeros(values.shape[1:])
    for value in values:
        total += value
    return total


def _total(network: ProfileNetwork, scale: ScaleSpec, scores: Tensor) -> Tensor:
    return scores[:, _members(network, scale)].sum(dim=1) * scale.multiply


def _members(network: ProfileNetwork, scale: ScaleSpec) -> list[int]:
    return [network.spec.columns.index(key) for key in scale.items]


def _passes(scale: ScaleSpec, total: Tensor) -> Tensor:
    assert scale.cut is not None
    bound = float(scale.cut[2:])
    return total >= bound if scale.cut.startswith(">=") else total <= bound
