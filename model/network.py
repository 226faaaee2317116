"""The variational autoencoder: named traits, residual latents, an encoder, and the importance-weighted bound.

Burda, Grosse & Salakhutdinov (2016): log p(y) >= E[log mean_s p(y, z_s) / q(z_s | y)], which rises with the draws.
Shapes: B people, T traits, R residuals, D = T + R latents, J items, K the most categories of an item, S draws.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.covariate_heads import CovariateHead
from model.likelihood import GradedItems, to_categories
from model.prior import LOG_TWO_PI, Prior
from model.residuals import ResidualShift
from model.spec import FeatureSpec

HIDDEN = (128, 128)
UNIT_SOFTPLUS = 0.5413248546129181  # softplus of it is 1: the posterior starts with the prior's unit
MIN_SD = 1e-3
PREDICTION_DRAWS = 128
SMALLEST_PROBABILITY = 1e-9  # beyond an item's last category: its logarithm must be a number


@dataclass(frozen=True)
class Posterior:
    """Normal posterior of all latents, named traits first: mean (B, D), lower-triangular factor (B, D, D)."""

    mean: Tensor
    factor: Tensor

    def sd(self) -> Tensor:
        return self.factor.square().sum(dim=-1).sqrt()


@dataclass(frozen=True)
class Draws:
    """Latents (S, B, D) and the logarithms of their importance weights (S, B), in nats."""

    latents: Tensor
    log_weights: Tensor

    def bound(self) -> Tensor:
        """The importance-weighted bound of each person (B), in nats."""
        return torch.logsumexp(self.log_weights, dim=0) - math.log(len(self.log_weights))

    def masses(self) -> Tensor:
        """Self-normalised weights (S, B)."""
        return self.log_weights.softmax(dim=0)


class ProfileNetwork(nn.Module):
    """Encoder 128-128 on one-hot answers with a missing level; graded response items; a prior that is learned."""

    starts: Tensor
    rows: Tensor
    columns: Tensor
    # What the encoder multiplies its widest layer in, if not in what it is written in: see model/arithmetic.py.
    numbers: torch.dtype | None = None

    def __init__(self, spec: FeatureSpec, margins: npt.NDArray[np.float64] | None = None, residuals: int = 0) -> None:
        super().__init__()
        self.spec, self.traits, self.residuals = spec, len(spec.traits), residuals
        self.latents = self.traits + residuals
        self.items = GradedItems(spec, margins)
        self.prior = Prior(self.traits, residuals)
        self.shift = ResidualShift(residuals, self.traits, len(spec.items)) if residuals else None
        # Taught last, by model/covariates.py; no profile is made from them.
        self.covariates = nn.ModuleList([CovariateHead(part, self.traits) for part in spec.covariates])
        widths = torch.tensor([len(item.levels) + 1 for item in spec.items])
        self.inputs = int(widths.sum())
        self.register_buffer("starts", widths.cumsum(0) - widths + 1, persistent=False)
        for name, places in zip(("rows", "columns"), torch.tril_indices(self.latents, self.latents, -1), strict=True):
            self.register_buffer(name, places.clone(), persistent=False)
        self.encoder = nn.Sequential(
            nn.Linear(self.inputs, HIDDEN[0]),
            nn.SiLU(),
            nn.Linear(HIDDEN[0], HIDDEN[1]),
            nn.SiLU(),
            nn.Linear(HIDDEN[1], 2 * self.latents + len(self.rows)),
        )

    def copy(self) -> ProfileNetwork:
        """Another network with the same weights, none of them learning."""
        return copy.deepcopy(self).requires_grad_(False)

    def without_covariates(self) -> ProfileNetwork:
        """A copy that makes the same profiles."""
        network = self.copy()
        network.spec, network.covariates = replace(self.spec, covariates=()), nn.ModuleList()
        return network

    def trait_correlations(self) -> Tensor:
        """Correlations (T, T) of the traits in the population."""
        covariance = self.prior.covariance()[: self.traits, : self.traits]
        sd = covariance.diagonal().sqrt()
        return covariance / sd[:, None] / sd

    def encode(self, categories: Tensor) -> Posterior:
        """Posterior of people from their categories (B, J), -1 where there is no answer."""
        sizes = [self.latents, self.latents, len(self.rows)]
        _, bend, wide, _, last = self.encoder
        assert isinstance(wide, nn.Linear)
        features = bend(self._read_answers(categories))
        if self.numbers is None:
            features = wide(features)
        else:
            parts = (part.to(self.numbers) for part in (features, wide.weight, wide.bias))
            features = F.linear(*parts).to(features.dtype)
        mean, raw_sd, below = last(bend(features)).split(sizes, dim=1)
        factor = torch.diag_embed(F.softplus(raw_sd + UNIT_SOFTPLUS) + MIN_SD)
        factor = factor.index_put((torch.arange(len(factor))[:, None], self.rows, self.columns), below)
        return Posterior(mean, factor)

    def _read_answers(self, categories: Tensor) -> Tensor:
        """The encoder's first layer on one-hot answers; a sum of its columns, which is quicker, where none learns."""
        first = self.encoder[0]
        assert isinstance(first, nn.Linear)
        if not torch.is_grad_enabled():
            return F.embedding_bag(categories + self.starts, first.weight.T.contiguous(), mode="sum") + first.bias
        one_hot = torch.zeros(len(categories), self.inputs)
        return F.linear(one_hot.scatter_(1, categories + self.starts, 1.0), first.weight, first.bias)

    def posterior(self, categories: Tensor) -> Posterior:
        """As `encode`, but who answered nothing gets the prior itself."""
        learned = self.encode(categories)
        answered = (categories >= 0).any(dim=1)
        mean, factor = self.prior.moments()
        return Posterior(
            torch.where(answered[:, None], learned.mean, mean),
            torch.where(answered[:, None, None], learned.factor, factor),
        )

    def draw(self, posterior: Posterior, categories: Tensor, noise: Tensor) -> Draws:
        """Draws from a posterior, weighed by the answers of `categories` (B, J); `noise` is (S, B or 1, D)."""
        latents = posterior.mean + torch.einsum("bij,sbj->sbi", posterior.factor, noise.expand(-1, len(categories), -1))
        answers = self.log_prob(latents, categories).sum(dim=-1)
        return Draws(latents, answers + self.prior.log_prob(latents) - self.log_density(posterior, noise))

    def log_density(self, posterior: Posterior, noise: Tensor) -> Tensor:
        """Log density (S, B) of a posterior where it puts the noise (S, B or 1, D), in nats."""
        log_det = posterior.factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return -0.5 * noise.square().sum(dim=-1) - log_det - 0.5 * LOG_TWO_PI * self.latents

    def log_prob(self, latents: Tensor, categories: Tensor) -> Tensor:
        """Log probability (..., B, J) of the answers of `categories` (B, J); zero where there is none."""
        return self.items.log_prob(*self.place(latents), categories)

    def place(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """Location and spread (..., J) of the items at latents (..., D); the spread is None without residuals."""
        location = self.items.locations(latents[..., : self.traits])
        if self.shift is None:
            return location, None
        shift, spread = self.shift(latents[..., self.traits :], self.items.discriminations())
        return location + shift, spread

    def loss(self, categories: Tensor, weights: Tensor, noise: Tensor) -> Tensor:
        """Minus the weighted mean bound on the answers of `categories` (B, J), in nats: items and prior learn from it.

        The encoder does not: it learns from people simulated by the model, of whom there is no end (reweighted
        wake-sleep, Bornschein & Bengio 2015), and so cannot learn the training people by heart.
        `weights` (B) have mean 1 over the training people; `noise` (S, B, D) is standard normal.
        """
        with torch.no_grad():
            posterior = self.encode(categories)
        return -(weights * self.draw(posterior, categories, noise).bound()).mean()

    def infer(self, categories: Tensor, draws: int) -> Draws:
        """Weighed draws of people from fixed noise: a person's are the same whoever stands beside."""
        return self.draw(self.posterior(categories), categories, fixed_noise(draws, self.latents).to(categories.device))

    @torch.no_grad()
    def predict(self, categories: Tensor, draws: int = PREDICTION_DRAWS) -> Tensor:
        """Probability of every category of every item (B, J, K), given the answers of `categories` (B, J).

        p(y* | y) = E[p(y* | z) | y] by self-normalised importance sampling from the encoder's posterior.
        """
        inferred = self.infer(categories, draws)
        masses = inferred.masses()
        sums = torch.zeros(*categories.shape, self.items.most)
        for latents, mass in zip(inferred.latents, masses, strict=True):
            sums += mass[:, None, None] * self.items.probabilities(*self.place(latents))
        return sums

    def person_fit(self, categories: Tensor, posterior: Posterior) -> Tensor:
        """How likely the answers are beside what the posterior mean expects of them (B), in sds: low = unusual.

        Drasgow, Levine & Williams (1985): l_z = (l - E l) / sd(l), l the log likelihood of the items answered, here
        at the mean of all latents. Zero for who answered nothing.
        """
        location, spread = self.place(posterior.mean)
        # Categories, then items come first, in memory, too: sums over them then move whole planes of people.
        logits = self.items.edges().T.contiguous()[..., None] - location.T.contiguous()
        below = torch.sigmoid(logits if spread is None else logits * spread.T.contiguous())
        probability = (below[1:] - below[:-1]).clamp(min=SMALLEST_PROBABILITY)
        logs = probability.log()
        weighed = probability * logs
        expected = weighed.sum(dim=0)
        variance = (weighed * logs).sum(dim=0) - expected.square()
        given = categories.T.contiguous()
        found = logs.gather(0, given.clamp(min=0)[None])[0]
        surprise = ((found - expected) * (given >= 0)).sum(dim=0)
        return surprise / (variance * (given >= 0)).sum(dim=0).clamp(min=SMALLEST_PROBABILITY).sqrt()

    def categories(self, codes: Tensor) -> Tensor:
        """Codes (B, J) as the network's categories: flipped items turned round."""
        return to_categories(codes, self.spec)


@lru_cache(maxsize=8)
def fixed_noise(draws: int, latents: int) -> Tensor:
    """Standard normal points (S, 1, D) of a scrambled Sobol sequence, which fill the space more evenly than chance.

    They lie with the processor, whatever new tensors lie on.
    """
    engine = torch.quasirandom.SobolEngine(latents, scramble=True, seed=1)  # type: ignore[no-untyped-call]
    with torch.device("cpu"):
        points: Tensor = torch.special.ndtri(engine.draw(draws).double().clamp(1e-6, 1 - 1e-6))
    return points.float()[:, None, :]
