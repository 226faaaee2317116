"""Training under differential privacy: DP-SGD (Abadi et al. 2016) for what learns from people, items and population.

The encoder learns from people whom the private model simulates, which costs no privacy. The number of steps is fixed,
and the mean of the last ones' weights is kept, whatever held-out people say. Opacus samples, clips, draws the noise and
accounts for it; gradients of each person come from torch.func, since Opacus's own see layers alone, and the parameters
of items and prior stand by themselves. Two sets of people are neighbours where one has one person more.
Shapes: N people, B of a step, J items, D latents, S draws.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn, optim
from torch.func import functional_call, grad, vmap

from model.amortise import score_latents, simulate_people
from model.fitting import BETAS, DREAMT, TrainingSettings, find_rate
from model.network import SMALLEST_PROBABILITY, ProfileNetwork
from model.progress import Progress

STEPS = 200
RATE = 0.1  # Adam's, of items and population
SAMPLE_RATE = 0.1  # a person's chance to be in a step, independent of all others
FIRST_DREAMS, DREAMS = 200, 4  # steps of the encoder after the first step and after each: they cost no privacy
ITEMS_FIRST = 0.3  # of the steps: while thresholds are far off, a population would learn their error
AVERAGED = 0.5  # of the steps, the last ones: their weights' mean is the model
BLOCK = 1024  # people whose gradients are reckoned at once
ACCOUNTANT = "prv"  # numerical composition, an upper bound (Gopi, Lee and Wutschitz 2021)


@dataclass(frozen=True)
class Privacy:
    """What a training may cost a person, and what is fixed without looking at people.

    `clip` is the largest norm of a person's gradient, in nats, its survey weight inside; `weight` is the weight that
    counts as 1, about the mean one.
    """

    epsilon: float
    delta: float
    clip: float
    weight: float


@dataclass(frozen=True)
class Spent(Privacy):
    """What a training did cost, and by what."""

    noise_multiplier: float
    sample_rate: float
    steps: int


def find_noise(privacy: Privacy) -> float:
    """The noise multiplier at which STEPS steps cost at most epsilon at delta."""
    return float(
        get_noise_multiplier(
            target_epsilon=privacy.epsilon,
            target_delta=privacy.delta,
            sample_rate=SAMPLE_RATE,
            steps=STEPS,
            accountant=ACCOUNTANT,
        )
    )


class _Person(nn.Module):
    """Minus the bound of one person, weighted, as a module: torch.func replaces the parameters of modules.

    Probabilities are the plain differences: derivatives by hand, as `GradedItems.log_prob` has them, are closed to it.
    """

    def __init__(self, network: ProfileNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, categories: Tensor, weight: Tensor, latents: Tensor, log_density: Tensor) -> Tensor:
        """`categories` (J), `weight` (), `latents` (S, D) and the logarithm (S) of the density they were drawn with."""
        table = self.network.items.probabilities(*self.network.place(latents))
        given = categories.clamp(min=0).expand(len(latents), -1)[..., None]
        answers = table.gather(-1, given)[..., 0].clamp(min=SMALLEST_PROBABILITY).log() * (categories >= 0)
        log_weights = answers.sum(dim=-1) + self.network.prior.log_prob(latents) - log_density
        return -weight * (torch.logsumexp(log_weights, dim=0) - math.log(len(latents)))


def fit_privately(
    network: ProfileNetwork, categories: Tensor, weights: Tensor, settings: TrainingSettings, privacy: Privacy
) -> Spent:
    """Train the network in place on people's `categories` (N, J); `weights` (N) are in units of `privacy.weight`.

    Randomness comes from the system: noise that could be drawn again would hide nobody.
    """
    multiplier = find_noise(privacy)
    secret = torch.Generator().manual_seed(int.from_bytes(os.urandom(8), "big", signed=True))
    learning = {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not name.startswith("encoder.")
    }
    parts = [[p for name, p in learning.items() if name.startswith(of)] for of in ("items.", "prior.")]
    optimizer = DPOptimizer(
        optim.Adam([{"params": part} for part in parts], betas=BETAS),
        noise_multiplier=multiplier,
        max_grad_norm=privacy.clip,
        expected_batch_size=None,
        loss_reduction="sum",  # the number of people is nobody's business, and Adam needs no scale
        generator=secret,
        secure_mode=True,
    )
    encoding = optim.Adam(network.encoder.parameters(), lr=settings.encoder_rate, betas=BETAS)
    everything = full_pattern(network)
    sampler = UniformWithReplacementSampler(
        num_samples=len(categories), sample_rate=SAMPLE_RATE, generator=secret, steps=STEPS
    )
    mean = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    kept = math.ceil(STEPS * AVERAGED)
    heard = Progress("training under differential privacy", STEPS)
    for step, chosen in enumerate(sampler):
        heard.tell(step)
        rate = find_rate(step / STEPS)
        items, prior = optimizer.param_groups
        items["lr"] = RATE * rate
        prior["lr"] = items["lr"] if step >= STEPS * ITEMS_FIRST else 0.0
        encoding.param_groups[0]["lr"] = settings.encoder_rate * rate
        optimizer.zero_grad()
        gradients = find_gradients(network, learning, categories[chosen], weights[chosen], settings.samples, secret)
        for name, parameter in learning.items():
            parameter.grad_sample = gradients[name]  # type: ignore[attr-defined]
        optimizer.step()
        for _ in range(DREAMS if step else FIRST_DREAMS):
            latents, answers = simulate_people(network, everything, DREAMT, secret)
            encoding.zero_grad()
            (-score_latents(network, latents, answers).mean()).backward()  # type: ignore[no-untyped-call]
            encoding.step()
        if step >= STEPS - kept:
            for name, parameter in network.named_parameters():
                mean[name] += parameter.detach() / kept
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(mean[name])
    return Spent(**asdict(privacy), noise_multiplier=multiplier, sample_rate=SAMPLE_RATE, steps=STEPS)


def full_pattern(network: ProfileNetwork) -> Tensor:
    """Whom the encoder learns from answers everything, or a random part (1, J): who skips what is people's own."""
    return torch.ones((1, len(network.spec.items)), dtype=torch.bool)


def find_gradients(
    network: ProfileNetwork,
    learning: Mapping[str, Tensor],
    categories: Tensor,
    weights: Tensor,
    samples: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Each person's own gradient (B, ...) of every parameter that learns; one that is no number counts as zero."""
    person = _Person(network)
    parameters = {f"network.{name}": parameter.detach() for name, parameter in learning.items()}

    def lose(parameters: dict[str, Tensor], *of: Tensor) -> Tensor:
        found: Tensor = functional_call(person, parameters, of)
        return found

    if not len(categories):
        return {name: torch.zeros((0, *parameter.shape)) for name, parameter in learning.items()}
    each = vmap(grad(lose), in_dims=(None, 0, 0, 0, 0))
    blocks = []
    for block, weight in zip(torch.split(categories, BLOCK), torch.split(weights, BLOCK), strict=True):
        half = torch.randn((samples // 2, len(block), network.latents), generator=generator)
        noise = torch.cat([half, -half])
        with torch.no_grad():
            posterior = network.encode(block)
            latents = posterior.mean[:, None] + torch.einsum("bij,sbj->bsi", posterior.factor, noise)
            log_density = network.log_density(posterior, noise).T
        blocks.append(each(parameters, block, weight, latents, log_density))
    found = {name: torch.cat([block[f"network.{name}"] for block in blocks]) for name in learning}
    sound = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in found.values()]).all(dim=0)
    return {name: torch.where(sound.view(-1, *[1] * (part.dim() - 1)), part, 0.0) for name, part in found.items()}
