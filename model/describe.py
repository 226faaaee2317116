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

from model.network import ProfileNetwork, fixed_noise

GRID = (-3.0, 4.0, 71)  # trait sds: first, last, points
POPULATION = 16_384  # draws for moments over the population
CONDITIONAL = 64  # draws of residuals and other traits for each component of the prior, at each point
SEED = 11
LOGISTIC_VARIANCE = math.pi**2 / 3
SMALLEST = 1e-12  # of a probability that is divided by

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ItemParameters:
    """`trait` is None for an item that measures no named trait, and its figures then too.

    Categories are the network's own order: of a flipped item the first is the highest score. `thresholds` are trait
    values, in the trait's unit, one fewer than categories; `residual_share` is that of the variance of the underlying
    response which the residual latents carry.
    """

    key: str
    trait: str | None
    flipped: bool
    discrimination: float | None
    thresholds: list[float]
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


@torch.no_grad()
def describe_items(network: ProfileNetwork) -> list[ItemParameters]:
    """Each item as a one-trait graded response item with logistic residual.

    The underlying response y* = location + e / spread (e standard logistic) is regressed on the trait over the
    population, residuals included. Loading = correlation of y* with the trait; without residuals this is
    a / sqrt(a^2 + pi^2 / 3), as in Takane & de Leeuw (1987, Psychometrika 52) with the logistic's own variance in
    place of D = 1.7. Discrimination and thresholds are that regression's, in logistic units.
    """
    latents = network.prior.sample(POPULATION, torch.Generator().manual_seed(SEED)).double()
    location, spread = (None if part is None else part.double() for part in network.place(latents.float()))
    assert location is not None
    noise = torch.full(location.shape[1:], LOGISTIC_VARIANCE, dtype=torch.float64)
    if spread is not None:
        noise = LOGISTIC_VARIANCE * spread.pow(-2).mean(dim=0)
    edges, sds = network.items.edges().double(), network.prior.covariance().double().diagonal().sqrt()
    traits = [trait.key for trait in network.spec.traits]
    found = []
    for position, item in enumerate(network.spec.items):
        if item.trait is None:
            found.append(ItemParameters(item.key, None, item.flipped, None, [], None, None))
            continue
        number = traits.index(item.trait)
        theta, response = latents[:, number], location[:, position]
        slope = ((theta - theta.mean()) * response).mean() / theta.var(correction=0)
        intercept = response.mean() - slope * theta.mean()
        left = (response - intercept - slope * theta).square().mean()
        rest = left + noise[position]
        signal = (slope * sds[number]).square()
        inner = edges[position, 1 : len(item.levels)]
        found.append(
            ItemParameters(
                key=item.key,
                trait=item.trait,
                flipped=item.flipped,
                discrimination=float(slope * (LOGISTIC_VARIANCE / rest).sqrt()),
                thresholds=((inner - intercept) / slope).tolist(),
                loading=float((signal / (signal + rest)).sqrt()),
                residual_share=float(left / (signal + rest)),
            )
        )
    return found


def trace_curves(network: ProfileNetwork, trait: int) -> TraitCurves:
    """Curves of a trait's items over GRID."""
    spec = network.spec.traits[trait]
    places = [network.spec.columns.index(key) for key in spec.items]
    theta = torch.linspace(*GRID)
    noise = draw_noise(network)  # made outside, where derivatives are taken of nothing
    probability, slope = torch.func.jvp(
        lambda values: marginal_probability(network, trait, values, noise)[:, places],
        (theta,),
        (torch.ones_like(theta),),
    )
    probability, slope = (part.detach().double().permute(1, 0, 2) for part in (probability, slope))
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


def draw_noise(network: ProfileNetwork) -> Tensor:
    """Standard normal points (S, D): one without residuals, as an item depends on its own trait alone then."""
    return fixed_noise(CONDITIONAL if network.residuals else 1, network.latents)[:, 0]


def marginal_probability(network: ProfileNetwork, trait: int, theta: Tensor, noise: Tensor) -> Tensor:
    """P(category | trait) of all items (G, J, K) at values (G) of one trait, over residuals and other traits.

    The prior is a mixture: at each value its components have new masses, and within each the other traits follow
    from the regression on this one; r = theta B + e then. Meaningful for the trait's own items and those without one.
    """
    prior = network.prior
    log_mass, means, factors = prior.components()
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
        latents = torch.cat([traits, traits @ prior.cross + draw[network.traits :]], dim=-1)
        probability = network.items.probabilities(*network.place(latents))
        total = total + torch.einsum("mg,mgjk->gjk", mass, probability) / len(noise)
    return total


@torch.no_grad()
def trait_density(network: ProfileNetwork, trait: int, theta: Tensor) -> Tensor:
    """Density of a trait in the population at values (G), per trait sd."""
    log_mass, means, factors = network.prior.components()
    sd = factors[:, trait].norm(dim=-1)[:, None]
    normal = torch.exp(-0.5 * ((theta - means[:, trait, None]) / sd).square()) / (sd * math.sqrt(2 * math.pi))
    return (log_mass.exp()[:, None] * normal).sum(dim=0).double()


@torch.no_grad()
def correlate_traits(network: ProfileNetwork) -> Floats:
    """Correlations (T, T) of the traits themselves, not of profiles."""
    correlations: Floats = network.trait_correlations().double().numpy()
    return correlations
