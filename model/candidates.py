"""Weighed draws of a person's latents from which posteriors under many populations can be resampled.

Draws come from two proposals that are mixed with fixed shares: the encoder's posterior, moved as the person's own
prior asks and widened, and that prior itself, which has the tails that a normal posterior may lack (Hesterberg 1995).
All randomness hangs on the person alone, so that neither row order nor partitions change a draw.
Shapes: B people, S draws, M resamples, D latents, T traits, R residuals.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.network import Posterior, ProfileNetwork
from model.weighing import log_answers, place_items

DRAWS = 24
FROM_PRIOR = 6  # of them
WIDENING = 1.15  # of the encoder's sds
SETS = 1024  # of draws' noise; a person has one, with signs of its own
SEED = b"plausible values"
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Unsigned = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Candidates:
    """Traits (T, S, B), and log p(answers | latents) p(residuals) / q(latents) (S, B), up to a constant."""

    traits: Tensor
    log_weights: Tensor


def seed_people(ids: Sequence[str]) -> Unsigned:
    """A number for each person (B), by the pseudonym."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8, key=SEED).digest() for key in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def draw_bits(seeds: Unsigned, stream: int) -> Unsigned:
    """The `stream`-th random number of each person: SplitMix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        z = seeds + np.uint64(stream + 1) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def draw_uniform(seeds: Unsigned, count: int) -> Tensor:
    """(B, count) in [0, 1), from the third stream on: the first two choose the noise."""
    numbers = np.stack([draw_bits(seeds, 2 + stream) >> np.uint64(40) for stream in range(count)], axis=1)
    return torch.from_numpy(numbers.astype(np.float32) * np.float32(2.0**-24))


def draw_noise(seeds: Unsigned, draws: int, latents: int) -> Tensor:
    """Standard normal (D, S, B): evenly spread points, of SETS sets, mirrored at random in each dimension."""
    chosen = torch.from_numpy((draw_bits(seeds, 0) % np.uint64(SETS)).astype(np.int64))
    return _mirror(_spread_points(draws, latents)[:, :, chosen], seeds)


def draw_normal(seeds: Unsigned, count: int, dimensions: int) -> Tensor:
    """Standard normal (B, count, dimensions), whose points are independent of one another."""
    chosen = torch.from_numpy((draw_bits(seeds, 0) % np.uint64(SETS)).astype(np.int64))
    return _mirror(_independent_points(count, dimensions)[:, :, chosen], seeds).permute(2, 1, 0)


def _mirror(points: Tensor, seeds: Unsigned) -> Tensor:
    bits = draw_bits(seeds, 1)
    signs = [((bits >> np.uint64(place)) & np.uint64(1)).astype(np.float32) * 2 - 1 for place in range(len(points))]
    return points * torch.from_numpy(np.stack(signs))[:, None]


@lru_cache(maxsize=4)
def _spread_points(draws: int, latents: int) -> Tensor:
    """(D, S, SETS), each set a scrambled Sobol sequence."""
    sets = []
    for seed in range(SETS):
        engine = torch.quasirandom.SobolEngine(latents, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        sets.append(torch.special.ndtri(engine.draw(draws).double().clamp(1e-6, 1 - 1e-6)).float())
    return torch.stack(sets).permute(2, 1, 0).contiguous()


@lru_cache(maxsize=4)
def _independent_points(count: int, dimensions: int) -> Tensor:
    """(dimensions, count, SETS)."""
    return torch.randn((dimensions, count, SETS), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def draw_candidates(
    network: ProfileNetwork, categories: Tensor, middle: Tensor, factor: Tensor, noise: Tensor
) -> Candidates:
    """Draws of people with the answers of `categories` (B, J) from noise (D, S, B).

    People's own priors are normal, with means `middle` (B, T) and one lower-triangular `factor` (T, T).
    """
    posterior = move_posterior(network, categories, middle)
    mean, spread = posterior.mean.T.contiguous(), posterior.factor.permute(1, 2, 0).contiguous()
    traits, latents = network.traits, network.latents
    centre = torch.cat([middle.T, torch.zeros(latents - traits, len(middle))])
    drawn = torch.empty_like(noise)
    for row in range(latents):
        head, tail = drawn[row, :FROM_PRIOR], drawn[row, FROM_PRIOR:]
        head.copy_(centre[row].expand_as(head))
        if row < traits:
            for column in range(row + 1):
                head.add_(noise[column, :FROM_PRIOR], alpha=float(factor[row, column]))
        else:
            head.add_(noise[row, :FROM_PRIOR])
        tail.copy_(mean[row].expand_as(tail))
        for column in range(row + 1):
            tail.addcmul_(noise[column, FROM_PRIOR:], spread[row, column])
    log_posterior = torch.empty(noise.shape[1:])
    log_posterior[FROM_PRIOR:] = -0.5 * noise[:, FROM_PRIOR:].square().sum(dim=0)
    log_posterior[:FROM_PRIOR] = _log_density(drawn[:, :FROM_PRIOR] - mean[:, None], spread)
    log_posterior -= spread.diagonal(dim1=0, dim2=1).log().sum(dim=1)
    log_own = _log_density(drawn[:traits] - middle.T[:, None], factor[..., None])
    log_own -= float(factor.diagonal().log().sum())
    log_residual = -0.5 * drawn[traits:].square().sum(dim=0)
    share = FROM_PRIOR / noise.shape[1]
    log_mixture = torch.logaddexp(
        log_posterior + float(np.log(1 - share)), log_own + log_residual + float(np.log(share))
    )
    answers = log_answers(network.items, place_items(network, drawn.permute(1, 2, 0)), categories)
    return Candidates(drawn[:traits], answers + log_residual - log_mixture)


def move_posterior(network: ProfileNetwork, categories: Tensor, middle: Tensor) -> Posterior:
    """The encoder's posterior, widened, its mean moved for a prior with the means `middle` (B, T).

    With a normal posterior N(m, P) under N(m0, C), a prior whose mean is v higher makes it m + P C^-1 v.
    """
    posterior = network.posterior(categories)
    first, wide = network.prior.moments()
    traits = network.traits
    step = torch.cholesky_solve((middle - first[:traits]).T, wide[:traits, :traits]).T
    part = torch.einsum("btd,bt->bd", posterior.factor[:, :traits], step)
    moved = posterior.mean + torch.einsum("bde,be->bd", posterior.factor, part)
    return Posterior(moved, WIDENING * posterior.factor)


def _log_density(centred: Tensor, factor: Tensor) -> Tensor:
    """-|L^-1 x|^2 / 2 (S, B) of points x (D, S, B) under lower-triangular factors L (D, D, B or 1)."""
    scaled: list[Tensor] = []
    total = torch.zeros(centred.shape[1:])
    for row in range(len(centred)):
        rest = centred[row].clone()
        for column in range(row):
            rest.addcmul_(scaled[column], factor[row, column], value=-1.0)
        scaled.append(rest.div_(factor[row, row]))
        total.addcmul_(scaled[row], scaled[row], value=-0.5)
    return total
