"""Changes between two occasions: whole where differences of profiles are too small, and as sure as they say."""

import numpy as np
import pytest
import torch

from benchmarks.plausible import make_network
from model.change import measure_changes
from model.explaining import _read_means

PEOPLE = 150


@pytest.fixture(scope="module")
def network():
    return make_network(steps=400)


def answer(network, theta: np.ndarray, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.zeros(len(theta), network.latents)
    latents[:, 0] = torch.from_numpy(theta).float()
    return network.items.draw(*network.place(latents), generator).numpy().astype(np.int8)


def test_a_true_change_is_told_whole_and_profiles_understate_it(network):
    theta = np.random.default_rng(5).normal(0.8, 0.7, PEOPLE)
    before, after = answer(network, theta, 1), answer(network, theta + 1.0, 2)
    found = measure_changes(network, before, after)
    subtracted = np.subtract(
        *(_read_means(network, network.categories(torch.from_numpy(codes))).numpy() for codes in (after, before))
    )
    se = found.median.std() / np.sqrt(PEOPLE)
    assert found.median.mean() == pytest.approx(1.0, abs=0.05 + 2 * se)
    assert subtracted.mean() < found.median.mean() - 0.03
    assert np.mean((found.low <= 1.0) & (found.high >= 1.0)) >= 0.92
    assert np.mean(found.low > 0) > 0.5 and found.reliable.all()


def test_without_a_change_few_seem_to_have_one(network):
    theta = np.random.default_rng(6).normal(0, 1, PEOPLE)
    found = measure_changes(network, answer(network, theta, 3), answer(network, theta, 4))
    assert np.mean((found.low > 0) | (found.high < 0)) <= 0.08
    assert abs(found.median.mean()) < 0.12


def test_the_order_of_occasions_and_people_changes_signs_alone(network):
    theta = np.random.default_rng(7).normal(0.5, 1, 40)
    before, after = answer(network, theta, 5), answer(network, theta, 6)
    forth, back = measure_changes(network, before, after), measure_changes(network, after, before)
    np.testing.assert_allclose(forth.median, -back.median, atol=0.15)
    alone = measure_changes(network, before[7:8], after[7:8])
    np.testing.assert_allclose(alone.median[0], forth.median[7], atol=1e-4)
    np.testing.assert_allclose([alone.low[0], alone.high[0]], [forth.low[7], forth.high[7]], atol=1e-4)


def test_who_answered_nothing_once_may_have_moved_any_way(network):
    before = answer(network, np.array([0.5]), 8)
    found = measure_changes(network, before, np.full_like(before, -1))
    assert found.low[0, 0] < -1 and found.high[0, 0] > 1
    assert not measure_changes(network, before[:0], before[:0]).median.size
