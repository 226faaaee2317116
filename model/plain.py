"""The plain variational autoencoder: free latents, a perceptron as decoder, one softmax an item.

Kingma & Welling (2014): log p(y) >= E_q[log p(y | z)] - KL(q(z | y) || N(0, I)). It stands beside the graded response
model to be compared with. Its latents have no names, no order and no lasting unit, so it gives nobody a profile.
Shapes: B people, D latents, J items, K the most categories of an item, S draws.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from model.likelihood import to_categories
from model.network import PREDICTION_DRAWS, Draws, Posterior, fixed_noise
from model.spec import MISSING, FeatureSpec

LATENTS = 20
HIDDEN = 128
HIDDEN_SHARE = 1.0  # of the answers at most: without some of them it must foretell all
FIRST_LOG_SD = -0.5


class PlainNetwork(nn.Module):
    """Encoder and decoder of two layers each; the same answers in, the same probabilities out as ProfileNetwork."""

    starts: Tensor
    exists: Tensor

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec, self.latents = spec, LATENTS
        sizes = torch.tensor([len(item.levels) for item in spec.items])
        self.most = int(sizes.max())
        widths = sizes + 1
        self.inputs = int(widths.sum())
        self.register_buffer("starts", widths.cumsum(0) - widths + 1, persistent=False)
        self.register_buffer("exists", torch.arange(self.most) < sizes[:, None], persistent=False)
        self.encoder = nn.Sequential(
            nn.Linear(self.inputs, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, 2 * LATENTS),
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENTS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, len(spec.items) * self.most)
        )

    def copy(self) -> PlainNetwork:
        """Another network with the same weights, none of them learning."""
        return copy.deepcopy(self).requires_grad_(False)

    def posterior(self, categories: Tensor) -> Posterior:
        """Posterior of people from their categories (B, J), -1 where there is no answer; latents are independent."""
        one_hot = torch.zeros(len(categories), self.inputs)
        one_hot.scatter_(1, categories + self.starts, 1.0)
        mean, log_sd = self.encoder(one_hot).chunk(2, dim=1)
        return Posterior(mean, torch.diag_embed((log_sd + FIRST_LOG_SD).exp()))

    def decode(self, latents: Tensor) -> Tensor:
        """Log probability of every category (..., J, K) at latents (..., D); minus infinity beyond an item's last."""
        logits = self.decoder(latents).unflatten(-1, (len(self.spec.items), self.most))
        logs: Tensor = logits.masked_fill(~self.exists, -math.inf).log_softmax(dim=-1)
        return logs

    def log_prob(self, latents: Tensor, categories: Tensor) -> Tensor:
        """Log probability (..., B, J) of the answers of `categories` (B, J); zero where there is none."""
        logs = self.decode(latents)
        places = categories.clamp(min=0)[..., None].expand(*logs.shape[:-1], 1)
        return logs.gather(-1, places)[..., 0].masked_fill(categories < 0, 0.0)

    def infer(self, categories: Tensor, draws: int) -> Draws:
        """Draws of people from fixed noise, all of one weight: in so many dimensions others would rest on a few."""
        posterior = self.posterior(categories)
        sds = posterior.factor.diagonal(dim1=-2, dim2=-1)
        noise = fixed_noise(draws, self.latents).to(sds.device)
        return Draws(posterior.mean + sds * noise, torch.zeros(draws, len(categories)))

    def bound(self, posterior: Posterior, categories: Tensor, noise: Tensor) -> Tensor:
        """The evidence lower bound (B) on the answers of `categories`, by one draw; the KL divergence is exact."""
        sds = posterior.factor.diagonal(dim1=-2, dim2=-1)
        divergence = 0.5 * (posterior.mean.square() + sds.square() - 1).sum(dim=-1) - sds.log().sum(dim=-1)
        return self.log_prob(posterior.mean + sds * noise, categories).sum(dim=-1) - divergence

    def loss(self, categories: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
        """Minus the weighted mean bound on the answers of `categories` (B, J), some of which the encoder misses."""
        share = HIDDEN_SHARE * torch.rand((len(categories), 1), generator=generator)
        hidden = torch.rand(categories.shape, generator=generator) < share
        posterior = self.posterior(categories.masked_fill(hidden, MISSING))
        noise = torch.randn((len(categories), self.latents), generator=generator)
        return -(weights * self.bound(posterior, categories, noise)).mean()

    @torch.no_grad()
    def predict(self, categories: Tensor, draws: int = PREDICTION_DRAWS) -> Tensor:
        """Probability of every category of every item (B, J, K), given the answers of `categories` (B, J)."""
        return self.decode(self.infer(categories, draws).latents).exp().mean(dim=0)

    def categories(self, codes: Tensor) -> Tensor:
        """Codes (B, J) as the network's categories: flipped items turned round."""
        return to_categories(codes, self.spec)
