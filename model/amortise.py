"""Bring the encoder to the posterior itself, on people simulated from the finished model.

The importance-weighted bound leaves an encoder wider than the posterior. On pairs of latents and answers drawn from
the model, maximum likelihood of the latents has the posterior's own mean and covariance as its optimum (the sleep
phase of Hinton et al. 1995), whatever answers are missing: profiles are then calibrated by construction.
"""

import math

import torch
from torch import Tensor, optim

from model.arithmetic import make_generator, on_device
from model.errors import ModelError
from model.network import ProfileNetwork
from model.progress import Progress
from model.spec import MISSING

PEOPLE = 512  # simulated for each step
RATE = 2e-3
AVERAGING = 0.995
FEW = 10  # latents: see `widen`
THINNED = 0.5  # share of people who answer a random part only, so that every number of answers is learned


def settle_encoder(network: ProfileNetwork, patterns: Tensor, seed: int, steps: int, device: str = "cpu") -> None:
    """Train the encoder in place; `patterns` (people, items) say who answered what, decoder and prior stay.

    It takes so many `steps`, and more where there are many latents. The work is done on the device; the network stays
    with the processor. Raises ModelError for a loss that is not finite, naming the step.
    """
    with on_device(device):
        _settle(network.to(device), patterns.to(device), seed, steps)
    network.cpu()


def _settle(network: ProfileNetwork, patterns: Tensor, seed: int, steps: int) -> None:
    generator, steps = make_generator(seed), round(steps * widen(network.latents))
    encoder: list[Tensor] = list(network.encoder.parameters())
    for parameter in encoder:
        parameter.requires_grad_(True)
    averaged = [parameter.detach().clone() for parameter in encoder]
    optimizer = optim.Adam(encoder, lr=RATE, fused=True)
    heard = Progress("settling the encoder", steps)
    for step in range(steps):
        heard.tell(step)
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        latents, categories = simulate_people(network, patterns, PEOPLE, generator)
        loss = -score_latents(network, latents, categories).mean()
        if not math.isfinite(loss.item()):
            raise ModelError(
                f"Training stopped: in step {step + 1} of settling the encoder the loss is not a number. "
                "No model is written; lower the learning rates."
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(encoder, 10.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, encoder, 1 - min(AVERAGING, (step + 1) / (step + 10)))
    with torch.no_grad():
        for parameter, average in zip(encoder, averaged, strict=True):
            parameter.copy_(average)
            parameter.requires_grad_(False)


def widen(latents: int) -> float:
    """By what factor many latents lengthen a training, slow its items down and enlarge what the encoder learns from.

    The weights of a few draws vary the more, and with them the steps, the more latents there are; 1 for up to FEW.
    """
    return max(1.0, latents / FEW)


@torch.no_grad()
def simulate_people(
    network: ProfileNetwork, patterns: Tensor, count: int, generator: torch.Generator, thinned: float = THINNED
) -> tuple[Tensor, Tensor]:
    """Latents (count, D) and categories (count, J) from the model, missing where a person of `patterns` has none.

    A share `thinned` of the people answer a random part only.
    """
    latents = network.prior.sample(count, generator)
    answers = network.items.draw(*network.place(latents), generator)
    shown = patterns[torch.randint(len(patterns), (count,), generator=generator)]
    kept = torch.rand((count, 1), generator=generator)
    kept[torch.rand((count, 1), generator=generator) >= thinned] = 1.0
    shown = shown & (torch.rand(answers.shape, generator=generator) < kept)
    return latents, answers.masked_fill(~shown, MISSING)


def score_latents(network: ProfileNetwork, latents: Tensor, categories: Tensor) -> Tensor:
    """Log density (B) of latents (B, D) under the encoder's posterior, without its constant."""
    posterior = network.encode(categories)
    centred = (latents - posterior.mean)[..., None]
    scaled: Tensor = torch.linalg.solve_triangular(posterior.factor, centred, upper=False)
    log_det = posterior.factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    log_density: Tensor = -0.5 * scaled.square().sum(dim=(-2, -1)) - log_det
    return log_density
