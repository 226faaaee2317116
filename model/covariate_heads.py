"""Likelihoods of covariates given the named traits, one for each kind.

Shapes: B people, T traits, S draws; numbers are float64.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.spec import CovariateSpec

SLOPE_PRECISION, CONSTANT_PRECISION = 1.0, 0.01  # of normal priors: they keep separable or empty levels finite
ITERATIONS = 100
SMALLEST_DISPERSION = 1e-4  # below it the negative binomial is a Poisson distribution


class CovariateHead(nn.Module):
    """Softmax, logistic, normal or negative binomial (variance mu + a mu^2) regression of a covariate on the traits.

    Its numbers are buffers: the training of the network leaves them alone.
    """

    slopes: Tensor
    constants: Tensor
    log_shape: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, spec: CovariateSpec, traits: int) -> None:
        super().__init__()
        self.spec = spec
        outputs = max(1, len(spec.levels) - 1)
        self.register_buffer("slopes", torch.zeros((outputs, traits), dtype=torch.float64))
        self.register_buffer("constants", torch.zeros(outputs, dtype=torch.float64))
        self.register_buffer("log_shape", torch.zeros((), dtype=torch.float64))
        self.register_buffer("center", torch.ones((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def log_prob(self, traits: Tensor, values: Tensor) -> Tensor:
        """Log probability or density (S, B) of values (B) at traits (S, B, T); zero for values not known (NaN)."""
        known = ~values.isnan()
        value = torch.where(known, values, 0.0)
        linear = F.linear(traits, self.slopes, self.constants)
        if self.spec.levels:
            logits = F.pad(linear, (1, 0)).log_softmax(dim=-1)
            index = value.long()[None, :, None].expand(len(traits), -1, 1)
            found = logits.gather(-1, index)[..., 0]
        elif self.spec.kind == "continuous":
            residual = ((value - self.center) / self.scale - linear[..., 0]) * torch.exp(-self.log_shape)
            found = -0.5 * (residual.square() + math.log(2 * math.pi)) - self.log_shape - self.scale.log()
        else:
            size = 1 / (self.log_shape.exp() + SMALLEST_DISPERSION)
            log_mean = self.center.log() + linear[..., 0]
            log_total = torch.logaddexp(log_mean, size.log())
            ways = torch.lgamma(value + size) - torch.lgamma(size) - torch.lgamma(value + 1)
            found = ways + size * (size.log() - log_total) + value * (log_mean - log_total)
        return torch.where(known, found, 0.0)

    def forward(self, traits: Tensor, log_masses: Tensor, values: Tensor) -> Tensor:
        """Log likelihood (B) of values, the traits integrated out over draws with `log_masses` (S, B)."""
        return torch.logsumexp(log_masses + self.log_prob(traits, values), dim=0)

    def fit(self, traits: Tensor, log_masses: Tensor, values: Tensor, weights: Tensor) -> None:
        """Maximise the weighted likelihood of known values (B) from where the head stands, by L-BFGS."""
        total = weights.sum()
        names = ("slopes", "constants", "log_shape")
        free = {name: getattr(self, name).clone().requires_grad_() for name in names}
        optimizer = torch.optim.LBFGS(
            list(free.values()), max_iter=ITERATIONS, tolerance_change=1e-9, line_search_fn="strong_wolfe"
        )

        def close() -> Tensor:
            optimizer.zero_grad()
            fitted = torch.func.functional_call(self, free, (traits, log_masses, values))
            penalty = SLOPE_PRECISION * free["slopes"].square().sum()
            penalty = penalty + CONSTANT_PRECISION * (free["constants"].square().sum() + free["log_shape"].square())
            loss: Tensor = -(weights * fitted).sum() / total + 0.5 * penalty / len(values)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(close)  # type: ignore[no-untyped-call]
        for name in names:
            getattr(self, name).copy_(free[name].detach())

    def start(self, values: Tensor, weights: Tensor) -> None:
        """At the margins of known values: no slopes."""
        self.slopes.zero_()
        share = weights / weights.sum()
        if self.spec.levels:
            of = torch.zeros(len(self.spec.levels), dtype=torch.float64).index_add_(0, values.long(), share)
            of = of.clamp(min=0.5 / len(values)).log()
            self.constants.copy_(of[1:] - of[0])
            return
        mean = (share * values).sum()
        variance = (share * (values - mean).square()).sum()
        self.center.copy_(mean)
        self.constants.zero_()
        self.log_shape.zero_()
        if self.spec.kind == "continuous":
            self.scale.copy_(variance.sqrt().clamp(min=1e-12))
        else:
            self.log_shape.copy_(((variance - mean) / mean.square()).clamp(min=1e-3).log())
