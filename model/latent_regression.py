"""A latent regression: how people's traits hang on what they are conditioned on, from their answers' likelihoods.

theta_i ~ N(Gamma' x_i + b_psu(i), Sigma), b ~ N(0, Sigma / lambda): the items' parameters are the model's and stay
(Mislevy 1984; von Davier & Sinharay 2007). Gamma, Sigma and lambda are found by EM over people's weighed draws, which
are made once; weights are normalised to Kish's effective number of people. Each effect but the intercept has one
person's worth of a prior around zero, so that cells of a handful do not run away.
Shapes: N people, S draws, T traits, Q effects, P PSUs, M draws of the parameters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import invwishart
from torch import Tensor

from model.conditioning import Terms

RIDGE = 1.0  # people's worth of the prior on an effect
INTERCEPT_RIDGE = 1e-6
FIRST_LAMBDA, LEAST_LAMBDA, MOST_LAMBDA = 20.0, 1.0, 1e5  # residual variance over that between PSUs
ROUNDS = 100
TOLERANCE = 5e-4  # of a round's change, in trait sds
RATIO_TOLERANCE = 0.1  # and of lambda's, as a share
LEAST_INFORMATION = 0.02  # of an answer sheet beside the trait itself
BLOCK = 4096
SEED = 11

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """People's draws (T, S, N), their log weights (S, N) without a prior of the traits, terms, and weights (N)."""

    traits: Tensor
    log_weights: Tensor
    terms: Terms
    weights: Floats


@dataclass(frozen=True)
class Parameters:
    """Draws of a regression's parameters: effects (M, Q + P, T), and Cholesky factors of Sigma (M, T, T)."""

    effects: Floats
    factors: Floats


@dataclass(frozen=True)
class Regression:
    """`effects` (Q, T) and `psus` (P, T); `factor` (T, T) of Sigma; what is needed to draw the parameters anew.

    `directions` (T, T) are independent of one another: a row of effects in their coordinates, times it, is in trait
    sds. `information` (N, T) is what a person's answers tell of each, as a share of what the trait itself would.
    """

    effects: Floats
    psus: Floats
    factor: Floats
    ratio: float  # lambda
    design: "_Design"
    directions: Floats
    information: Floats
    rounds: int

    def settle(self) -> Parameters:
        """The parameters as they were found, as one draw (M = 1)."""
        return Parameters(np.concatenate([self.effects, self.psus])[None], self.factor[None])

    def draw(self, count: int) -> Parameters:
        """`count` draws (M) from the parameters' approximate posterior, by the information in the answers (Louis 1982).

        What is not known of the traits makes it wider than that of a regression on the traits themselves.
        """
        random = np.random.default_rng(SEED)
        traits, people = len(self.factor), self.design.people
        sigma = self.factor @ self.factor.T
        shares = np.average(self.information, axis=0, weights=self.design.weights)
        freedom = max(traits + 4.0, people * float(np.mean(shares**2)))
        drawn = invwishart.rvs(freedom, sigma * (freedom - traits - 1), size=count, random_state=random)
        factors = np.linalg.cholesky(np.reshape(drawn, (count, traits, traits)))
        away = np.stack(
            [self.design.draw(self.information[:, t], self.ratio, count, random) for t in range(traits)], axis=2
        )
        middle = np.concatenate([self.effects, self.psus])
        return Parameters(middle + away @ self.directions, factors)


@dataclass(frozen=True)
class _Design:
    """Who has which effects: `x` (N, Q), `z` (N, P), weights (N) that add up to the effective number of people."""

    x: sp.csr_array
    z: sp.csr_array
    weights: Floats

    @staticmethod
    def of(terms: Terms, size: int, psus: int, weights: Floats) -> "_Design":
        people, width = terms.effects.shape
        rows = np.repeat(np.arange(people), width + 1)
        columns = np.concatenate([terms.effects, np.full((people, 1), size - 1)], axis=1).ravel()
        values = np.concatenate([np.ones((people, width)), terms.log_weight[:, None]], axis=1).ravel()
        x = sp.csr_array((values, (rows, columns)), shape=(people, size))
        z = sp.csr_array((np.ones(people), (np.arange(people), terms.psu)), shape=(people, psus))
        scaled = weights * (weights.sum() / (weights**2).sum())
        return _Design(x, z, scaled)

    @property
    def people(self) -> float:
        """Kish's (1965) effective number."""
        return float(self.weights.sum())

    def solve(self, target: Floats, ratio: float) -> tuple[Floats, Floats, float, Floats]:
        """Effects (Q, T) and PSUs (P, T) for targets (N, T), the degrees of freedom used, and people by PSU (P)."""
        weighed = self.weights[:, None] * target
        system = self._eliminate(self.weights, ratio)
        right, below = self.x.T @ weighed, self.z.T @ weighed
        effects = cho_solve((system.factor, True), right - system.cross @ (below / system.diagonal[:, None]))
        psus = (below - system.cross.T @ effects) / system.diagonal[:, None]
        counts = system.diagonal - ratio
        fixed = len(system.factor) - float(np.trace(cho_solve((system.factor, True), np.diag(self._ridge))))
        return effects, psus, fixed + float((counts / system.diagonal).sum()), counts

    def draw(self, information: Floats, ratio: float, count: int, random: np.random.Generator) -> Floats:
        """Deviations (count, Q + P) with the inverse of the penalised cross-products as covariance."""
        system = self._eliminate(self.weights * information, ratio)
        noise = random.standard_normal((len(system.factor), count))
        effects = solve_triangular(system.factor, noise, lower=True, trans="T")
        own = random.standard_normal((len(system.diagonal), count)) / np.sqrt(system.diagonal)[:, None]
        psus = own - (system.cross.T @ effects) / system.diagonal[:, None]
        return np.concatenate([effects, psus]).T

    @property
    def _ridge(self) -> Floats:
        ridge = np.full(self.x.shape[1], RIDGE)
        ridge[0] = INTERCEPT_RIDGE
        return ridge

    def _eliminate(self, weights: Floats, ratio: float) -> "_System":
        """The normal equations with the PSUs, whose block is diagonal, eliminated."""
        weighed = sp.csr_array(self.x.multiply(weights[:, None]))
        cross = np.asarray((weighed.T @ self.z).toarray())
        diagonal = self.z.T @ weights + ratio
        left = (weighed.T @ self.x).toarray() + np.diag(self._ridge) - (cross / diagonal) @ cross.T
        return _System(cholesky(left, lower=True), cross, diagonal)


@dataclass(frozen=True)
class _System:
    factor: Floats  # (Q, Q), lower triangular
    cross: Floats  # (Q, P)
    diagonal: Floats  # (P)


def fit_regression(evidence: Evidence, size: int, psus: int, start: Floats) -> Regression:
    """The regression with `size` effects and `psus` PSUs; `start` (T, T) is a first factor of Sigma, and its prior."""
    design = _Design.of(evidence.terms, size, psus, evidence.weights)
    traits, people = len(start), design.people
    prior = start @ start.T
    sigma, ratio = prior, FIRST_LAMBDA
    predicted = np.zeros((len(design.weights), traits))
    rounds, moves = 0, np.inf
    while rounds < ROUNDS and moves > TOLERANCE:
        rounds += 1
        factor = _root(sigma)
        mean, within = _expect(evidence, predicted, factor)
        effects, between, used, counts = design.solve(mean, ratio)
        found = design.x @ effects + design.z @ between
        squares = _cross((design.weights[:, None] * (mean - found)), mean - found)
        squares += np.einsum("n,ntu->tu", design.weights, within)
        left = max(people - used, people / 2)
        updated = (squares + (traits + 1) * prior) / (left + traits + 1)
        moves = max(float(np.sqrt(np.mean((found - predicted) ** 2))), float(np.abs(updated - sigma).max()))
        predicted, sigma = found, updated
        shares = 1 - np.trace(np.linalg.solve(sigma, np.average(within, axis=0, weights=design.weights))) / traits
        before, ratio = ratio, _find_ratio(between, sigma, counts, ratio, max(shares, LEAST_INFORMATION))
        if abs(ratio / before - 1) > RATIO_TOLERANCE:
            moves = np.inf
    factor = _root(sigma)
    _, within = _expect(evidence, predicted, factor)
    inverse = np.linalg.inv(factor)
    unknown = inverse @ within @ inverse.T  # of traits whose Sigma is the identity
    _, turned = np.linalg.eigh(np.average(unknown, axis=0, weights=design.weights))
    kept = 1 - np.einsum("nij,ik,jk->nk", unknown, turned, turned, optimize=True)
    return Regression(
        effects=effects,
        psus=between,
        factor=factor,
        ratio=ratio,
        design=design,
        directions=(factor @ turned).T,
        information=kept.clip(LEAST_INFORMATION, 1.0),
        rounds=rounds,
    )


def _find_ratio(between: Floats, sigma: Floats, counts: Floats, ratio: float, share: float) -> float:
    """Lambda, from the PSUs that have people: their effects' size, and what is not known of them."""
    seen = counts > 0
    sizes = np.einsum("pt,pt->p", between[seen], np.linalg.solve(sigma, between[seen].T).T) / between.shape[1]
    variance = float(np.mean(sizes + 1 / (share * counts[seen] + ratio)))
    return float(np.clip(1 / variance, LEAST_LAMBDA, MOST_LAMBDA))


def _root(sigma: Floats) -> Floats:
    """The lower-triangular factor (T, T)."""
    return np.asarray(np.linalg.cholesky(sigma), dtype=np.float64)


def _cross(one: Floats, other: Floats) -> Floats:
    return np.asarray(one.T @ other)


@torch.no_grad()
def _expect(evidence: Evidence, predicted: Floats, factor: Floats) -> tuple[Floats, Floats]:
    """Posterior mean (N, T) and covariance (N, T, T) of everybody's traits under N(predicted, Sigma)."""
    traits = len(factor)
    inverse = torch.from_numpy(np.linalg.inv(factor)).float()
    middle = torch.from_numpy(predicted.T).float()
    mean, within = np.empty_like(predicted), np.empty((len(predicted), traits, traits))
    for first in range(0, len(predicted), BLOCK):
        some = slice(first, first + BLOCK)
        drawn = evidence.traits[:, :, some]
        scaled = torch.einsum("ij,jsb->isb", inverse, drawn - middle[:, None, some])
        mass = (evidence.log_weights[:, some] - 0.5 * scaled.square().sum(dim=0)).softmax(dim=0)
        centre = (drawn * mass).sum(dim=1)
        away = drawn - centre[:, None]
        mean[some] = centre.T.double().numpy()
        for row in range(traits):
            for column in range(row + 1):
                part = (away[row] * away[column] * mass).sum(dim=0).double().numpy()
                within[some, row, column] = within[some, column, row] = part
    return mean, within
