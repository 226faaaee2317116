import pytest
import torch

from model.network import Posterior, ProfileNetwork, fixed_noise
from model.weighing import place_items, weigh
from tests.model.test_outlook import SPEC


@pytest.fixture(scope="module", params=[0, 3])
def network(request) -> ProfileNetwork:
    torch.manual_seed(request.param)
    network = ProfileNetwork(SPEC, residuals=request.param).requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def categories() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor([len(item.levels) for item in SPEC.items])
    found = (torch.rand((301, 6), generator=generator) * sizes).long()
    return found.masked_fill(torch.rand(found.shape, generator=generator) < 0.3, -1)


def test_draws_and_weights_are_those_of_the_network(network, categories):
    posterior, noise = network.posterior(categories), fixed_noise(16, network.latents)
    expected, (found, placed) = network.draw(posterior, categories, noise), weigh(network, posterior, categories, noise)
    torch.testing.assert_close(found.latents, expected.latents)
    torch.testing.assert_close(found.log_weights, expected.log_weights, atol=2e-5, rtol=2e-6)
    location, spread = network.place(expected.latents)
    person, item = torch.tensor([0, 300, 7]), torch.tensor([5, 0, 3])
    one, wide = placed.of(person, item)
    torch.testing.assert_close(one, location[:, person, item])
    assert (wide is None) == (spread is None)
    if spread is not None:
        torch.testing.assert_close(wide, spread[:, person, item])


def test_who_is_unlikely_everywhere_has_finite_weights(network, categories):
    posterior = network.posterior(categories)
    far = Posterior(posterior.mean + 60.0, posterior.factor)
    found, _ = weigh(network, far, categories, fixed_noise(16, network.latents))
    assert torch.isfinite(found.log_weights).all() and torch.isfinite(found.masses()).all()


def test_an_item_of_no_trait_lies_at_zero_without_residuals(network):
    placed = place_items(network, torch.ones(2, 4, network.latents))
    if placed.spread is None:
        assert (placed.locate(5) == 0).all()
    assert all((placed.locate(item) != 0).all() for item in range(5))
