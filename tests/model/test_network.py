import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from model.network import Draws, Posterior, ProfileNetwork, fixed_noise
from tests.model.simulation import make_spec, simulate

SPEC = make_spec((4, 3, 2), loose=1, flipped=1)
ONE_TRAIT = make_spec((5,), loose=1)
GRID = torch.linspace(-9, 9, 6001, dtype=torch.float64)


def random_network(seed: int = 0, residuals: int = 2, spec=SPEC) -> ProfileNetwork:
    torch.manual_seed(seed)
    network = ProfileNetwork(spec, residuals=residuals).double()
    with torch.no_grad():
        learned = [*network.items.parameters(), *network.prior.parameters()]
        if network.shift is not None:
            learned += [network.shift.out.weight, network.shift.out.bias]
        for parameter in learned:
            if parameter.requires_grad:
                parameter += 0.4 * torch.randn_like(parameter)
    return network.requires_grad_(False)


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def some_categories(network: ProfileNetwork, people: int, missing: float = 0.3) -> torch.Tensor:
    return network.categories(torch.from_numpy(simulate(network.spec, people, missing=missing)[0]))


def integrate_answers(network: ProfileNetwork, categories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log likelihood (B) and posterior masses (B, grid) in the one trait of a network, by quadrature."""
    latents = GRID[:, None, None].expand(-1, len(categories), 1)
    joint = network.items.log_prob(*network.place(latents), categories).sum(dim=-1)
    joint = joint + network.prior.log_prob(latents) + math.log(GRID[1] - GRID[0])
    return torch.logsumexp(joint, dim=0), joint.softmax(dim=0).T


def test_loss_equals_the_bound_computed_person_by_person():
    network = random_network()
    categories = some_categories(network, 20)
    weights, noise = torch.rand(20) * 2, torch.randn(3, 20, 5)
    posterior = network.encode(categories)
    total = 0.0
    for person in range(20):
        mean, factor = posterior.mean[person], posterior.factor[person]
        draws = mean + noise[:, person] @ factor.T
        probabilities = network.items.probabilities(*network.place(draws))
        ratios = network.prior.log_prob(draws) - MultivariateNormal(mean, scale_tril=factor).log_prob(draws)
        for item, answer in enumerate(categories[person].tolist()):
            if answer >= 0:
                ratios = ratios + probabilities[:, item, answer].log()
        total += weights[person].item() * math.log(ratios.exp().mean()) / 20
    assert network.loss(categories, weights, noise).item() == pytest.approx(-total, rel=1e-9)


def test_bound_is_below_the_likelihood_and_rises_with_the_draws():
    network = random_network(residuals=0, spec=ONE_TRAIT)
    categories = some_categories(network, 12)
    likelihood, _ = integrate_answers(network, categories)
    # An encoder that is off: the bound with few draws is then far from the likelihood.
    posterior = Posterior(torch.full((12, 1), 0.3), torch.full((12, 1, 1), 1.3))
    noise = torch.randn((40_000, 1, 1), generator=torch.Generator().manual_seed(1))
    log_weights = network.draw(posterior, categories, noise).log_weights
    means, errors = [], []
    for draws in (1, 4, 32):
        bounds = torch.logsumexp(log_weights.reshape(-1, draws, 12), dim=1) - math.log(draws)
        means.append(bounds.mean(dim=0))
        errors.append(bounds.std(dim=0) / math.sqrt(len(bounds)))
    torch.testing.assert_close(Draws(noise, log_weights[:32]).bound(), bounds[0])
    for mean, error in zip(means, errors, strict=True):
        assert (mean <= likelihood + 4 * error).all(), "in expectation never above the likelihood"
    assert (means[0] < means[1]).all() and (means[1] < means[2]).all()
    assert (likelihood - means[0]).mean() > 0.2 > 0.05 > (likelihood - means[2]).mean()


def test_weights_are_unbiased_with_residuals_too():
    network = random_network()
    categories = some_categories(network, 4)
    generator = torch.Generator().manual_seed(1)
    mean, factor = network.prior.moments()
    wide = Posterior(mean.expand(4, -1), 1.4 * factor.expand(4, -1, -1))
    drawn = network.draw(wide, categories, torch.randn((100_000, 1, 5), generator=generator))
    prior = network.prior.sample(100_000, generator)[:, None]
    joint = network.items.log_prob(*network.place(prior), categories).sum(dim=-1)
    expected = torch.logsumexp(joint, dim=0) - math.log(len(prior))
    errors = [(logs.exp().std(dim=0) / logs.exp().mean(dim=0) / 100_000**0.5) for logs in (drawn.log_weights, joint)]
    error = torch.hypot(*errors)
    assert (error < 0.1).all() and ((drawn.bound() - expected).abs() < 4 * error).all()
    torch.testing.assert_close(drawn.masses().sum(dim=0), torch.ones(4))


def test_predictions_are_the_posterior_predictive_ones():
    network = random_network(residuals=0, spec=ONE_TRAIT)
    categories = some_categories(network, 15, missing=0.5)
    _, masses = integrate_answers(network, categories)
    probability = network.items.probabilities(*network.place(GRID[:, None]))
    expected = torch.einsum("bg,gjk->bjk", masses, probability)
    torch.set_default_dtype(torch.float32)
    found = network.float().predict(categories, draws=4096).double()
    torch.set_default_dtype(torch.float64)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(found.sum(dim=2), torch.ones(15, 6), atol=1e-5, rtol=0)


def test_person_fit_by_hand():
    network = random_network()
    categories = some_categories(network, 10)
    posterior = network.encode(categories)
    probabilities = network.items.probabilities(*network.place(posterior.mean)).numpy()
    found = network.person_fit(categories, posterior)
    for person in range(10):
        surprise = variance = 0.0
        for item, answer in enumerate(categories[person].tolist()):
            if answer < 0:
                continue
            p = probabilities[person, item, : len(SPEC.items[item].levels)]
            expected = (p * np.log(p)).sum()
            surprise += np.log(p[answer]) - expected
            variance += (p * np.log(p) ** 2).sum() - expected**2
        assert found[person].item() == pytest.approx(surprise / math.sqrt(variance), abs=1e-5)


def test_person_fit_is_low_for_unusual_answers_and_zero_for_none():
    network = random_network(residuals=0)
    with torch.no_grad():
        network.encoder[-1].weight.zero_()
        network.encoder[-1].bias.zero_()
    probability = network.items.probabilities(*network.place(torch.zeros(1, 3)))
    likely, unlikely = probability.argmax(dim=2), torch.where(probability > 0, probability, 1.0).argmin(dim=2)
    categories = torch.cat([likely, unlikely, torch.full_like(likely, -1)])
    found = network.person_fit(categories, network.encode(categories)).tolist()
    assert found[0] > 0.5 and found[1] < -2 and found[2] == 0


def test_quasi_random_noise_is_standard_normal_and_always_the_same():
    noise = fixed_noise(4096, 6)
    assert noise.shape == (4096, 1, 6) and torch.equal(noise, fixed_noise(4096, 6))
    points = noise[:, 0].double()
    torch.testing.assert_close(points.mean(dim=0), torch.zeros(6), atol=0.005, rtol=0)
    torch.testing.assert_close(torch.cov(points.T), torch.eye(6), atol=0.02, rtol=0)
    assert torch.isfinite(fixed_noise(32, 12)).all()


@pytest.mark.parametrize("residuals", [0, 2])
def test_gradient_of_the_loss(residuals):
    network = random_network(residuals=residuals)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("population" not in name)
    categories, weights = some_categories(network, 5), torch.rand(5)
    noise = torch.randn(2, 5, network.latents)
    network.loss(categories, weights, noise).backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad or not parameter.numel():
            continue
        if parameter.grad is None:
            assert name.startswith("encoder."), name
            continue
        step = torch.zeros_like(parameter)
        index = parameter.grad.abs().flatten().argmax()
        step.view(-1)[index] = 1e-6
        with torch.no_grad():
            parameter += step
            above = network.loss(categories, weights, noise)
            parameter -= 2 * step
            below = network.loss(categories, weights, noise)
            parameter += step
        slope = (above - below).item() / 2e-6
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-8), name


def test_who_answered_nothing_gets_the_prior():
    network = random_network()
    nothing = torch.full((2, len(SPEC.items)), -1)
    posterior = network.posterior(nothing)
    assert (posterior.mean == 0).all()
    torch.testing.assert_close(posterior.sd()[:, :3], torch.ones(2, 3))
    covariance = posterior.factor @ posterior.factor.transpose(1, 2)
    torch.testing.assert_close(covariance, network.prior.covariance().expand(2, -1, -1))


def test_trait_correlations_are_those_of_the_population():
    network = random_network()
    with torch.no_grad():
        network.prior.population_factor += torch.tensor([[0.3, 0.0, 0.0], [-0.2, 0.1, 0.0], [0.0, 0.4, 0.0]])
    draws = network.prior.sample(200_000, torch.Generator().manual_seed(1))[:, :3]
    found = network.trait_correlations()
    torch.testing.assert_close(found.diagonal(), torch.ones(3))
    torch.testing.assert_close(found, torch.corrcoef(draws.T), atol=0.01, rtol=0)


@settings(max_examples=15)
@given(st.permutations(range(12)), st.integers(0, 1000))
def test_people_do_not_touch_each_other(order, seed):
    network = random_network()
    categories = network.categories(torch.from_numpy(simulate(SPEC, 12, seed=seed)[0]))
    posterior, moved = network.posterior(categories), network.posterior(categories[order])
    torch.testing.assert_close(moved.mean, posterior.mean[order])
    noise = torch.randn(4, 1, network.latents)
    drawn = network.draw(posterior, categories, noise)
    torch.testing.assert_close(network.draw(moved, categories[order], noise).bound(), drawn.bound()[order])
    fit = network.person_fit(categories, posterior)
    torch.testing.assert_close(network.person_fit(categories[order], moved), fit[order])


@settings(max_examples=15)
@given(st.integers(0, len(SPEC.items) - 1), st.integers(0, 1000))
def test_a_missing_answer_adds_nothing_to_the_likelihood(item, seed):
    network = random_network()
    categories = network.categories(torch.from_numpy(simulate(SPEC, 3, seed=seed, missing=0.0)[0]))
    location, spread = network.place(torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 5))))
    full = network.items.log_prob(location, spread, categories)
    categories[:, item] = -1
    without = network.items.log_prob(location, spread, categories)
    assert (without[:, item] == 0).all()
    full[:, item] = 0
    assert torch.equal(without, full)
