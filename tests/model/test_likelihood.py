import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from model.likelihood import GradedItems, log_between, smooth_margins, to_categories
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


def reference_probabilities(items: GradedItems, location: np.ndarray, spread: np.ndarray) -> list[np.ndarray]:
    """Each item's probabilities (people, categories) as differences of cumulative ones, counted from the nearer end."""
    edges = items.edges().detach().numpy()
    result = []
    for position, size in enumerate(SIZES):
        reach = spread[:, position, None] * (location[:, position, None] - edges[position, 1:size])
        ends = np.full((len(location), 1), np.inf)
        at_least, below = (expit(np.hstack(part)) for part in ([ends, reach, -ends], [-ends, -reach, ends]))
        result.append(np.where(at_least[:, 1:] > 0.5, np.diff(below), -np.diff(at_least)))
    return result


def random_categories(random: np.random.Generator, people: int) -> np.ndarray:
    return random.integers(-1, SIZES, size=(people, len(SIZES)))


@pytest.mark.parametrize("spread", ["none", "random"])
def test_log_prob_equals_cumulative_differences(spread):
    items, random = random_items(), np.random.default_rng(1)
    theta, categories = torch.tensor(random.normal(size=(200, 2)) * 2), random_categories(random, 200)
    location = items.locations(theta).detach() + torch.tensor(random.normal(size=(200, 6)))
    widths = np.ones((200, 6)) if spread == "none" else np.exp(random.normal(size=(200, 6)))
    reference = reference_probabilities(items, location.numpy(), widths)
    expected = np.array(
        [[np.log(reference[j][i, c]) if c >= 0 else 0.0 for j, c in enumerate(row)] for i, row in enumerate(categories)]
    )
    given_spread = None if spread == "none" else torch.tensor(widths)
    found = items.log_prob(location, given_spread, torch.tensor(categories)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)
    probabilities = items.probabilities(location, given_spread).detach().numpy()
    for position, size in enumerate(SIZES):
        np.testing.assert_allclose(probabilities[:, position, :size], reference[position], atol=1e-12)


def test_locations_are_slope_times_trait_and_zero_without_a_trait():
    items, theta = random_items(), torch.randn(7, 2, dtype=torch.float64)
    slopes, found = items.discriminations().detach(), items.locations(theta).detach()
    for position, trait in enumerate(TRAIT_OF):
        expected = torch.zeros(7) if trait is None else slopes[trait, position] * theta[:, trait]
        torch.testing.assert_close(found[:, position], expected, check_dtype=False)


@settings(max_examples=60)
@given(st.floats(-60, 60), st.one_of(st.none(), st.floats(0.05, 20)))
def test_probabilities_are_positive_and_sum_to_one(location, spread):
    items = random_items()
    places = torch.full((1, 6), location, dtype=torch.float64)
    widths = None if spread is None else torch.full_like(places, spread)
    found = items.probabilities(places, widths).detach().numpy()[0]
    exists = np.arange(6) < SIZES[:, None]
    assert (found >= 0).all() and (found[~exists] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    by_answer = [
        items.log_prob(places, widths, torch.full((1, 6), k).minimum(items.sizes - 1)).detach().numpy()[0]
        for k in range(6)
    ]
    np.testing.assert_allclose((np.exp(by_answer) * exists.T).sum(axis=0), 1, atol=1e-9)


def test_structure_of_the_items():
    items = random_items()
    slopes = items.discriminations().detach().numpy()
    assert slopes[1, 3] == slopes[1, 4], "a trait of two items has one discrimination"
    for position, trait in enumerate(TRAIT_OF):
        assert [slope > 0 for slope in slopes[:, position]] == [trait == 0, trait == 1]
    edges = items.edges().detach().numpy()
    for position, size in enumerate(SIZES):
        assert (np.diff(edges[position, : size + 1]) > 0).all()


@pytest.mark.parametrize("draws", [(), (3,)])
@pytest.mark.parametrize("spread", ["none", "random"])
def test_gradients(spread, draws):
    items = random_items()
    theta = torch.randn(*draws, 5, 2, dtype=torch.float64, requires_grad=True)
    widths = [torch.randn(*draws, 5, 6, dtype=torch.float64).exp().requires_grad_()] if spread == "random" else []
    categories = torch.tensor(random_categories(np.random.default_rng(2), 5))
    names, values = zip(*items.named_parameters(), strict=True)

    def log_prob(theta, *others):
        parameters = others[len(widths) :]
        spread = others[0] if widths else None
        return torch.func.functional_call(items, dict(zip(names, parameters, strict=True)), (theta, spread))

    items.forward = lambda theta, spread: items.log_prob(items.locations(theta), spread, categories)
    assert torch.autograd.gradcheck(log_prob, (theta, *widths, *values))


@pytest.mark.parametrize("width", [None, 0.02, 1.0, 50.0])
def test_far_tails_stay_finite_with_their_gradients(width):
    items = GradedItems(MIXED)
    theta = torch.tensor([[-60.0, 60.0], [60.0, -60.0]], requires_grad=True)
    spread = None if width is None else torch.full((2, 6), width, requires_grad=True)
    total = sum(
        items.log_prob(items.locations(theta), spread, torch.full((2, 6), k).minimum(items.sizes - 1)).sum()
        for k in range(6)
    )
    total.backward()
    assert torch.isfinite(total)
    learned = (theta, *items.parameters(), *([] if spread is None else [spread]))
    assert all(torch.isfinite(value.grad).all() for value in learned if value.grad is not None)


def test_start_gives_back_the_margins():
    spec = make_spec((3, 2), loose=1)
    counts = np.array([[700, 200, 80, 20]] * 3 + [[10, 20, 300, 5]] * 2 + [[50, 30, 20, 0]], dtype=float)
    margins = smooth_margins(counts, spec)
    items = GradedItems(spec, margins)
    points, masses = np.polynomial.hermite_e.hermegauss(41)
    theta = torch.tensor(points, dtype=torch.float32)[:, None].expand(-1, 2)
    found = np.einsum(
        "q,qjk->jk", masses / masses.sum(), items.probabilities(items.locations(theta), None).detach().numpy()
    )
    np.testing.assert_allclose(found[:, :3], margins[:, :3], atol=0.02)
    np.testing.assert_allclose(found[5], margins[5], atol=1e-5, err_msg="no trait: the margins themselves")


@pytest.mark.parametrize("counts", [np.zeros((6, 6)), np.eye(6) * 1000])
def test_unseen_levels_keep_a_finite_likelihood(counts):
    margins = smooth_margins(counts, MIXED)
    np.testing.assert_allclose(margins.sum(axis=1), 1)
    items = GradedItems(MIXED, margins)
    for k in range(6):
        categories = torch.full((1, 6), k).minimum(items.sizes - 1)
        assert torch.isfinite(items.log_prob(torch.zeros(1, 6), None, categories)).all()


def test_flipped_items_are_turned_round_and_score_in_their_own_direction():
    codes = torch.tensor([[3, 1, 0, 2, 0, -1], [-1, -1, 5, -1, -1, 1]], dtype=torch.int8)
    categories = to_categories(codes, MIXED)
    assert categories.tolist() == [[3, 1, 5, 2, 0, -1], [-1, -1, 0, -1, -1, 1]]
    scores = GradedItems(MIXED).scores(categories)
    assert scores[:, 2].tolist() == [1.0, 6.0]


def test_a_model_that_does_not_learn_can_be_traced_and_gives_the_same_numbers() -> None:
    """Others' tools take a model as a trace, which knows no function of Python's."""
    generator = torch.Generator().manual_seed(2)
    location, spread = torch.randn(3, 5, 4, generator=generator), torch.rand(3, 5, 4, generator=generator) + 0.5
    lower = torch.randn(5, 4, generator=generator)
    parts = (location, spread, lower, lower + 0.7)
    with torch.no_grad():
        traced = torch.jit.trace(log_between, parts)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, io.BytesIO())  # type: ignore[no-untyped-call]
        found = traced(*parts)
    assert torch.equal(found, log_between(*(part.requires_grad_() for part in parts)).detach())
