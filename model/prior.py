"""The population: a prior over named traits and residual latents.

The traits' density is a mixture of normals, standardised as a whole: mean 0 and variance 1 by construction, and free
to be skewed or floored (a semi-parametric latent density, as in Woods & Lin 2009). Residual latents are standard
normal, independent of the traits and of one another. Shapes: T traits, R residuals, D = T + R, M components.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COMPONENTS = 4
FIRST_SPREAD = 0.3  # of the components' means: equal components would never part
FIRST_LOG_SD = -0.1
LOG_TWO_PI = math.log(2 * math.pi)


class Prior(nn.Module):
    """`population_mean` (T) and `population_factor` (T, T), lower triangular, move the standardised mixture.

    They are found after the mixture, by model/unit.py. In the reference population traits have mean 0 and variance 1;
    a later one has moved, and its traits go together otherwise, but the unit has not changed.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, traits: int, residuals: int) -> None:
        super().__init__()
        self.traits, self.residuals = traits, residuals
        for name, places in zip(("rows", "columns"), torch.tril_indices(traits, traits, -1), strict=True):
            self.register_buffer(name, places.clone(), persistent=False)
        self.logits = nn.Parameter(torch.zeros(COMPONENTS))
        self.means = nn.Parameter(FIRST_SPREAD * torch.randn(COMPONENTS, traits))
        self.log_sds = nn.Parameter(torch.full((COMPONENTS, traits), FIRST_LOG_SD))
        self.below = nn.Parameter(torch.zeros(COMPONENTS, len(self.rows)))
        self.population_mean = nn.Parameter(torch.zeros(traits), requires_grad=False)
        self.population_factor = nn.Parameter(torch.eye(traits), requires_grad=False)

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log masses (M), means (M, T) and lower-triangular factors (M, T, T) of the traits' mixture."""
        log_mass = self.logits.log_softmax(0)
        mass = log_mass.exp()[:, None]
        lower = torch.eye(self.traits).expand(len(mass), -1, -1)
        lower = lower.index_put((torch.arange(len(mass))[:, None], self.rows, self.columns), self.below)
        sds = self.log_sds.exp()
        factors = F.normalize(lower, dim=2) * sds[:, :, None]
        middle = (mass * self.means).sum(dim=0)
        variance = (mass * (sds.square() + (self.means - middle).square())).sum(dim=0)
        unit = self.population_factor / variance.sqrt()
        return log_mass, (self.means - middle) @ unit.T + self.population_mean, unit @ factors

    @torch.no_grad()
    def move_to(self, mean: Tensor, covariance: Tensor) -> None:
        """Give the population a mean (T) and a covariance (T, T) of its traits; the mixture keeps its shape."""
        now = torch.linalg.cholesky(self.covariance()[: self.traits, : self.traits])
        change = torch.linalg.cholesky(covariance) @ torch.linalg.inv(now)
        self.population_factor.copy_((change @ self.population_factor).tril())
        self.population_mean.copy_(mean)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log density (...) of latents (..., D), in nats."""
        theta, residual = latents[..., : self.traits], latents[..., self.traits :]
        log_mass, means, factors = self.components()
        inverse = torch.linalg.solve_triangular(factors, torch.eye(self.traits).expand_as(factors), upper=False)
        # L^-1 (theta - mean) of all components as one product, people last: what follows moves whole planes.
        points = theta.movedim(-1, 0).reshape(self.traits, -1)
        middle = torch.einsum("mij,mj->mi", inverse, means).flatten()
        scaled = (inverse.flatten(0, 1) @ points).sub_(middle[:, None]).unflatten(0, means.shape)
        constant = log_mass - factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        log_traits = torch.logsumexp(constant[:, None] - 0.5 * scaled.square().sum(dim=1), dim=0)
        log_traits = log_traits.view(theta.shape[:-1])
        return log_traits - 0.5 * residual.square().sum(dim=-1) - 0.5 * LOG_TWO_PI * latents.shape[-1]

    def covariance(self) -> Tensor:
        """Covariance of all latents (D, D)."""
        log_mass, means, factors = self.components()
        mass, centred = log_mass.exp(), means - self.population_mean
        traits = torch.einsum("m,mij->ij", mass, factors @ factors.transpose(1, 2))
        traits = traits + torch.einsum("m,mi,mj->ij", mass, centred, centred)
        whole = torch.eye(self.traits + self.residuals)
        return whole.index_put((torch.arange(self.traits)[:, None], torch.arange(self.traits)), traits)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D) and lower-triangular factor (D, D) of all latents: the normal that is nearest to the prior."""
        mean = F.pad(self.population_mean, (0, self.residuals))
        return mean, torch.linalg.cholesky(self.covariance())

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Latents (count, D)."""
        log_mass, means, factors = self.components()
        which = torch.multinomial(log_mass.exp(), count, replacement=True, generator=generator)
        noise = torch.randn((count, self.traits), generator=generator)
        theta = means[which] + torch.einsum("bij,bj->bi", factors[which], noise)
        return torch.cat([theta, torch.randn((count, self.residuals), generator=generator)], dim=1)
