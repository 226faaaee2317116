"""What the scales leave: residual latents shift each item's location, and widen or narrow its answers' spread.

A shift moves all of an item's logits as one, and a spread is positive, so categories keep their order. Along a
trait's own direction the perceptron's shift is taken out: what all items of a scale share is the trait, and a residual
cannot stand in for it. What several scales share beside their traits (a style of answering, say) goes through `along`:
it moves a scale's items as its trait would, and is held near zero. Shapes: R residuals, T traits, J items.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 8  # of the perceptron for each residual
ALONG_PRECISION = 1_500.0  # of a normal density of `along` around zero
WEIGHT_PRECISION = 10.0  # and of the weights that go out: a few may not make an answer all but certain
WIDEST = 3.0  # of the spread's logarithm: within it the items' open edges stand for infinity


class ResidualShift(nn.Module):
    """A perceptron of the residuals alone, with a straight way past its bend, and `along` (T, R), in trait sds.

    It is silent at the start. What many items share beside their scales goes straight: bends alone would need many
    hidden units for it.

    With one trait there is nothing that scales could share, and `along` stays zero.
    """

    settled: Tensor

    def __init__(self, residuals: int, traits: int, items: int) -> None:
        super().__init__()
        self.register_buffer("settled", torch.tensor(False))
        self.along = nn.Parameter(torch.zeros(traits, residuals), requires_grad=traits > 1)
        self.hidden = nn.Linear(residuals, HIDDEN * residuals)
        self.out = nn.Linear(HIDDEN * residuals + residuals, 2 * items)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, residual: Tensor, discriminations: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and spread (..., J) at residuals (..., R), given the slopes (T, J).

        For every trait the perceptron's shifts, weighted by the slopes, sum to zero.
        """
        weight, bias = (self.out.weight, self.out.bias) if self.settled else self.take_out_traits(discriminations)
        features = torch.cat([torch.tanh(self.hidden(residual)), residual], dim=-1)
        shift, log_spread = F.linear(features, weight, bias).chunk(2, dim=-1)
        shift = shift + residual @ (self.along.T @ discriminations)
        return shift, torch.exp(log_spread.clamp(-WIDEST, WIDEST))

    def take_out_traits(self, discriminations: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the last layer without the traits' directions, which comes to the same as taking these out
        of what comes out of the layer."""
        direction = discriminations / discriminations.norm(dim=1, keepdim=True)
        shifting, spreading = self.out.weight.chunk(2)
        constant, spreading_constant = self.out.bias.chunk(2)
        shifting = shifting - direction.T @ (direction @ shifting)
        constant = constant - (constant @ direction.T) @ direction
        return torch.cat([shifting, spreading]), torch.cat([constant, spreading_constant])

    @torch.no_grad()
    def settle(self, discriminations: Tensor) -> None:
        """Write the directions taken out into the weights: an item that changes later changes no other's shift."""
        weight, bias = self.take_out_traits(discriminations)
        self.out.weight.copy_(weight)
        self.out.bias.copy_(bias)
        self.settled.fill_(True)

    def penalty(self) -> Tensor:
        """Minus the log density of the parameters, in nats of the whole sample.

        Without that of `along`, trainings end in different blends of traits and residuals that foretell answers
        equally well.
        """
        weights = WEIGHT_PRECISION * self.out.weight.square().sum()
        return 0.5 * (weights + ALONG_PRECISION * self.along.square().sum())
