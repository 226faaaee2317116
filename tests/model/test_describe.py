import math

import numpy as np
import pytest
import torch
from scipy import stats

from model.amortise import settle_encoder, simulate_people
from model.calibration import calibrate, calibrate_trait
from model.describe import GRID, correlate_traits, describe_items, draw_noise, marginal_probability, trace_curves
from model.group_costs import cost_by_margins, cost_groups
from model.inputs import Inputs, People, read_held_out_labels, survey_inputs
from model.likelihood import smooth_margins
from model.network import ProfileNetwork
from model.reliability import find_alpha, find_omega, load_one_factor, measure_reliability, summarise_data
from model.threads import fix_threads
from model.validation import cost_per_answer, design_cells, hide_cells
from tests.model.simulation import make_spec, simulate, write_features

SPEC = make_spec((4, 3, 2), loose=1, flipped=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with fix_threads(1):
        yield


def random_network(residuals: int, seed: int = 0) -> ProfileNetwork:
    torch.manual_seed(seed)
    network = ProfileNetwork(SPEC, residuals=residuals).requires_grad_(False)
    for parameter in [*network.items.parameters(), *network.prior.parameters()]:
        if parameter is not network.prior.population_mean and parameter is not network.prior.population_factor:
            parameter += 0.3 * torch.randn_like(parameter)
    if network.shift is not None:
        network.shift.out.weight += 0.3 * torch.randn_like(network.shift.out.weight)
        network.shift.out.bias += 0.3 * torch.randn_like(network.shift.out.bias)
    return network


def test_items_without_residuals_have_the_networks_own_parameters():
    network = random_network(0)
    slopes, edges = network.items.discriminations().sum(dim=0), network.items.edges()
    for place, item in enumerate(describe_items(network)):
        assert item.key == SPEC.columns[place]
        if item.trait is None:
            assert item.thresholds == [] and item.loading is None and item.discrimination is None
            continue
        a, b = slopes[place].item(), edges[place, 1:4].numpy()
        assert item.discrimination == pytest.approx(a, rel=1e-4)
        np.testing.assert_allclose(item.thresholds, b / a, atol=1e-4)
        assert item.loading == pytest.approx(a / math.sqrt(a**2 + math.pi**2 / 3), rel=1e-5)
        assert item.residual_share == pytest.approx(0, abs=1e-10)


def test_a_loading_is_the_correlation_of_trait_and_underlying_response():
    network = random_network(2)
    latents = network.prior.sample(200_000, torch.Generator().manual_seed(5))
    location, spread = network.place(latents)
    uniform = torch.rand(location.shape, generator=torch.Generator().manual_seed(6)).clamp(1e-7, 1 - 1e-7)
    response = location + torch.logit(uniform) / spread
    for place, item in enumerate(describe_items(network)[:9]):
        trait = [trait.key for trait in SPEC.traits].index(item.trait)
        found = np.corrcoef(latents[:, trait], response[:, place])[0, 1]
        assert item.loading == pytest.approx(found, abs=0.015)
        assert 0 < item.residual_share < 1


def test_thresholds_beyond_reach_are_none():
    network = random_network(0)
    network.items.first_threshold += 100
    for item in describe_items(network):
        assert item.trait is None or (set(item.thresholds) == {None} and item.discrimination is None)


@pytest.mark.parametrize("residuals", [0, 2])
def test_curves_sum_to_one_and_their_density_too(residuals):
    network = random_network(residuals)
    for trait in range(3):
        curves = trace_curves(network, trait)
        np.testing.assert_allclose(curves.probability.sum(axis=-1), 1, atol=1e-5)
        assert (curves.probability >= 0).all() and (curves.information >= 0).all()
        assert curves.density.sum() * (curves.theta[1] - curves.theta[0]) == pytest.approx(1, abs=0.03)
        assert (np.diff(curves.expected) * (-1 if trait == 1 else 1) > 0).all()  # the second trait's scale is positive


@pytest.mark.parametrize("residuals", [0, 2])
def test_information_is_that_of_the_numeric_derivative(residuals):
    network, step = random_network(residuals), 0.01
    curves = trace_curves(network, 0)
    theta, noise = torch.linspace(*GRID), draw_noise(network)
    above, below = (marginal_probability(network, 0, theta + sign * step, noise)[:, :4].double() for sign in (1, -1))
    slope = ((above - below) / (2 * step)).numpy().transpose(1, 0, 2)
    np.testing.assert_allclose(curves.information, (slope**2 / curves.probability).sum(axis=-1), rtol=0.01, atol=1e-3)


def test_curves_are_what_people_of_that_level_answer():
    """Residuals and the other traits averaged out, by simulation: people whose first trait is about 1."""
    network = random_network(2)
    latents = network.prior.sample(400_000, torch.Generator().manual_seed(8))
    near = latents[(latents[:, 0] - 1).abs() < 0.05]
    found = network.items.probabilities(*network.place(near)).mean(dim=0)[:4]
    curves = trace_curves(network, 0)
    at_one = curves.probability[:, int(np.argmin(np.abs(curves.theta - 1)))]
    np.testing.assert_allclose(at_one, found.numpy(), atol=0.02)


def test_correlations_of_traits():
    correlations = correlate_traits(random_network(2))
    np.testing.assert_allclose(np.diag(correlations), 1, atol=1e-6)
    np.testing.assert_allclose(correlations, correlations.T, atol=1e-6)


def test_alpha_by_hand():
    # Variances 2, 3 and 4, covariances 1: 3/2 (1 - 9 / 15).
    covariance = np.array([[2.0, 1.0, 1.0], [1.0, 3.0, 1.0], [1.0, 1.0, 4.0]])
    assert find_alpha(covariance) == pytest.approx(0.6)
    assert find_alpha(np.zeros((2, 2))) is None


def test_omega_by_hand():
    loadings, sds = np.array([0.8, 0.6, 0.7, 0.5]), np.array([1.0, 2.0, 0.5, 1.0])
    correlations = np.outer(loadings, loadings)
    np.fill_diagonal(correlations, 1)
    np.testing.assert_allclose(load_one_factor(correlations), loadings, atol=1e-4)
    common = (loadings * sds).sum() ** 2
    expected = common / (common + (sds**2 * (1 - loadings**2)).sum())
    assert find_omega(correlations * np.outer(sds, sds)) == pytest.approx(expected, abs=1e-4)
    assert find_omega(np.diag([1.0, 0.0])) is None


def test_omega_is_alpha_where_items_are_alike():
    covariance = 0.5 + 0.5 * np.eye(2)
    assert find_omega(covariance) == pytest.approx(find_alpha(covariance), abs=1e-6)


@pytest.fixture(scope="module")
def settled() -> ProfileNetwork:
    """Two traits of six and five items, no residuals; its encoder is brought to the posterior."""
    torch.manual_seed(1)
    network = ProfileNetwork(make_spec((6, 5))).requires_grad_(False)
    settle_encoder(network, torch.ones((1, 11), dtype=torch.bool), seed=1, steps=600)
    return network


def test_intervals_cover_as_they_say_and_less_in_the_tails(settled):
    for calibration in calibrate(settled, torch.ones((1, 11), dtype=torch.bool), people=20_000):
        assert calibration.whole.coverage == pytest.approx(0.90, abs=0.02)
        assert calibration.whole.bias == pytest.approx(0, abs=0.03)
        assert sum(band.people for band in calibration.bands) == 20_000 == sum(calibration.ranks)
        lowest, highest = calibration.bands[0], calibration.bands[-1]
        assert lowest.bias > 0.05 and highest.bias < -0.05
        assert calibration.deviation < 0.04


def test_reliability_is_the_squared_correlation_with_the_truth(settled):
    everything = torch.ones((1, 11), dtype=torch.bool)
    generator = torch.Generator().manual_seed(3)
    latents, categories = simulate_people(settled, everything, 20_000, generator, thinned=0.0)
    people = People(categories.numpy().astype(np.int8), np.ones(20_000), np.zeros(20_000, dtype=np.int64))
    simulated = calibrate(settled, everything, people=20_000)
    for number, found in enumerate(measure_reliability(settled, people)):
        truth = np.corrcoef(latents[:, number], settled.posterior(categories).mean[:, number])[0, 1] ** 2
        assert found.people == 20_000
        assert found.marginal == pytest.approx(truth, abs=0.02)
        assert simulated[number].reliability == pytest.approx(truth, abs=0.02)
        assert 0.5 < found.alpha < 1 and found.omega == pytest.approx(found.alpha, abs=0.03)


def test_reliability_of_few_people_is_withheld(settled):
    people = People(np.zeros((49, 11), dtype=np.int8), np.ones(49), np.zeros(49, dtype=np.int64))
    assert all(found.people is None and found.alpha is None for found in measure_reliability(settled, people))


def test_ranks_of_exact_posteriors_are_uniform_and_of_narrow_ones_not():
    random = np.random.default_rng(1)
    truth = random.normal(size=50_000)
    mean = 0.5 * (truth + random.normal(size=50_000))  # one answer with unit noise: posterior variance one half
    exact = calibrate_trait("t", truth, mean, np.full(50_000, math.sqrt(0.5)))
    narrow = calibrate_trait("t", truth, mean, np.full(50_000, 0.5))
    assert exact.deviation < 0.01 and narrow.deviation > 0.04
    assert stats.chisquare(exact.ranks).pvalue > 0.001 and narrow.ranks[0] > 1.5 * narrow.ranks[10]
    assert exact.reliability == pytest.approx(0.5, abs=0.02)


def test_data_in_brief():
    spec = make_spec((2, 2))
    codes = np.array([[0, 1, 2, 3], [0, -1, 2, 3]], dtype=np.int8)
    summary = summarise_data(People(codes, np.array([3.0, 1.0]), np.zeros(2, dtype=np.int64)), 20, spec)
    assert summary.people == 20 and summary.sampled == 2 and summary.complete == 0.75
    assert summary.unanswered == {"t0_0": 0, "t0_1": 0.25, "t1_0": 0, "t1_1": 0}
    assert summary.effective == pytest.approx(16)  # 4^2 / (9 + 1), ten times as many people


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> tuple[ProfileNetwork, Inputs]:
    spec = make_spec((6, 5))
    codes, _ = simulate(spec, 3000)
    paths = write_features(tmp_path_factory.mktemp("features"), spec, codes)
    inputs = survey_inputs(paths, spec, "weight")
    assert len(read_held_out_labels(paths, ["person_id"])["person_id"]) == len(inputs.held_out)
    torch.manual_seed(0)
    return ProfileNetwork(spec, smooth_margins(inputs.counts, spec)).requires_grad_(False), inputs


def test_costs_by_group(held_out):
    network, inputs = held_out
    people = len(inputs.held_out)
    labels = ["small"] * 49 + ["one"] * 100 + [None] + ["two"] * (people - 150)
    design = design_cells(inputs, ["all"] * people, ["all"] * people)
    everybody, one, small, two = cost_groups(network, inputs, {"cohort": labels}, design)
    cells = hide_cells(inputs)
    margins = cost_by_margins(cells, inputs, network.spec)
    assert everybody.people == people and everybody.margins == pytest.approx(cost_per_answer(margins, cells), rel=1e-5)
    assert everybody.gain == pytest.approx(everybody.margins - everybody.model)
    assert (one.group, one.people, two.people) == ("one", 100, people - 150)
    assert (small.group, small.people, small.model, small.gain_low) == ("small", None, None, None)
    # Nobody's rows are counted as another person's: the interval is about that of a hundred people.
    widths = [cost.gain_high - cost.gain_low for cost in (one, everybody)]
    assert 0.5 < widths[0] / (widths[1] * math.sqrt(people / 100)) < 2
    # Two PSUs, of one stratum, leave one degree of freedom.
    half = design_cells(inputs, ["all"] * people, [str(place % 2) for place in range(people)])
    clustered, *_ = cost_groups(network, inputs, {}, half)
    assert clustered.gain == everybody.gain
    assert clustered.gain_high != everybody.gain_high
