"""The unit of the traits: where the population stands is found to convergence, and fixed once as mean 0, variance 1."""

import torch
from torch import Tensor

from model.network import ProfileNetwork

PEOPLE = 32_768
DRAWS = 1 << 18  # of all people together
FEWEST_DRAWS, MOST_DRAWS = 32, 256  # of each
BLOCK = 1024
ROUNDS = 100
LEAST_VARIANCE = 1e-4  # of traits: a few people's posteriors may leave less
TOLERANCE = 1e-4  # of a round's change, in sds and their products


@torch.no_grad()
def place_population(network: ProfileNetwork, categories: Tensor, weights: Tensor) -> None:
    """Set the population's mean and covariance to the moments of people's posteriors, again and again until they agree.

    For a normal prior these are the steps of EM (Bock & Aitkin 1981). Draws are made once and weighed anew for each
    round's prior; each person has draws of their own, or the points' unevenness would be everybody's.
    `categories` (B, J), `weights` (B); who answered nothing says nothing.
    """
    kept = (categories >= 0).any(dim=1) & (weights > 0)
    if not kept.any():
        return
    categories, share = categories[kept][:PEOPLE], weights[kept][:PEOPLE].float()
    share = share / share.sum()
    count = max(FEWEST_DRAWS, min(MOST_DRAWS, DRAWS // len(share)))
    generator = torch.Generator().manual_seed(4)
    drawn = []
    for block in torch.split(categories, BLOCK):
        noise = torch.randn((count, len(block), network.latents), generator=generator)
        drawn.append(network.draw(network.posterior(block), block, noise))
    latents = torch.cat([block.latents for block in drawn], dim=1)
    theta = latents[..., : network.traits]
    log_rest = torch.cat([block.log_weights for block in drawn], dim=1) - network.prior.log_prob(latents)
    prior = network.prior
    for _ in range(ROUNDS):
        masses = (log_rest + prior.log_prob(latents)).softmax(dim=0) * share
        mean = torch.einsum("sb,sbt->t", masses, theta)
        centred = (theta - mean).flatten(0, 1)
        covariance = centred.T @ (masses.flatten()[:, None] * centred) + LEAST_VARIANCE * torch.eye(network.traits)
        moves = mean - prior.population_mean, covariance - prior.covariance()[: network.traits, : network.traits]
        prior.move_to(mean, covariance)
        if max(float(move.abs().max()) for move in moves) < TOLERANCE:
            break


@torch.no_grad()
def fix_unit(network: ProfileNetwork) -> None:
    """Make this population the reference: its traits get mean 0 and variance 1, and the items take up the change.

    With theta = m + s theta', a theta - b = (a s) theta' - (b - a m), and what residuals add to a trait is in units of
    s. No likelihood changes. The shift's directions are settled with the unit.
    """
    prior, items = network.prior, network.items
    mean, covariance = prior.population_mean.clone(), prior.covariance()[: network.traits, : network.traits]
    sd = covariance.diagonal().sqrt()
    items.first_threshold.sub_(mean @ items.discriminations())
    trait_of = items.loads.argmax(dim=0)
    stretch = torch.where(items.loads.sum(dim=0) > 0, sd.log()[trait_of], 0.0)
    # Items that share a discrimination share the trait as well.
    items.log_discrimination.index_copy_(0, items.shared, items.log_discrimination[items.shared] + stretch)
    if network.shift is not None:
        network.shift.along.div_(sd[:, None])
        network.shift.settle(items.discriminations())
    prior.move_to(torch.zeros_like(mean), covariance / sd[:, None] / sd)
