import math

import pytest
import torch

from model import amortise
from model.amortise import score_latents, settle_encoder, simulate_people
from model.errors import ModelError
from model.network import ProfileNetwork
from model.threads import fix_threads
from tests.model.simulation import make_spec

GRID = torch.linspace(-8, 8, 1601)


def random_network(sizes=(6,), residuals: int = 0, seed: int = 3) -> ProfileNetwork:
    torch.manual_seed(seed)
    network = ProfileNetwork(make_spec(sizes, loose=1), residuals=residuals)
    with torch.no_grad():
        learned = [*network.items.parameters(), *network.prior.parameters()]
        if network.shift is not None:
            learned += [network.shift.out.weight]
        for parameter in learned:
            if parameter.requires_grad:
                parameter += 0.4 * torch.randn_like(parameter)
    return network.requires_grad_(False)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with fix_threads(1):
        yield


def everybody(network: ProfileNetwork) -> torch.Tensor:
    return torch.ones(1, len(network.spec.items), dtype=torch.bool)


def integrate_posterior(network: ProfileNetwork, categories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean and sd (B) of the one trait, by quadrature."""
    latents = GRID[:, None, None].expand(-1, len(categories), 1)
    joint = network.items.log_prob(*network.place(latents), categories).sum(dim=-1) + network.prior.log_prob(latents)
    masses = joint.softmax(dim=0)
    mean = (masses * GRID[:, None]).sum(dim=0)
    return mean, ((masses * (GRID[:, None] - mean).square()).sum(dim=0)).sqrt()


@pytest.fixture(scope="module")
def settled(one_thread) -> ProfileNetwork:
    network = random_network()
    settle_encoder(network, everybody(network), seed=1, steps=700)
    return network


def test_settled_encoder_gives_the_posterior(settled):
    _, categories = simulate_people(settled, everybody(settled), 1000, torch.Generator().manual_seed(5))
    categories = categories[(categories >= 0).any(dim=1)]
    assert (categories < 0).any(), "with answers left out"
    mean, sd = integrate_posterior(settled, categories)
    found = settled.posterior(categories)
    assert (found.mean[:, 0] - mean).abs().mean() < 0.05
    assert (found.sd()[:, 0] - sd).abs().mean() < 0.04
    assert torch.corrcoef(torch.stack([found.sd()[:, 0], sd]))[0, 1] > 0.9, "who answered less is known less"


def test_intervals_cover_what_they_say(settled):
    latents, categories = simulate_people(settled, everybody(settled), 6000, torch.Generator().manual_seed(6))
    posterior = settled.posterior(categories)
    covered = (posterior.mean - latents).abs() < 1.645 * posterior.sd()
    assert covered.float().mean().item() == pytest.approx(0.90, abs=0.015)


def test_intervals_cover_residuals_and_several_traits_too():
    network = random_network((4, 3), residuals=2)
    settle_encoder(network, everybody(network), seed=1, steps=500)
    latents, categories = simulate_people(network, everybody(network), 4000, torch.Generator().manual_seed(6))
    answered = (categories >= 0).any(dim=1)
    posterior = network.posterior(categories[answered])
    covered = ((posterior.mean - latents[answered]).abs() < 1.645 * posterior.sd()).float().mean(dim=0)
    torch.testing.assert_close(covered, torch.full((4,), 0.9), atol=0.03, rtol=0)
    # Whole posteriors: squared Mahalanobis distances have as many degrees of freedom as there are latents.
    centred = (latents[answered] - posterior.mean)[..., None]
    distance = torch.linalg.solve_triangular(posterior.factor, centred, upper=False).square().sum(dim=(1, 2))
    assert distance.mean().item() == pytest.approx(4, abs=0.3)


def test_only_the_encoder_moves_and_the_same_seed_gives_the_same_bits():
    networks = [random_network(residuals=1) for _ in range(3)]
    before = {name: tensor.clone() for name, tensor in networks[0].state_dict().items()}
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        torch.rand(seed)  # what others draw does not matter
        settle_encoder(network, everybody(network), seed, steps=4)
    first, again, other = (network.state_dict() for network in networks)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        moved = name.startswith("encoder.")
        assert torch.equal(tensor, before[name]) != moved and torch.equal(tensor, other[name]) != moved, name
    assert not any(parameter.requires_grad for parameter in networks[0].parameters())


def test_simulated_people_are_the_models():
    network = random_network()
    patterns = torch.zeros(2, 7, dtype=torch.bool)
    patterns[0, :3], patterns[1, 2:] = True, True
    latents, categories = simulate_people(network, patterns, 40_000, torch.Generator().manual_seed(1))
    assert latents.mean().abs() < 0.03 and latents.std().item() == pytest.approx(1, abs=0.03)
    joint = network.items.probabilities(*network.place(GRID[:, None]))
    density = network.prior.log_prob(GRID[:, None]).softmax(dim=0)
    shares = torch.einsum("g,gjk->jk", density, joint)
    for item in range(7):
        found = torch.bincount(categories[categories[:, item] >= 0, item], minlength=4).float()
        torch.testing.assert_close(found / found.sum(), shares[item], atol=0.02, rtol=0)
    answered = categories >= 0
    assert not (answered[:, :2].any(dim=1) & answered[:, 3:].any(dim=1)).any(), "as one of the patterns, or less"
    whole = (answered[:, :3].all(dim=1) | answered[:, 2:].all(dim=1)).float().mean()
    assert 0.5 < whole < 0.65
    _, complete = simulate_people(network, patterns[:1], 500, torch.Generator().manual_seed(1), thinned=0.0)
    assert (complete[:, :3] >= 0).all() and (complete[:, 3:] < 0).all()
    assert math.isclose(float((complete >= 0).float().mean()), 3 / 7, rel_tol=1e-5)


def test_a_loss_that_is_no_number_stops_and_names_the_step(monkeypatch):
    network = ProfileNetwork(make_spec((4, 3)))
    steps = []

    def score(network, latents, categories):
        steps.append(None)
        found = score_latents(network, latents, categories)
        return found * torch.nan if len(steps) == 5 else found

    monkeypatch.setattr(amortise, "score_latents", score)
    with pytest.raises(ModelError, match="in step 5 of settling"):
        settle_encoder(network, torch.ones((10, 7), dtype=torch.bool), seed=1, steps=20)
