import numpy as np
import pytest
from scipy.special import expit

from benchmarks.bayes import estimate_correlations, find_mode, find_true_posterior
from benchmarks.recovery import compare_seeds
from benchmarks.simulation import Truth, make_truth, simulate

ONE = Truth(
    traits=np.zeros(3, np.int64),
    slopes=np.array([1.0, 2.0, 0.7]),
    thresholds=np.array([[0.5, 1.5], [-0.5, 2.0], [0.0, 0.3]]),
    correlations=np.eye(1),
)
CODES = np.array([[0, 0, 0], [2, 2, 2], [1, -1, 2], [0, 2, -1], [-1, -1, -1]], np.int8)


def integrate(codes):
    """Mean, sd and the ends of the central 90 % interval, on a fine grid."""
    grid = np.linspace(-8, 8, 20_001)
    above = expit(ONE.slopes * grid[:, None, None] - ONE.thresholds.T).transpose(0, 2, 1)
    table = -np.diff(np.pad(above, ((0, 0), (0, 0), (1, 1)), constant_values=((0, 0), (0, 0), (1, 0))), axis=2)
    density = np.exp(-0.5 * grid**2)
    for item, code in enumerate(codes):
        density *= table[:, item, code] if code >= 0 else 1
    density /= density.sum()
    mean = grid @ density
    ends = np.interp([0.05, 0.95], density.cumsum(), grid)
    return [mean, np.sqrt((grid - mean) ** 2 @ density), *ends]


def test_posterior_of_one_trait_by_quadrature():
    found = find_true_posterior(ONE, CODES, draws=4096)
    expected = np.array([integrate(codes) for codes in CODES])
    np.testing.assert_allclose(found.mean[:, 0], expected[:, 0], atol=0.003)
    np.testing.assert_allclose(found.sd[:, 0], expected[:, 1], atol=0.003)
    np.testing.assert_allclose(found.low[:, 0], expected[:, 2], atol=0.01)
    np.testing.assert_allclose(found.high[:, 0], expected[:, 3], atol=0.01)


def test_the_mode_of_who_answered_nothing_is_the_priors():
    mode, covariance = find_mode(make_truth(), np.full((1, 33), -1, np.int8))
    np.testing.assert_allclose(mode, 0)
    np.testing.assert_allclose(covariance[0], make_truth().correlations)


def test_true_intervals_cover_and_correlations_come_back():
    truth = make_truth()
    sample = simulate(truth, 2000, 0.2, seed=5)
    found = find_true_posterior(truth, sample.codes, draws=128)
    inside = (found.low <= sample.traits) & (sample.traits <= found.high)
    np.testing.assert_allclose(inside.mean(axis=0), 0.9, atol=0.03)
    errors = estimate_correlations(truth, sample.codes, sample.weights) - truth.correlations
    assert np.abs(errors).max() < 0.12


def test_simulated_people_are_as_described():
    sample = simulate(make_truth(), 20_000, 0.3, seed=2)
    assert sample.codes.shape == (20_000, 33) and set(np.unique(sample.codes)) == {-1, 0, 1, 2, 3}
    assert (sample.codes < 0).mean() == pytest.approx(0.3, abs=0.005)
    assert (sample.codes == 0).mean() > 0.35  # floored
    # The weights give the population back, the sample alone does not.
    assert sample.weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.average(sample.traits, axis=0, weights=sample.weights), 0, atol=0.04)
    np.testing.assert_allclose(np.cov(sample.traits.T, aweights=sample.weights), make_truth().correlations, atol=0.05)
    assert np.abs(sample.traits.mean(axis=0)).max() > 0.05
    assert not (simulate(make_truth(), 500, 0.0, seed=2).codes < 0).any()


def test_slope_and_shift_of_two_seeds():
    first = np.random.default_rng(1).normal(size=(400, 1))
    assert compare_seeds(first, 0.9 * first + 0.1, np.ones(400)) == [
        {"correlation": 1.0, "slope": 0.9, "shift": pytest.approx(0.1 - 0.1 * first.mean(), abs=1e-4)}
    ]
