"""The posterior under the true parameters: importance sampling from a normal at each person's mode.

No method that sees the answers alone can be nearer to the traits, in the mean over the population, than this mean.
Shapes: n people, T traits, J items, K levels, S draws.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import expit, ndtri, softmax
from scipy.stats import qmc

from benchmarks.simulation import Codes, Floats, Truth

DRAWS = 512
EM_DRAWS, EM_STEPS = 128, 60
WIDENING = 1.2  # of the proposal's sds: its tails must not be the lighter ones
STEPS = 25
BLOCK = 250  # people at once
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class TruePosterior:
    """Mean and sd (n, T), the ends of the central 90 % interval (n, T), and the effective number of draws (n)."""

    mean: Floats
    sd: Floats
    low: Floats
    high: Floats
    effective_draws: Floats


@dataclass(frozen=True)
class _Draws:
    """Traits (n, S, T), log p(answers | traits) (n, S), and the proposal's log density (n, S) up to a constant."""

    traits: Floats
    log_likelihood: Floats
    log_proposal: Floats

    def weigh(self, correlations: Floats) -> Floats:
        """Self-normalised importance weights (n, S) under traits that are N(0, correlations)."""
        squares = np.einsum("nst,tu,nsu->ns", self.traits, np.linalg.inv(correlations), self.traits, optimize=True)
        return np.asarray(softmax(self.log_likelihood - 0.5 * squares - self.log_proposal, axis=1))


def find_true_posterior(truth: Truth, codes: Codes, draws: int = DRAWS) -> TruePosterior:
    parts = [_summarise(_draw(truth, block, draws, seed), truth) for seed, block in enumerate(_split(codes))]
    names = [field.name for field in fields(TruePosterior)]
    return TruePosterior(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def estimate_correlations(truth: Truth, codes: Codes, weights: Floats) -> Floats:
    """The traits' correlations (T, T) that are likeliest for weighted people, all items' parameters being known.

    By the EM algorithm, in which the traits' covariance is free. It errs as much as a sample of this size must.
    """
    parts = [_draw(truth, block, EM_DRAWS, seed) for seed, block in enumerate(_split(codes))]
    shares = np.split(weights / weights.sum(), np.arange(BLOCK, len(codes), BLOCK))
    covariance = truth.correlations
    for _ in range(EM_STEPS):
        covariance = sum(
            np.einsum("n,ns,nst,nsu->tu", share, part.weigh(covariance), part.traits, part.traits, optimize=True)
            for share, part in zip(shares, parts, strict=True)
        )
    sd = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / sd[:, None] / sd)


def _split(codes: Codes) -> list[Codes]:
    return np.split(codes, np.arange(BLOCK, len(codes), BLOCK))


def _draw(truth: Truth, codes: Codes, count: int, seed: int) -> _Draws:
    """Each block has points of its own: errors that all people share would not average out."""
    mode, covariance = find_mode(truth, codes)
    factor = WIDENING * np.linalg.cholesky(covariance)
    points = qmc.Sobol(len(truth.correlations), seed=seed).random(count)
    noise = ndtri(points.clip(1e-9, 1 - 1e-9))
    traits = mode[:, None, :] + np.einsum("nij,sj->nsi", factor, noise)
    log_proposal = np.broadcast_to(-0.5 * (noise**2).sum(axis=1), traits.shape[:2])
    return _Draws(traits, log_likelihood(truth, codes, traits), log_proposal)


def _summarise(draws: _Draws, truth: Truth) -> TruePosterior:
    weights = draws.weigh(truth.correlations)
    mean = np.einsum("ns,nst->nt", weights, draws.traits)
    variance = np.einsum("ns,nst->nt", weights, (draws.traits - mean[:, None]) ** 2)
    low, high = (find_quantile(draws.traits, weights, share) for share in (0.05, 0.95))
    return TruePosterior(mean, np.sqrt(variance), low, high, 1 / (weights**2).sum(axis=1))


def find_quantile(draws: Floats, weights: Floats, share: float) -> Floats:
    """Weighted quantiles (n, T) of draws (n, S, T)."""
    order = np.argsort(draws, axis=1)
    mass = np.take_along_axis(np.broadcast_to(weights[:, :, None], draws.shape), order, axis=1).cumsum(axis=1)
    position = (mass < share).sum(axis=1, keepdims=True).clip(max=draws.shape[1] - 1)
    return np.take_along_axis(np.take_along_axis(draws, order, axis=1), position, axis=1)[:, 0]


def log_likelihood(truth: Truth, codes: Codes, traits: Floats) -> Floats:
    """log p(answers | traits) (n, S) at traits (n, S, T)."""
    total = np.zeros(traits.shape[:2])
    for item, trait in enumerate(truth.traits):
        below, above = edges(truth, codes, item)
        location = truth.slopes[item] * traits[:, :, trait]
        probability = expit(location - below[:, None]) - expit(location - above[:, None])
        total += np.log(np.maximum(probability, SMALLEST_PROBABILITY)) * (codes[:, item] >= 0)[:, None]
    return total


def edges(truth: Truth, codes: Codes, item: int) -> tuple[Floats, Floats]:
    """The thresholds (n) below and above each answer, infinite at the ends."""
    cuts = np.concatenate([[-np.inf], truth.thresholds[item], [np.inf]])
    chosen = np.maximum(codes[:, item], 0)
    return cuts[chosen], cuts[chosen + 1]


def find_mode(truth: Truth, codes: Codes) -> tuple[Floats, Floats]:
    """The posterior's mode (n, T) and the inverse of the information there (n, T, T), by Newton's method.

    With p = s(u) - s(l), s the logistic function: d log p = a (1 - s(u) - s(l)), and minus the second derivative is
    a^2 (s(u)(1 - s(u)) + s(l)(1 - s(l))), never negative.
    """
    inverse = np.linalg.inv(truth.correlations)
    dimensions = len(truth.correlations)
    theta = np.zeros((len(codes), dimensions))
    for _ in range(STEPS):
        gradient = -theta @ inverse
        information = np.broadcast_to(inverse, (len(codes), dimensions, dimensions)).copy()
        for item, trait in enumerate(truth.traits):
            below, above = edges(truth, codes, item)
            slope, seen = truth.slopes[item], codes[:, item] >= 0
            upper, lower = (expit(slope * theta[:, trait] - cut) for cut in (below, above))
            gradient[:, trait] += seen * slope * (1 - upper - lower)
            information[:, trait, trait] += seen * slope**2 * (upper * (1 - upper) + lower * (1 - lower))
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        theta += step.clip(-1, 1)
    return theta, np.linalg.inv(information)
