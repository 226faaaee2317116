"""What a network says of its items and traits: parameters, loadings, characteristic and information curves.

All of it is marginal over the residual latents: what an analyst who knows the trait alone would see.
Shapes: J items, T traits, R residuals, D = T + R latents, K the most categories of an item, G points of a trait, M
components of the prior, S draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.matching import TraitItems
from model.network import ProfileNetwork, fixed_noise

GRID = (-3.0, 4.0, 71)  # of the pictures, in trait sds: first, last, points
MATCHING = (-4.5, 6.0, 43)  # of the trait's distribution in a group
REACH = (-8.0, 8.0, 81)  # thresholds are looked for here
POPULATION = 16_384  # draws for moments over the population
CONDITIONAL = 128  # draws of residuals and other traits for each component of the prior, at each point
SEED = 11
LOGISTIC_VARIANCE = math.pi**2 / 3
SMALLEST = 1e-12  # of a probability that is divided by

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ItemParameters:
    """`trait` is None for an item that measures no named trait, and its figures then too.

    Categories are the network's own order: of a flipped item the first is the highest score. `thresholds` are trait
    values, in the trait's unit, one fewer than categories, None beyond REACH; `residual_share` is that of the variance
    of the underlying response which the residual latents carry.
    """

    key: str
    trait: str | None
    flipped: bool
    discrimination: float | None
    thresholds: list[float | None]
    loading: float | None
    residual_share: float | None


@dataclass(frozen=True)
class TraitCurves:
    """Of a trait's own items, over `theta` (G): `probability` (J, G, K), `information` (J, G), `expected` sum (G).

    `scores` (J, K) name the categories; `density` (G) is that of the trait in the population.
    """

    trait: str
    items: list[str]
    theta: Floats
    density: Floats
    scores: Floats
    sizes: list[int]
    probability: Floats
    information: Floats
    expected: Floats

    @property
    def test_information(self) -> Floats:
        """Sum over the items (G): exact where items are independent given the trait, else a little too high."""
        total: Floats = self.information.sum(axis=0)
        return total


def describe_items(network: ProfileNetwork) -> list[ItemParameters]:
    """Each item as a graded response item of its trait alone, residuals and other traits averaged out.

    A threshold is where P(Y >= k | trait) is one half; the discrimination is the slope of that probability's logit
    there, averaged over the item's thresholds. Without residuals they are the network's own b / a and a.
    """
    loadings = load_items(network)
    found: dict[str, ItemParameters] = {}
    for number, trait in enumerate(network.spec.traits):
        theta = torch.linspace(*REACH)
        probability, slope = trace_probability(network, number, theta)
        for position, key in enumerate(trait.items):
            place = network.spec.columns.index(key)
            levels = len(network.spec.items[place].levels)
            crossings = [
                find_crossing(theta, probability[position, :, k:levels].sum(1), slope[position, :, k:levels].sum(1))
                for k in range(1, levels)
            ]
            slopes = [crossing[1] for crossing in crossings if crossing is not None]
            found[key] = ItemParameters(
                key=key,
                trait=trait.key,
                flipped=network.spec.items[place].flipped,
                discrimination=sum(slopes) / len(slopes) if slopes else None,
                thresholds=[None if crossing is None else crossing[0] for crossing in crossings],
                loading=loadings[key][0],
                residual_share=loadings[key][1],
            )
    loose = {
        item.key: ItemParameters(item.key, None, item.flipped, None, [], None, None) for item in network.spec.items
    }
    return list((loose | found).values())


def find_crossing(theta: Tensor, probability: Tensor, slope: Tensor) -> tuple[float, float] | None:
    """Where a probability (G) first reaches one half, and the slope of its logit there; None beyond REACH.

    Between two points the logit is taken as a line: exact where the item is logistic.
    """
    logits = torch.logit(probability.clamp(SMALLEST, 1 - SMALLEST))
    steepness = slope / (probability * (1 - probability)).clamp(min=SMALLEST)
    above = torch.nonzero(logits >= 0)
    after = int(above[0]) if len(above) else 0
    if after == 0:
        return None
    share = float(-logits[after - 1] / (logits[after] - logits[after - 1]))
    at = [float(torch.lerp(values[after - 1], values[after], share)) for values in (theta.double(), steepness)]
    return at[0], at[1]


@torch.no_grad()
def load_items(network: ProfileNetwork) -> dict[str, tuple[float, float]]:
    """By item of a trait: standardised loading, and the residual latents' share of the underlying variance.

    The underlying response y* = location + e / spread, e standard logistic, is regressed on the trait over the
    population. The loading is its correlation with the trait; without residuals a / sqrt(a^2 + pi^2 / 3), as in
    Takane & de Leeuw (1987, Psychometrika 52) with the logistic's own variance in place of D = 1.7.
    """
    latents = network.prior.sample(POPULATION, torch.Generator().manual_seed(SEED))
    location, spread = network.place(latents)
    noise = torch.full(location.shape[1:], LOGISTIC_VARIANCE)
    if spread is not None:
        noise = LOGISTIC_VARIANCE * spread.double().pow(-2).mean(dim=0)
    variances = network.prior.covariance().diagonal()
    found = {}
    for number, trait in enumerate(network.spec.traits):
        theta = latents[:, number].double() - latents[:, number].double().mean()
        for place in (network.spec.columns.index(key) for key in trait.items):
            response = location[:, place].double() - location[:, place].double().mean()
            slope = (theta * response).mean() / theta.square().mean()
            left = (response - slope * theta).square().mean()
            signal = slope.square() * variances[number]
            whole = signal + left + noise[place]
            found[network.spec.columns[place]] = (float((signal / whole).sqrt()), float(left / whole))
    return found


def trace_curves(network: ProfileNetwork, trait: int) -> TraitCurves:
    """Curves of a trait's items over GRID."""
    spec, theta = network.spec.traits[trait], torch.linspace(*GRID)
    places = [network.spec.columns.index(key) for key in spec.items]
    probability, slope = trace_probability(network, trait, theta)
    # Fisher's information of a multinomial answer: sum over categories of P'^2 / P (Samejima 1969).
    information = (slope.square() / probability.clamp(min=SMALLEST)).sum(dim=-1)
    scores = network.items.category_scores[places].double()
    multiply = next((scale.multiply for scale in network.spec.scales if set(scale.items) == set(spec.items)), 1.0)
    return TraitCurves(
        trait=spec.key,
        items=list(spec.items),
        theta=theta.double().numpy(),
        density=trait_density(network, trait, theta).numpy(),
        scores=scores.numpy(),
        sizes=[len(network.spec.items[place].levels) for place in places],
        probability=probability.numpy(),
        information=information.numpy(),
        expected=multiply * (probability * scores[:, None]).sum(dim=(0, 2)).numpy(),
    )


def tabulate_items(network: ProfileNetwork, trait: int) -> TraitItems:
    """A trait's own items on the grid on which people of different groups are matched by it."""
    theta = torch.linspace(*MATCHING)
    spec = network.spec.traits[trait]
    places = [network.spec.columns.index(key) for key in spec.items]
    probability = marginal_probability(network, trait, theta, draw_noise(network))[:, places]
    density = trait_density(network, trait, theta).numpy()
    return TraitItems(
        trait=spec.key,
        keys=spec.items,
        sizes=tuple(len(network.spec.items[place].levels) for place in places),
        theta=theta.double().numpy(),
        probability=probability.detach().double().permute(1, 0, 2).numpy(),
        scores=network.items.category_scores[places].double().numpy(),
        density=density / density.sum(),
    )


def trace_probability(network: ProfileNetwork, trait: int, theta: Tensor) -> tuple[Tensor, Tensor]:
    """P(category | trait) of a trait's own items, and its derivative, each (its items, G, K)."""
    places = [network.spec.columns.index(key) for key in network.spec.traits[trait].items]
    noise = draw_noise(network)  # made outside, where derivatives are taken of nothing
    probability, slope = torch.func.jvp(
        lambda values: marginal_probability(network, trait, values, noise)[:, places],
        (theta,),
        (torch.ones_like(theta),),
    )[:2]
    return probability.detach().double().permute(1, 0, 2), slope.detach().double().permute(1, 0, 2)


def draw_noise(network: ProfileNetwork) -> Tensor:
    """Standard normal points (S, D): one without residuals, as an item depends on its own trait alone then."""
    return fixed_noise(CONDITIONAL if network.residuals else 1, network.latents)[:, 0]


def marginal_probability(network: ProfileNetwork, trait: int, theta: Tensor, noise: Tensor) -> Tensor:
    """P(category | trait) of all items (G, J, K) at values (G) of one trait, over residuals and other traits.

    The prior is a mixture: at each value its components have new masses, and within each the other traits follow
    from the regression on this one. Meaningful for the trait's own items and those without one.
    """
    log_mass, means, factors = network.prior.components()
    sd = factors[:, trait].norm(dim=-1)
    scaled = (theta - means[:, trait, None]) / sd[:, None]
    mass = (log_mass[:, None] - 0.5 * scaled.square() - sd.log()[:, None]).softmax(dim=0)
    slopes = torch.einsum("mij,mj->mi", factors, factors[:, trait]) / sd[:, None]
    centre = means[:, None] + scaled[..., None] * slopes[:, None]
    total = torch.zeros(())
    for draw in noise:
        other = torch.einsum("mij,j->mi", factors, draw[: network.traits])
        other = other - slopes * (other[:, trait] / sd)[:, None]  # what the regression leaves: nothing of this trait
        traits = centre + other[:, None]
        latents = torch.cat([traits, draw[network.traits :].expand(*traits.shape[:-1], -1)], dim=-1)
        probability = network.items.probabilities(*network.place(latents))
        total = total + torch.einsum("mg,mgjk->gjk", mass, probability) / len(noise)
    return total


@torch.no_grad()
def trait_density(network: ProfileNetwork, trait: int, theta: Tensor) -> Tensor:
    """Density of a trait in the population at values (G), per trait sd."""
    log_mass, means, factors = network.prior.components()
    sd = factors[:, trait].norm(dim=-1)[:, None]
    normal = torch.exp(-0.5 * ((theta - means[:, trait, None]) / sd).square()) / (sd * math.sqrt(2 * math.pi))
    density: Tensor = (log_mass.exp()[:, None] * normal).sum(dim=0).double()
    return density


@torch.no_grad()
def correlate_traits(network: ProfileNetwork) -> Floats:
    """Correlations (T, T) of the traits themselves, not of profiles."""
    correlations: Floats = network.trait_correlations().double().numpy()
    return correlations
