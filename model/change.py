"""How far a person's traits have moved between two occasions: the joint posterior of both, by one model.

Each posterior mean is drawn towards the population's, so that the difference of two of them is too small, by as much as
a scale is unreliable; and of two posterior sds nobody knows what the difference's is. Here both occasions' latents are
inferred together, with theta_1, theta_2 (T) the traits and y_1, y_2 the answers:

    p(theta_1, theta_2 | y_1, y_2) ~ p(y_1 | theta_1) p(y_2 | theta_2) p((theta_1 + theta_2) / 2) N(theta_2 - theta_1)

The person's level, the mean of both occasions, has the population's prior; the change has a normal one of its own with
mean 0 and sd CHANGE_SD in each trait, so wide that it draws next to nothing towards 0: a stated conservative choice, as
a within-person correlation estimated from those who answered twice would draw a real change of one person towards the
small ones of most people. With normal answers of variance s^2 the mean is (y_2 - y_1) c / (c + 2 s^2), c = CHANGE_SD^2,
and without the prior its sd is that of the reliable change index (Jacobson & Truax 1991; with item response models
Brouwer, Meijer & Zevalkink 2013). Residual latents are each occasion's own: what a person's habits of answering share
between occasions is not used, which makes intervals wider rather than too narrow.

Posteriors are found by importance sampling, whose normal proposal is fitted to its own draws (adaptive importance
sampling, Cappé et al. 2004), with a wider one mixed in (Hesterberg 1995).
Shapes: B people, S draws, T traits, D latents of one occasion.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from model.network import ProfileNetwork, fixed_noise
from model.prior import LOG_TWO_PI
from model.threads import fix_threads

CHANGE_SD = 2.0  # trait sds: of two people without anything in common the difference has 1.4
DRAWS, ROUNDS = 2048, 3
AT_ONCE = 32  # people
WIDE, WIDE_SHARE = 2.0, 0.25  # of the second proposal: its sd beside the first's, and its share of the draws
FIRST_WIDENING = 1.4  # of the encoder's sds, which know the population's prior
LEAST_EFFECTIVE = 100.0  # draws: fewer tell no interval's ends
LEVELS = (0.025, 0.5, 0.975)
SMALLEST_HALF = 1e-3  # of an interval, in sds

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Changes:
    """Of each person and trait (B, T), in sds of the reference population: median and 95 % interval.

    `reliable` (B) is false where too few draws stand behind the figures to be told.
    """

    median: Floats
    low: Floats
    high: Floats
    reliable: npt.NDArray[np.bool_]

    def test_rise(self) -> Floats:
        """One-sided p-values (B, T): how often a rise as large comes about where there is none.

        The lower half of the interval as a normal's, since so far out a tail cannot be counted in draws.
        """
        return np.asarray(ndtr(ndtri(LEVELS[0]) * self.median / (self.median - self.low).clip(SMALLEST_HALF)))


def measure_changes(network: ProfileNetwork, before: npt.NDArray[np.int8], after: npt.NDArray[np.int8]) -> Changes:
    """Changes of people from their codes (B, J) on two occasions; who answered nothing on one has a wide interval."""
    categories = [network.categories(torch.from_numpy(codes)) for codes in (before, after)]
    with fix_threads(1), torch.no_grad():
        blocks = [
            _measure_block(network, *(part[start : start + AT_ONCE] for part in categories))
            for start in range(0, len(before), AT_ONCE)
        ]
    empty = torch.empty(0, network.traits)
    median, low, high = (torch.cat([empty, *[block[part] for block in blocks]]).double().numpy() for part in range(3))
    effective = torch.cat([empty[:, 0], *[block[3] for block in blocks]])
    return Changes(median, low, high, (effective >= LEAST_EFFECTIVE).numpy())


def _measure_block(network: ProfileNetwork, before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
    """Median, low and high (B, T), and the effective draws (B)."""
    posteriors = [network.posterior(part) for part in (before, after)]
    mean = torch.cat([part.mean for part in posteriors], dim=1)
    size = network.latents
    factor = torch.zeros(len(mean), 2 * size, 2 * size)
    factor[:, :size, :size], factor[:, size:, size:] = (FIRST_WIDENING * part.factor for part in posteriors)
    noise = fixed_noise(DRAWS, mean.shape[1]).expand(-1, len(mean), -1).clone()
    noise[: int(WIDE_SHARE * DRAWS)] *= WIDE
    for number in range(ROUNDS):
        latents = mean + torch.einsum("bij,sbj->sbi", factor, noise)
        logs = _log_target(network, latents, before, after) - _log_proposal(factor, noise)
        masses = logs.softmax(dim=0)
        if number < ROUNDS - 1:
            mean, factor = _fit_normal(latents, masses)
    traits = network.traits
    change = latents[..., network.latents :][..., :traits] - latents[..., :traits]
    low, median, high = _find_quantiles(change, masses)
    return median, low, high, 1 / masses.square().sum(dim=0)


def _log_target(network: ProfileNetwork, latents: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Log joint density (S, B) of answers and latents (S, B, 2 D), up to a constant."""
    first, second = latents[..., : network.latents], latents[..., network.latents :]
    answers = network.log_prob(first, before).sum(dim=-1) + network.log_prob(second, after).sum(dim=-1)
    traits = network.traits
    level = (first[..., :traits] + second[..., :traits]) / 2
    change = (second[..., :traits] - first[..., :traits]) / CHANGE_SD
    residuals = first[..., traits:].square().sum(dim=-1) + second[..., traits:].square().sum(dim=-1)
    # The prior of all latents, at residuals of 0: the traits' own, up to a constant.
    padded = torch.cat([level, torch.zeros_like(first[..., traits:])], dim=-1)
    return answers + network.prior.log_prob(padded) - 0.5 * change.square().sum(dim=-1) - 0.5 * residuals


def _log_proposal(factor: Tensor, noise: Tensor) -> Tensor:
    """Log density (S, B) of both normal proposals together where they put the noise (S, B, 2 D)."""
    squares, size = noise.square().sum(dim=-1), noise.shape[-1]
    narrow = -0.5 * squares + float(np.log(1 - WIDE_SHARE))
    wide = -0.5 * squares / WIDE**2 - size * float(np.log(WIDE)) + float(np.log(WIDE_SHARE))
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return torch.logaddexp(narrow, wide) - log_det - 0.5 * LOG_TWO_PI * size


def _fit_normal(latents: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 2 D) and lower-triangular factor of weighed draws; a little of their unweighed spread keeps it open."""
    mean = torch.einsum("sb,sbi->bi", masses, latents)
    centred = latents - mean
    covariance = torch.einsum("sb,sbi,sbj->bij", masses, centred, centred)
    spread = centred.square().mean(dim=0)
    return mean, torch.linalg.cholesky(covariance + torch.diag_embed(0.02 * spread))


def _find_quantiles(values: Tensor, masses: Tensor) -> list[Tensor]:
    """Quantiles LEVELS (B, T) of weighed values (S, B, T)."""
    ordered, order = values.sort(dim=0)
    reached = masses[..., None].expand_as(values).gather(0, order).cumsum(dim=0)
    places = [(reached < level).sum(dim=0).clamp(max=len(values) - 1) for level in LEVELS]
    return [ordered.gather(0, place[None])[0] for place in places]
