import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit

from model.likelihood import GradedItems, smooth_margins, to_categories
from model.spec import FeatureSpec, ItemSpec, TraitSpec
from tests.model.simulation import make_spec

MIXED = FeatureSpec(
    items=(
        ItemSpec("a", (0, 1, 2, 3), "x", False),
        ItemSpec("b", (0, 1), "x", False),
        ItemSpec("c", (1, 2, 3, 4, 5, 6), "x", True),
        ItemSpec("d", (0, 1, 2), "y", False),
        ItemSpec("e", (0, 1, 2), "y", False),
        ItemSpec("f", (0, 1, 2), None, False),
    ),
    traits=(TraitSpec("x", ("a", "b", "c")), TraitSpec("y", ("d", "e"))),
    scales=(),
    codebook="mixed",
    codebook_version="1",
)
TRAIT_OF = [0, 0, 0, 1, 1, None]
SIZES = np.array([4, 2, 6, 3, 3, 3])


def random_items(seed: int = 0) -> GradedItems:
    torch.manual_seed(seed)
    items = GradedItems(MIXED)
    with torch.no_grad():
        for parameter in items.parameters():
            parameter += 0.7 * torch.randn_like(parameter)
    return items.double()


def reference_probabilities(items: GradedItems, theta: np.ndarray) -> list[np.ndarray]:
    """Each item's probabilities (people, categories) as differences of cumulative ones, counted from the nearer end."""
    slopes, edges = items.discriminations().detach().numpy(), items.edges().detach().numpy()
    result = []
    for position, size in enumerate(SIZES):
        reach = (theta @ slopes)[:, position, None] - edges[position, 1:size]
        ends = np.full((len(theta), 1), np.inf)
        at_least, below = (expit(np.hstack(part)) for part in ([ends, reach, -ends], [-ends, -reach, ends]))
        result.append(np.where(at_least[:, 1:] > 0.5, np.diff(below), -np.diff(at_least)))
    return result


def random_categories(random: np.random.Generator, people: int) -> np.ndarray:
    return random.integers(-1, SIZES, size=(people, len(SIZES)))


def test_log_prob_equals_cumulative_differences():
    items, random = random_items(), np.random.default_rng(1)
    theta, categories = random.normal(size=(200, 2)) * 2, random_categories(random, 200)
    reference = reference_probabilities(items, theta)
    expected = np.array(
        [[np.log(reference[j][i, c]) if c >= 0 else 0.0 for j, c in enumerate(row)] for i, row in enumerate(categories)]
    )
    found = items.log_prob(torch.tensor(theta), torch.tensor(categories)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=2))
def test_probabilities_are_positive_and_sum_to_one(theta):
    found = random_items().probabilities(torch.tensor([theta], dtype=torch.float64)).detach().numpy()[0]
    exists = np.arange(6) < SIZES[:, None]
    assert (found >= 0).all() and (found[~exists] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)


def test_structure_of_the_items():
    items = random_items()
    slopes = items.discriminations().detach().numpy()
    assert slopes[1, 3] == slopes[1, 4], "a trait of two items has one discrimination"
    for position, trait in enumerate(TRAIT_OF):
        assert [slope > 0 for slope in slopes[:, position]] == [trait == 0, trait == 1]
    edges = items.edges().detach().numpy()
    for position, size in enumerate(SIZES):
        assert (np.diff(edges[position, : size + 1]) > 0).all()


def test_gradients():
    items = random_items()
    theta = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    categories = torch.tensor(random_categories(np.random.default_rng(2), 5))
    names, values = zip(*items.named_parameters(), strict=True)

    def log_prob(theta, *parameters):
        return torch.func.functional_call(items, dict(zip(names, parameters, strict=True)), (theta, categories))

    items.forward = items.log_prob
    assert torch.autograd.gradcheck(log_prob, (theta, *values))


def test_far_tails_stay_finite_with_their_gradients():
    items = GradedItems(MIXED)
    theta = torch.tensor([[-60.0, 60.0], [60.0, -60.0]], requires_grad=True)
    total = sum(items.log_prob(theta, torch.full((2, 6), k).minimum(items.sizes - 1)).sum() for k in range(6))
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(value.grad).all() for value in (theta, *items.parameters()) if value.grad is not None)


def test_start_gives_back_the_margins():
    spec = make_spec((3, 2), loose=1)
    counts = np.array([[700, 200, 80, 20]] * 3 + [[10, 20, 300, 5]] * 2 + [[50, 30, 20, 0]], dtype=float)
    margins = smooth_margins(counts, spec)
    items = GradedItems(spec, margins)
    points, masses = np.polynomial.hermite_e.hermegauss(41)
    theta = torch.tensor(points, dtype=torch.float32)[:, None].expand(-1, 2)
    found = np.einsum("q,qjk->jk", masses / masses.sum(), items.probabilities(theta).detach().numpy())
    np.testing.assert_allclose(found[:, :3], margins[:, :3], atol=0.02)
    np.testing.assert_allclose(found[5], margins[5], atol=1e-5, err_msg="no trait: the margins themselves")


@pytest.mark.parametrize("counts", [np.zeros((6, 6)), np.eye(6) * 1000])
def test_unseen_levels_keep_a_finite_likelihood(counts):
    margins = smooth_margins(counts, MIXED)
    np.testing.assert_allclose(margins.sum(axis=1), 1)
    items = GradedItems(MIXED, margins)
    for k in range(6):
        categories = torch.full((1, 6), k).minimum(items.sizes - 1)
        assert torch.isfinite(items.log_prob(torch.zeros(1, 2), categories)).all()


def test_flipped_items_are_turned_round_and_score_in_their_own_direction():
    codes = torch.tensor([[3, 1, 0, 2, 0, -1], [-1, -1, 5, -1, -1, 1]], dtype=torch.int8)
    categories = to_categories(codes, MIXED)
    assert categories.tolist() == [[3, 1, 5, 2, 0, -1], [-1, -1, 0, -1, -1, 1]]
    scores = GradedItems(MIXED).scores(categories)
    assert scores[:, 2].tolist() == [1.0, 6.0]


def test_expectations_over_the_posterior_equal_numerical_integrals():
    items, random = random_items(), np.random.default_rng(3)
    mean, sd = random.normal(size=(4, 2)), random.uniform(0.3, 1.0, size=(4, 2))
    categories = random_categories(random, 4)
    log_prob, score = items.expect_over_normal(torch.tensor(mean), torch.tensor(sd), torch.tensor(categories))
    scores = items.category_scores.numpy()
    for i in range(4):
        for j, trait in enumerate(TRAIT_OF):
            axis = trait or 0

            def integral(function, i=i, j=j, axis=axis):
                def integrand(value):
                    theta = np.zeros((1, 2))
                    theta[0, axis] = value
                    probabilities = reference_probabilities(items, theta)[j][0]
                    return function(probabilities) * stats.norm.pdf(value, mean[i, axis], sd[i, axis])

                low, high = mean[i, axis] - 9 * sd[i, axis], mean[i, axis] + 9 * sd[i, axis]
                return integrate.quad(integrand, low, high)[0]

            assert score[i, j].item() == pytest.approx(integral(lambda p, j=j: p @ scores[j, : len(p)]), abs=1e-4)
            answer = categories[i, j]
            expected = integral(lambda p, answer=answer: np.log(p[answer])) if answer >= 0 else 0.0
            assert log_prob[i, j].item() == pytest.approx(expected, abs=1e-4)
