import numpy as np
import pytest
import torch
from scipy import stats

from model.prior import COMPONENTS, Prior


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_prior(traits: int, residuals: int, seed: int = 0) -> Prior:
    """A skewed prior of unequal components."""
    torch.manual_seed(seed)
    prior = Prior(traits, residuals)
    with torch.no_grad():
        for parameter in (prior.logits, prior.means, prior.log_sds, prior.below):
            parameter += 0.6 * torch.randn_like(parameter)
    return prior


def reference_log_density(prior: Prior, latents: np.ndarray) -> np.ndarray:
    log_mass, means, factors = (part.detach().numpy() for part in prior.components())
    theta, residual = latents[:, : prior.traits], latents[:, prior.traits :]
    density = sum(
        np.exp(log_mass[m]) * stats.multivariate_normal(means[m], factors[m] @ factors[m].T).pdf(theta)
        for m in range(COMPONENTS)
    )
    return np.log(density) + stats.norm.logpdf(residual).sum(axis=1)


@pytest.mark.parametrize(("traits", "residuals"), [(1, 0), (3, 0), (2, 4)])
def test_density_is_the_mixtures(traits, residuals):
    prior = random_prior(traits, residuals)
    latents = np.random.default_rng(1).normal(size=(50, traits + residuals)) * 1.5
    found = prior.log_prob(torch.from_numpy(latents)).detach().numpy()
    np.testing.assert_allclose(found, reference_log_density(prior, latents), rtol=1e-9)
    together = prior.log_prob(torch.from_numpy(latents).reshape(5, 10, -1)).detach().numpy()
    np.testing.assert_allclose(together.ravel(), found, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_traits_mean_is_zero_and_its_variance_one_by_quadrature(seed):
    prior = random_prior(1, 0, seed)
    grid = torch.linspace(-40, 40, 400_001)[:, None]
    density = prior.log_prob(grid).exp().detach().numpy()
    moments = [np.trapezoid(density * grid[:, 0].numpy() ** power, dx=80 / 400_000) for power in range(4)]
    assert moments[:3] == pytest.approx([1, 0, 1], abs=1e-9)
    assert abs(moments[3]) > 0.01, "skewed, which a normal prior could not be"


@pytest.mark.parametrize("traits", [1, 4])
def test_every_trait_is_standardised_whatever_is_learned(traits):
    prior = random_prior(traits, 2, seed=3)
    covariance = prior.covariance().detach()
    torch.testing.assert_close(covariance.diagonal()[:traits], torch.ones(traits))
    mean, factor = prior.moments()
    assert (mean == 0).all()
    torch.testing.assert_close(factor @ factor.T, covariance)


def test_draws_have_the_moments_that_are_said_and_the_density():
    prior = random_prior(3, 2)
    with torch.no_grad():
        prior.population_mean += torch.tensor([0.4, -0.2, 0.0])
        prior.population_factor += torch.tensor([[0.2, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, -0.4, -0.2]])
        draws = prior.sample(400_000, torch.Generator().manual_seed(1))
        mean, covariance = prior.moments()[0], prior.covariance()
    torch.testing.assert_close(draws.mean(dim=0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(torch.cov(draws.T), covariance, atol=0.025, rtol=0)
    # Shares of draws below cuts, beside the marginal mixture's: the shape too, not the moments alone.
    log_mass, means, factors = (part.detach().numpy() for part in prior.components())
    sds = np.sqrt(np.square(factors).sum(axis=2))
    for trait in range(3):
        for cut in (-1.0, 0.0, 1.0, 2.0):
            expected = np.exp(log_mass) @ stats.norm.cdf((cut - means[:, trait]) / sds[:, trait])
            assert (draws[:, trait] < cut).double().mean().item() == pytest.approx(expected, abs=0.004)


def test_a_population_that_has_moved_keeps_the_unit():
    prior = random_prior(2, 1)
    theta = torch.randn(20, 3)
    before = prior.log_prob(theta)
    moved = torch.tensor([0.5, -0.3])
    with torch.no_grad():
        prior.population_mean += moved
        torch.testing.assert_close(prior.moments()[0][:2], moved)
        torch.testing.assert_close(prior.covariance().diagonal()[:2], torch.ones(2))
        shifted = torch.cat([theta[:, :2] + moved, theta[:, 2:]], dim=1)
        torch.testing.assert_close(prior.log_prob(shifted), before)
        prior.population_factor *= 1.5
        torch.testing.assert_close(prior.covariance().diagonal()[:2], torch.full((2,), 2.25))
        torch.testing.assert_close(prior.moments()[0][:2], moved)


def test_a_population_gets_the_moments_that_are_asked_for():
    prior = random_prior(3, 2)
    mean = torch.tensor([0.5, -0.3, 0.1])
    covariance = torch.tensor([[1.3, 0.4, -0.2], [0.4, 0.8, 0.0], [-0.2, 0.0, 1.0]])
    for _ in range(2):
        prior.move_to(mean, covariance)
        torch.testing.assert_close(prior.moments()[0][:3], mean)
        torch.testing.assert_close(prior.covariance()[:3, :3], covariance)
        assert (prior.population_factor.triu(1) == 0).all()


def test_the_same_seed_draws_the_same_people():
    prior = random_prior(2, 1)
    first, again, other = (prior.sample(10, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradients_reach_all_that_is_learned():
    prior = random_prior(2, 2)
    latents = torch.randn(6, 4, requires_grad=True)
    names, values = zip(*[pair for pair in prior.named_parameters() if pair[1].requires_grad], strict=True)

    def log_prob(latents, *parameters):
        return torch.func.functional_call(prior, dict(zip(names, parameters, strict=True)), (latents,))

    prior.forward = prior.log_prob
    assert torch.autograd.gradcheck(log_prob, (latents, *values))
