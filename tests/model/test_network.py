import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.distributions import MultivariateNormal, kl_divergence

from model.network import Posterior, ProfileNetwork, kl_to_prior
from tests.model.simulation import make_spec, simulate

SPEC = make_spec((4, 3, 2), loose=1, flipped=1)


def random_network(seed: int = 0) -> ProfileNetwork:
    torch.manual_seed(seed)
    network = ProfileNetwork(SPEC).double()
    with torch.no_grad():
        network.raw_correlation += torch.randn(3)
        for parameter in network.items.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return network


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def some_categories(network: ProfileNetwork, people: int, missing: float = 0.3) -> torch.Tensor:
    return network.categories(torch.from_numpy(simulate(SPEC, people, missing=missing)[0]))


def test_prior_is_a_correlation_matrix():
    factor = random_network().prior_factor().detach().numpy()
    np.testing.assert_allclose(np.diag(factor @ factor.T), 1)
    assert (np.diag(factor) > 0).all() and np.allclose(factor, np.tril(factor))


def test_kl_equals_torch_distributions_and_monte_carlo():
    network = random_network()
    posterior, prior = network.encode(some_categories(network, 6)), network.prior_factor()
    found = kl_to_prior(posterior, prior)
    mine = MultivariateNormal(posterior.mean, scale_tril=posterior.factor)
    theirs = MultivariateNormal(torch.zeros(3), scale_tril=prior)
    torch.testing.assert_close(found, kl_divergence(mine, theirs))
    mean, factor, prior = (tensor.detach().numpy() for tensor in (posterior.mean[0], posterior.factor[0], prior))
    draws = mean + np.random.default_rng(1).normal(size=(400_000, 3)) @ factor.T
    log_ratio = stats.multivariate_normal(mean, factor @ factor.T).logpdf(draws)
    log_ratio -= stats.multivariate_normal(np.zeros(3), prior @ prior.T).logpdf(draws)
    assert found[0].item() == pytest.approx(log_ratio.mean(), abs=5 * log_ratio.std() / np.sqrt(len(draws)))


def test_kl_of_the_prior_itself_is_zero():
    prior = random_network().prior_factor()
    posterior = Posterior(torch.zeros(2, 3), prior.expand(2, 3, 3))
    torch.testing.assert_close(kl_to_prior(posterior, prior), torch.zeros(2))


def test_loss_equals_the_bound_computed_person_by_person():
    network = random_network()
    categories = some_categories(network, 20)
    weights, noise = torch.rand(20) * 2, torch.randn(3, 20, 3)
    loss = network.loss(categories, weights, noise)
    posterior, prior = network.encode(categories), network.prior_factor()
    reconstruction = kl = 0.0
    for person in range(20):
        draws = posterior.mean[person] + noise[:, person] @ posterior.factor[person].T
        probabilities = network.items.probabilities(draws).detach().numpy()
        for item, answer in enumerate(categories[person].tolist()):
            if answer >= 0:
                reconstruction += weights[person].item() * np.log(probabilities[:, item, answer]).mean() / 20
        covariance = posterior.factor[person] @ posterior.factor[person].T
        theirs = MultivariateNormal(torch.zeros(3), prior @ prior.T)
        mine = MultivariateNormal(posterior.mean[person], covariance)
        kl += weights[person].item() * kl_divergence(mine, theirs).item() / 20
    assert loss.reconstruction.item() == pytest.approx(reconstruction, rel=1e-9)
    assert loss.kl.item() == pytest.approx(kl, rel=1e-9)
    assert loss.elbo.item() == pytest.approx(reconstruction - kl, rel=1e-9)


def test_bound_is_the_mean_of_the_sampled_one_and_below_the_likelihood():
    network = random_network()
    categories = some_categories(network, 8)
    with torch.no_grad():
        reconstruction, kl = network.bound(categories)
        sampled = network.loss(categories, torch.ones(8), torch.randn(20_000, 8, 3)).elbo
        assert (reconstruction - kl).mean().item() == pytest.approx(sampled.item(), abs=0.03)
        draws = torch.randn(50_000, 1, 3) @ network.prior_factor().T
        joint = network.items.log_prob(draws, categories).sum(dim=-1)
        likelihood = torch.logsumexp(joint, dim=0) - np.log(len(draws))
    assert (reconstruction - kl <= likelihood + 0.05).all()


def test_gradient_of_the_loss():
    network = random_network()
    categories, weights, noise = some_categories(network, 5), torch.rand(5), torch.randn(2, 5, 3)
    loss = network.loss(categories, weights, noise).elbo
    loss.backward()
    for name, parameter in network.named_parameters():
        step = torch.zeros_like(parameter)
        index = parameter.grad.abs().flatten().argmax()
        step.view(-1)[index] = 1e-6
        with torch.no_grad():
            parameter += step
            above = network.loss(categories, weights, noise).elbo
            parameter -= 2 * step
            below = network.loss(categories, weights, noise).elbo
            parameter += step
        slope = (above - below).item() / 2e-6
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-8), name


def test_who_answered_nothing_gets_the_prior():
    network = random_network()
    nothing = torch.full((2, len(SPEC.items)), -1)
    posterior = network.posterior(nothing)
    assert (posterior.mean == 0).all()
    torch.testing.assert_close(posterior.sd(), torch.ones(2, 3))
    reconstruction, kl = network.bound(nothing)
    assert (reconstruction == 0).all() and kl.abs().max() < 1e-12


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 1000))
def test_people_do_not_touch_each_other(order, seed):
    network = random_network()
    categories = network.categories(torch.from_numpy(simulate(SPEC, 12, seed=seed)[0]))
    posterior, moved = network.posterior(categories), network.posterior(categories[order])
    torch.testing.assert_close(moved.mean, posterior.mean[order])
    for figure, moved_figure in zip(network.bound(categories), network.bound(categories[order]), strict=True):
        torch.testing.assert_close(moved_figure, figure[order])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, len(SPEC.items) - 1), st.integers(0, 1000))
def test_a_missing_answer_adds_nothing_to_the_reconstruction(item, seed):
    network = random_network()
    categories = network.categories(torch.from_numpy(simulate(SPEC, 3, seed=seed, missing=0.0)[0]))
    theta = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 3)))
    full = network.items.log_prob(theta, categories)
    categories[:, item] = -1
    without = network.items.log_prob(theta, categories)
    assert (without[:, item] == 0).all()
    full[:, item] = 0
    assert torch.equal(without, full)
