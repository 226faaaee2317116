"""Weigh draws for scoring: what `ProfileNetwork.draw` reckons, without gradients, an item at a time.

An item's numbers of all draws and people fit into a core's cache, those of all items do not. Shapes: B people, S draws,
D latents, T traits, J items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.likelihood import GradedItems, log_between
from model.network import Draws, Posterior, ProfileNetwork

TOGETHER = 4  # items whose probabilities are multiplied before the logarithm
LEAST = 1e-30  # of such a product: float32 has no exact numbers below 1e-38
FARTHEST = 80.0  # of a location: what float32 can raise e to; beyond it, products are too small or do not change


@dataclass(frozen=True)
class Placed:
    """Where draws put the items: a location, and a spread or None for 1, as in `GradedItems`.

    An item's slope (J) times its trait's draws, `thetas` (T, S, B), is reckoned when it is asked for: all items'
    together outgrow the cache. `shift` and `spread` (J, S, B) come from the residuals.
    """

    thetas: Tensor
    slope: Tensor
    trait: Tensor
    shift: Tensor | None
    spread: Tensor | None

    def locate(self, item: int) -> Tensor:
        """Location (S, B) of an item."""
        location = self.thetas[self.trait[item]] * self.slope[item]
        return location if self.shift is None else location.add_(self.shift[item])

    def of(self, person: Tensor, item: Tensor) -> tuple[Tensor, Tensor | None]:
        """Location and spread (S, P) of P answers, each of a person to an item."""
        location = self.thetas[self.trait[item], :, person] * self.slope[item, None]
        if self.shift is None or self.spread is None:
            return location.T.contiguous(), None
        location += self.shift[item, :, person]
        return location.T.contiguous(), self.spread[item, :, person].T.contiguous()


@torch.no_grad()
def weigh(network: ProfileNetwork, posterior: Posterior, categories: Tensor, noise: Tensor) -> tuple[Draws, Placed]:
    """`network.draw` of people's answers (B, J) from noise (S, 1, D), and where the draws put the items."""
    mean, factor = posterior.mean.T.contiguous(), posterior.factor.permute(1, 2, 0).contiguous()
    latents = mean[:, None].expand(-1, len(noise), -1).clone()
    for row in range(network.latents):
        for column in range(row + 1):
            latents[row].addcmul_(noise[:, :, column], factor[row, column])
    drawn = latents.permute(1, 2, 0)
    placed = place_items(network, drawn)
    log_q = network.log_density(posterior, noise)
    answers = log_answers(network.items, placed, categories)
    return Draws(drawn, answers + network.prior.log_prob(drawn) - log_q), placed


@torch.no_grad()
def place_items(network: ProfileNetwork, latents: Tensor) -> Placed:
    """The items at latents (S, B, D)."""
    slopes = network.items.discriminations()
    slope, trait = slopes.max(dim=0)
    thetas = latents[:, :, : network.traits].permute(2, 0, 1).contiguous()
    if network.shift is None:
        return Placed(thetas, slope, trait, None, None)
    shift, spread = network.shift(latents[..., network.traits :], slopes)
    return Placed(thetas, slope, trait, shift.permute(2, 0, 1).contiguous(), spread.permute(2, 0, 1).contiguous())


def log_answers(items: GradedItems, placed: Placed, categories: Tensor) -> Tensor:
    """Log probability (S, B) of all of a person's answers (B, J), in nats.

    P(lower < Y <= upper) = sigmoid(above) sigmoid(below) (1 - exp(-(above + below))), see `log_between`: of a few items
    as a product, and only where that is too small for float32 item by item.
    """
    lower, upper = (part.T.contiguous() for part in items.gather_edges(categories))
    log_gap = torch.expm1(lower - upper).neg_().log_()
    total = torch.zeros(placed.thetas.shape[1:])
    rising, falling, both = lower.exp(), (-upper).exp(), (lower - upper).exp().add_(1.0)
    for group in (slice(start, start + TOGETHER) for start in range(0, len(lower), TOGETHER)):
        product = torch.ones_like(total)
        for item in range(len(lower))[group]:
            location = placed.locate(item)
            if placed.spread is None:
                # 1 / sigmoid(x - l) sigmoid(u - x) = 1 + e^(l - u) + e^l / e^x + e^x / e^u: one exponential a draw.
                grown = location.clamp_(-FARTHEST, FARTHEST).exp_()
                odds = torch.addcmul(both[item], grown.reciprocal(), rising[item]).addcmul_(grown, falling[item])
                product.mul_(odds)
                continue
            above, below = (location - lower[item]).mul_(placed.spread[item]), upper[item] - location
            below.mul_(placed.spread[item])
            product.mul_(torch.exp(-(above + below)).neg_().add_(1.0))
            product.mul_(above.sigmoid_()).mul_(below.sigmoid_())
        if placed.spread is None:
            product.reciprocal_()
            total += log_gap[group].sum(dim=0)
        if float(product.min()) < LEAST:
            spread = None if placed.spread is None else placed.spread[group]
            edges = (part[group][:, None] for part in (lower, upper))
            location = torch.stack([placed.locate(item) for item in range(len(lower))[group]])
            exact = log_between(location, spread, *edges).sum(dim=0)
            if placed.spread is None:
                exact -= log_gap[group].sum(dim=0)
            total += torch.where(product < LEAST, exact, product.log())
        else:
            total += product.log_()
    return total
