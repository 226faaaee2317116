import numpy as np
import torch

from benchmarks.graded_response import predict_with_graded_response
from benchmarks.margins import find_margins
from benchmarks.simulation import make_truth, simulate
from model.graded_response import find_posterior, fit_scale, nodes, tabulate_items
from tests.benchmarks.test_scales import make_data


def test_every_node_has_probabilities():
    table = tabulate_items(torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[0.0, 1.0], [0.5, 1e4]]).double())
    np.testing.assert_allclose(table.sum(dim=-1), 1, atol=1e-6)
    assert table[:, 1, 2].max() < 1e-8


def test_known_items_come_back():
    truth = make_truth()
    codes = simulate(truth, 3000, 0.1, seed=3).codes[:, :9]
    table = fit_scale(codes, find_margins(codes, np.full(9, 4))).numpy()
    true = tabulate_items(torch.from_numpy(truth.slopes[:9, None]), torch.from_numpy(truth.thresholds[:9])).numpy()
    people = np.exp(-0.5 * nodes().numpy() ** 2)
    errors = np.average(np.abs(table - true).max(axis=(1, 2)), weights=people)
    assert errors < 0.06
    nobody = find_posterior(torch.full((1, 9), -1), torch.from_numpy(table)).numpy()[0]
    np.testing.assert_allclose(nobody, people / people.sum(), atol=1e-9)


def test_weights_count_as_copies_do():
    codes = simulate(make_truth(), 400, 0.1, seed=4).codes[:, :4]
    weights = np.arange(400) % 3 + 1.0
    copies = np.repeat(codes, weights.astype(int), axis=0)
    margins = find_margins(copies, np.full(4, 4))
    weighed, copied = fit_scale(codes, margins, 7 * weights).numpy(), fit_scale(copies, margins).numpy()
    # The prior of the discriminations weighs more where there are fewer people.
    np.testing.assert_allclose(weighed, copied, atol=0.01)
    assert np.abs(fit_scale(codes, margins).numpy() - copied).max() > 0.02


def test_predictions_follow_the_direction_of_an_item():
    """b runs against a and c: who has 2 on them has 0 on b; an item that never varied stays finite."""
    trait = np.random.default_rng(1).integers(0, 3, 300).astype(np.int8)
    train = np.stack([trait, 2 - trait, trait, np.zeros(300, np.int8)], axis=1).astype(np.int8)
    data = make_data({"s": ["a", "-b", "c", "d"]}, items="abcd", train=train)
    data.test[0] = [2, -1, 2, -1]
    data.cell_items[:] = 1
    found = predict_with_graded_response(data)
    assert found[0].argmax() == 0 and np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
