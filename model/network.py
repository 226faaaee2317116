"""The variational autoencoder: traits with a correlated normal prior, an encoder, and the evidence lower bound.

Kingma & Welling (2014): log p(y) >= E_q[log p(y | theta)] - KL(q(theta | y) || p(theta)).
Shapes: B people, T traits, J items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.likelihood import GradedItems, to_categories
from model.spec import FeatureSpec

HIDDEN = (512, 256)
UNIT_SOFTPLUS = 0.5413248546129181  # softplus of it is 1: the posterior starts with the prior's unit
MIN_SD = 1e-3


@dataclass(frozen=True)
class Posterior:
    """Normal posterior: mean (B, T) and lower-triangular factor (B, T, T) of the covariance."""

    mean: Tensor
    factor: Tensor

    def sd(self) -> Tensor:
        return self.factor.square().sum(dim=-1).sqrt()


@dataclass(frozen=True)
class Loss:
    """Weighted means per person in nats, scalars: elbo = reconstruction - kl, and the loss is -elbo."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor


class ProfileNetwork(nn.Module):
    """Encoder 512-256 on one-hot answers with a missing level, graded response decoder, prior N(0, R)."""

    starts: Tensor

    def __init__(self, spec: FeatureSpec, margins: npt.NDArray[np.float64] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.items = GradedItems(spec, margins)
        traits = len(spec.traits)
        widths = torch.tensor([len(item.levels) + 1 for item in spec.items])
        self.inputs = int(widths.sum())
        self.register_buffer("starts", widths.cumsum(0) - widths + 1, persistent=False)
        self.rows, self.columns = torch.tril_indices(traits, traits, offset=-1)
        self.raw_correlation = nn.Parameter(torch.zeros(len(self.rows)))
        self.encoder = nn.Sequential(
            nn.Linear(self.inputs, HIDDEN[0]),
            nn.SiLU(),
            nn.Linear(HIDDEN[0], HIDDEN[1]),
            nn.SiLU(),
            nn.Linear(HIDDEN[1], 2 * traits + len(self.rows)),
        )

    def prior_factor(self) -> Tensor:
        """Cholesky factor C (T, T) of the prior's correlation matrix R = C C': rows of length one."""
        traits = len(self.spec.traits)
        lower = torch.eye(traits).index_put((self.rows, self.columns), self.raw_correlation)
        return F.normalize(lower, dim=1)

    def encode(self, categories: Tensor) -> Posterior:
        """Posterior of people from their categories (B, J), -1 where there is no answer."""
        one_hot = torch.zeros(len(categories), self.inputs)
        one_hot.scatter_(1, categories + self.starts, 1.0)
        traits = len(self.spec.traits)
        mean, raw_sd, below = self.encoder(one_hot).split([traits, traits, len(self.rows)], dim=1)
        factor = torch.diag_embed(F.softplus(raw_sd + UNIT_SOFTPLUS) + MIN_SD)
        factor = factor.index_put((torch.arange(len(factor))[:, None], self.rows, self.columns), below)
        return Posterior(mean, factor)

    def posterior(self, categories: Tensor) -> Posterior:
        """As `encode`, but who answered nothing gets the prior itself."""
        learned = self.encode(categories)
        answered = (categories >= 0).any(dim=1)
        return Posterior(
            torch.where(answered[:, None], learned.mean, 0.0),
            torch.where(answered[:, None, None], learned.factor, self.prior_factor()),
        )

    def loss(self, categories: Tensor, weights: Tensor, noise: Tensor) -> Loss:
        """The bound on the answers of `categories` (B, J), reparameterised.

        `weights` (B) have mean 1 over the training people; `noise` (S, B, T) is standard normal.
        """
        posterior = self.encode(categories)
        theta = posterior.mean + torch.einsum("bij,sbj->sbi", posterior.factor, noise)
        answers = self.items.log_prob(theta, categories).sum(dim=-1).mean(dim=0)
        divergence = kl_to_prior(posterior, self.prior_factor())
        reconstruction, kl = (weights * answers).mean(), (weights * divergence).mean()
        return Loss(reconstruction - kl, reconstruction, kl)

    def bound(self, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL of each person (B) in nats, by quadrature instead of sampling."""
        posterior = self.posterior(categories)
        log_prob, _ = self.items.expect_over_normal(posterior.mean, posterior.sd(), categories)
        return log_prob.sum(dim=1), kl_to_prior(posterior, self.prior_factor())

    def categories(self, codes: Tensor) -> Tensor:
        """Codes (B, J) as the network's categories: flipped items turned round."""
        return to_categories(codes, self.spec)


def kl_to_prior(posterior: Posterior, prior_factor: Tensor) -> Tensor:
    """KL(N(m, L L') || N(0, C C')) in nats (B), for lower-triangular L and C."""
    traits = prior_factor.shape[0]
    both = torch.cat([posterior.factor, posterior.mean[..., None]], dim=-1)
    scaled: Tensor = torch.linalg.solve_triangular(prior_factor, both, upper=False)
    log_ratio = prior_factor.diagonal().log().sum() - posterior.factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return 0.5 * (scaled.square().sum(dim=(-2, -1)) - traits) + log_ratio
