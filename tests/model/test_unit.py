import math

import numpy as np
import pytest
import torch

from model.unit import fix_unit, place_population
from tests.model.simulation import CORRELATION, simulate


@pytest.fixture(scope="module")
def people(trained):
    codes, _ = simulate(trained.spec, 2000, seed=11)
    return trained.result.network.categories(torch.from_numpy(codes)), torch.ones(len(codes))


def test_reference_population_stands_at_zero_and_one(trained):
    prior = trained.result.network.prior
    assert prior.population_mean.abs().max() == 0
    torch.testing.assert_close(prior.covariance().diagonal(), torch.ones(4))
    latents = prior.sample(200_000, torch.Generator().manual_seed(1))[:, :2]
    assert latents.mean(dim=0).abs().max() < 0.02
    assert (latents.std(dim=0) - 1).abs().max() < 0.02


def test_population_is_found_wherever_the_prior_starts(trained, people):
    found = []
    for start in (0.0, 0.7):
        network = trained.result.network.copy()
        network.prior.population_mean.fill_(start)
        network.prior.population_factor.mul_(math.exp(-start))
        place_population(network, *people)
        found.append(torch.cat([network.prior.population_mean[:, None], network.prior.covariance()[:2, :2]], dim=1))
    torch.testing.assert_close(found[0], found[1], atol=0.03, rtol=0)
    expected = torch.tensor([[0, 1, CORRELATION], [0, CORRELATION, 1]])
    torch.testing.assert_close(found[0], expected, atol=0.15, rtol=0)


def test_weights_move_the_population(trained):
    codes, traits = simulate(trained.spec, 2000, seed=12)
    network = trained.result.network.copy()
    # People one sd above the others count twice as much.
    weights = np.where(traits[:, 0] > 0, 2.0, 1.0)
    place_population(network, network.categories(torch.from_numpy(codes)), torch.from_numpy(weights))
    expected = float(np.average(traits[:, 0], weights=weights))
    assert network.prior.population_mean[0].item() == pytest.approx(expected, abs=0.06)


def test_fixing_the_unit_changes_no_likelihood(trained, people):
    network = trained.result.network.copy()
    network.prior.population_mean.copy_(torch.tensor([0.4, -0.2]))
    network.prior.population_factor.copy_(torch.tensor([[1.2, 0.0], [-0.4, 0.8]]))
    torch.nn.init.normal_(network.shift.along)
    latents = network.prior.sample(500, torch.Generator().manual_seed(2))
    answers = people[0][:500]

    def measure(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return network.items.log_prob(*network.place(at), answers), network.prior.log_prob(at)

    log_answers, log_prior = measure(latents)
    mean, log_sd = network.prior.population_mean.clone(), 0.5 * network.prior.covariance().diagonal()[:2].log()
    fix_unit(network)
    moved = torch.cat([(latents[:, :2] - mean) / log_sd.exp(), latents[:, 2:]], dim=1)
    same_answers, same_prior = measure(moved)
    torch.testing.assert_close(same_answers, log_answers, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(same_prior, log_prior + log_sd.sum(), atol=2e-4, rtol=1e-4)
    assert network.prior.population_mean.abs().max() == 0


def test_who_answered_nothing_and_who_weighs_nothing_says_nothing(trained, people):
    categories, weights = people
    silent = torch.full((500, categories.shape[1]), -1)
    extreme = torch.full((500, categories.shape[1]), 2)
    networks = [trained.result.network.copy() for _ in range(2)]
    place_population(networks[0], categories, weights)
    more = torch.cat([categories, silent, extreme])
    place_population(networks[1], more, torch.cat([weights, torch.ones(500), torch.zeros(500)]))
    for name in ("population_mean", "population_factor"):
        torch.testing.assert_close(getattr(networks[0].prior, name), getattr(networks[1].prior, name))
