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
from model.spec import FeatureSpec
from model.weighing import Placed

# The last values of a tensor are computed apart from the others, with other last bits: they are nobody's.
PADDING = 32
MOST_AT_ONCE = 2**20  # probabilities of sums: they bound the memory


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
    lowest = torch.tensor([float(min(item.levels)) for item in network.spec.items])
    floor = torch.where(categories < 0, lowest, scores)
    given = _categorise(network, placed, person, item)
    mass = masses[:, person]
    mean = _average(given, mass)
    scores[person, item] = _sum_planes(mean * network.items.category_scores[item].T)
    cuts = _Cuts.of(network.spec)
    known = floor @ cuts.members.T
    reached = cuts.pass_by(known, torch.arange(len(cuts.members))).float()
    # A scale of a person is one of `sums`' owners: the answers to all of them are added up together.
    scale, mine = torch.nonzero(cuts.members[:, item] > 0, as_tuple=True)
    steps = (network.items.category_scores - lowest[:, None]).long()
    skips = _Skips(mine, scale * len(categories) + person[mine], steps[item].T, int(steps.max()) + 1)
    for owners, sums in skips.add_up(given, mean, mass):
        scale, person = owners // len(categories), owners % len(categories)
        passes = cuts.pass_by(known[person, scale] + torch.arange(len(sums))[:, None], scale)
        reached[person, scale] = _sum_planes(sums * passes).clamp(0, 1)
    return Outlook(scores, dict(zip(cuts.keys, reached.unbind(dim=1), strict=True)))


@dataclass(frozen=True)
class _Cuts:
    """The scales with a cut (C): which items are their `members` (C, J), and how their totals pass."""

    keys: list[str]
    members: Tensor
    multiply: Tensor
    bound: Tensor
    upwards: Tensor

    @staticmethod
    def of(spec: FeatureSpec) -> "_Cuts":
        scales = [scale for scale in spec.scales if scale.cut]
        members = [[float(key in scale.items) for key in spec.columns] for scale in scales]
        return _Cuts(
            [scale.key for scale in scales],
            torch.tensor(members).reshape(len(scales), len(spec.items)),
            torch.tensor([float(scale.multiply) for scale in scales]),
            torch.tensor([float((scale.cut or "")[2:]) for scale in scales]),
            torch.tensor([(scale.cut or "").startswith(">=") for scale in scales], dtype=torch.bool),
        )

    def pass_by(self, sums: Tensor, scale: Tensor) -> Tensor:
        """Which sums of scores (..., O), each of a `scale` (O), reach its cut."""
        totals = sums * self.multiply[scale]
        return torch.where(self.upwards[scale], totals >= self.bound[scale], totals <= self.bound[scale])


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
    """Which of all skipped answers are to be added up, `mine`, in the order of their `owner`; what each category of all
    answers adds to its item's lowest score, `steps` (K, P), one of `width` (W) values."""

    mine: Tensor
    owner: Tensor
    steps: Tensor
    width: int

    def add_up(self, given: Tensor, mean: Tensor, mass: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Owners (O), and the distribution (V, O) of the sum of what their answers add, some at a time.

        Of all answers' categories' probabilities by draw, `given` (K, S, P), their mean (K, P), and the masses (S, P).
        """
        if not len(self.owner):
            return
        owners, counts = torch.unique(self.owner, return_counts=True)
        firsts = counts.cumsum(0) - counts
        once = firsts[counts == 1]
        yield owners[counts == 1], self._by_step(mean, once)
        # Who skipped most comes first: with every answer that is added fewer are left.
        order = torch.argsort(counts, descending=True, stable=True)[: len(owners) - len(once)]
        at_once = max(1, MOST_AT_ONCE // ((int(counts.max()) * (self.width - 1) + 1) * len(mass)))
        for chosen in torch.split(order, at_once) if len(order) else ():
            skipped, first = counts[chosen], firsts[chosen]
            left = [int((skipped > answer).sum()) for answer in range(int(skipped[0]))]
            answers = torch.cat([first[:people] + answer for answer, people in enumerate(left)])
            added = torch.split(self._by_step(given, answers), left, dim=-1)
            sums = torch.zeros(len(left) * (self.width - 1) + 1, len(mass), len(chosen))
            sums[: self.width], values = added[0], self.width
            for one, people in zip(added[1:], left[1:], strict=True):
                # Products, then sums: at a tensor's end a fused step would have other last bits.
                moved = torch.zeros(values + self.width - 1, len(mass), people)
                for step in range(self.width):
                    moved[step : step + values] += sums[:values, :, :people] * one[step]
                values += self.width - 1
                sums[:values, :, :people] = moved
            yield owners[chosen], _average(sums, mass[:, self.mine[first]])

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
