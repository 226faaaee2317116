"""What people would have answered to the items that they skipped: expected scores, and totals at or above a cut.

Only skipped items are reckoned with, so the cost is that of what is missing. Shapes: B people, J items, K the most
categories of an item, S draws, P skipped answers of the people, W the values that one score can take, V those of a sum
of skipped scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network import Draws, ProfileNetwork
from model.spec import ScaleSpec

BLOCK = 512
PADDING = 32  # skipped answers


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
    skipped = categories < 0
    scores = network.items.scores(categories)
    cut = [scale for scale in network.spec.scales if scale.cut]
    reached = {scale.key: _passes(scale, _total(network, scale, scores)).float() for scale in cut}
    counts = skipped.sum(dim=1)
    # People who skipped as many stand together: a block costs what its worst person does.
    order = torch.argsort(counts, stable=True)
    open_rows = order[int((counts == 0).sum()) :]
    for rows in torch.split(open_rows, BLOCK) if len(open_rows) else ():
        # Always one shape: a person's arithmetic must not depend on how many others skipped an item.
        padded = torch.cat([rows, rows[:1].expand(BLOCK - len(rows))])
        part = Draws(drawn.latents[:, padded], drawn.log_weights[:, padded])
        expected, probabilities = _foretell_block(network, part, categories[padded], scores[padded], cut)
        scores[rows] = expected[: len(rows)]
        for scale in cut:
            reached[scale.key][rows] = probabilities[scale.key][: len(rows)]
    return Outlook(scores, reached)


def _foretell_block(
    network: ProfileNetwork, drawn: Draws, categories: Tensor, scores: Tensor, cut: Sequence[ScaleSpec]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores (B, J), expected where there is no answer, and probabilities (B) of reaching the cuts."""
    items, masses = network.items, drawn.masses()
    location, spread = network.place(drawn.latents)
    person, item = torch.nonzero(categories < 0, as_tuple=True)
    # The last values of a tensor are computed apart from the others, with other last bits: they are nobody's.
    rows, columns = (torch.cat([part, part[:1].expand(PADDING)]) for part in (person, item))
    logits = items.edges()[columns] - location[:, rows, columns][..., None]
    below = torch.sigmoid(logits if spread is None else spread[:, rows, columns][..., None] * logits)
    given = (below[..., 1:] - below[..., :-1])[:, : len(person)]
    expected = scores.clone()
    expected[person, item] = _average((given * items.category_scores[item]).sum(dim=-1), masses[:, person])
    lowest = torch.tensor([float(min(item.levels)) for item in network.spec.items])
    steps = (items.category_scores - lowest[:, None]).long()
    # By what a score adds to its lowest, and last an answer that is known: it adds nothing.
    by_step = torch.zeros(int(steps.max()) + 1, len(masses), len(person) + 1)
    by_step[:, :, :-1].scatter_add_(0, steps[item].T[:, None].expand(-1, len(masses), -1), given.permute(2, 0, 1))
    by_step[0, :, -1] = 1.0
    known = torch.where(categories < 0, lowest, scores)
    number = torch.full(categories.shape, len(person))
    number[person, item] = torch.arange(len(person))
    reached = {}
    for scale in cut:
        mass = _add_up(by_step, number[:, _members(network, scale)])
        totals = (_sum_members(network, scale, known) + torch.arange(len(mass))[:, None]) * scale.multiply
        shares = (mass * _passes(scale, totals)[:, None]).sum(dim=0)
        some = (categories[:, _members(network, scale)] < 0).any(dim=1)
        certain = _passes(scale, _total(network, scale, scores)).float()
        reached[scale.key] = torch.where(some, _average(shares, masses).clamp(0, 1), certain)
    return expected, reached


def _add_up(by_step: Tensor, number: Tensor) -> Tensor:
    """Distribution (V, S, B) of a sum, less its lowest value, from those of all skipped answers (W, S, P + 1).

    `number` (B, members) says which of them is a person's, P where the answer is known.
    """
    width, draws, known = len(by_step), by_step.shape[1], by_step.shape[2] - 1
    number = number.sort(dim=1).values  # skipped ones come first
    most = int((number < known).sum(dim=1).max())
    # The values of the sum come first, so that a step moves whole planes.
    mass = torch.ones(1, draws, len(number))
    for slot in range(most):
        moved = torch.zeros(len(mass) + width - 1, draws, len(number))
        for step in range(width):
            moved[step : step + len(mass)].addcmul_(by_step[step][:, number[:, slot]], mass)
        mass = moved
    return mass


def _average(values: Tensor, masses: Tensor) -> Tensor:
    """Mean (...) of draws (S, ...) by their masses, one after another: the same bits whatever stands beside."""
    total = torch.zeros(values.shape[1:])
    for value, mass in zip(values, masses, strict=True):
        total.addcmul_(value, mass)
    return total


def _total(network: ProfileNetwork, scale: ScaleSpec, scores: Tensor) -> Tensor:
    return _sum_members(network, scale, scores) * scale.multiply


def _sum_members(network: ProfileNetwork, scale: ScaleSpec, values: Tensor) -> Tensor:
    return values[:, _members(network, scale)].sum(dim=1)


def _members(network: ProfileNetwork, scale: ScaleSpec) -> list[int]:
    return [network.spec.columns.index(key) for key in scale.items]


def _passes(scale: ScaleSpec, total: Tensor) -> Tensor:
    assert scale.cut is not None
    bound = float(scale.cut[2:])
    return total >= bound if scale.cut.startswith(">=") else total <= bound
