import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model import outlook
from model.network import Draws, ProfileNetwork
from model.outlook import Outlook, foretell
from model.spec import FeatureSpec, ItemSpec, ScaleSpec, TraitSpec
from model.weighing import Placed, place_items

SPEC = FeatureSpec(
    items=(
        ItemSpec("a", (0, 1, 2, 3), "x", False),
        ItemSpec("b", (-1, 0, 2), "x", False),
        ItemSpec("c", (1, 2, 5), "x", True),
        ItemSpec("d", (0, 1, 2, 3, 4, 5), "y", True),
        ItemSpec("e", (0, 1, 2, 3), "y", True),
        ItemSpec("f", (0, 1), None, False),
    ),
    traits=(TraitSpec("x", ("a", "b", "c")), TraitSpec("y", ("d", "e"))),
    scales=(
        ScaleSpec("sum", ("a", "b", "c"), cut=">=5"),
        ScaleSpec("low", ("d", "e"), multiply=4.0, cut="<=16"),
        ScaleSpec("across", ("f", "a", "e"), multiply=0.5, cut=">=3"),
        ScaleSpec("plain", ("a", "d")),
    ),
    codebook="mixed",
    codebook_version="1",
)
CUTS = {"sum": lambda total: total >= 5, "low": lambda total: total <= 16, "across": lambda total: total >= 3}


@pytest.fixture(scope="module", params=[0, 2])
def network(request) -> ProfileNetwork:
    torch.manual_seed(request.param)
    network = ProfileNetwork(SPEC, residuals=request.param).requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.4 * torch.randn_like(parameter)
    return network


def make_people(network: ProfileNetwork, people: int, missing: float = 0.4) -> tuple[Draws, torch.Tensor]:
    """Draws of unequal weights, and categories of which some are missing."""
    generator = torch.Generator().manual_seed(people)
    drawn = Draws(
        torch.randn((4, people, network.latents), generator=generator),
        2 * torch.randn((4, people), generator=generator),
    )
    sizes = torch.tensor([len(item.levels) for item in SPEC.items])
    categories = (torch.rand((people, 6), generator=generator) * sizes).long()
    return drawn, categories.masked_fill(torch.rand((people, 6), generator=generator) < missing, -1)


def look_out(network: ProfileNetwork, drawn: Draws, categories: torch.Tensor) -> Outlook:
    return foretell(network, place_items(network, drawn.latents), drawn.masses(), categories)


def enumerate_answers(network: ProfileNetwork, drawn: Draws, person: int, categories: list[int]) -> Iterator:
    """Probability and item scores of everything that a person may have answered."""
    masses = drawn.masses()[:, person].double().numpy()
    probability = network.items.probabilities(*network.place(drawn.latents[:, person])).double().numpy()
    choices = [
        range(len(item.levels)) if category < 0 else [category]
        for item, category in zip(SPEC.items, categories, strict=True)
    ]
    for answers in itertools.product(*choices):
        scores = [
            (item.levels[::-1] if item.flipped else item.levels)[category]
            for item, category in zip(SPEC.items, answers, strict=True)
        ]
        open_items = [position for position, category in enumerate(categories) if category < 0]
        chosen = [answers[position] for position in open_items]
        yield float(masses @ probability[:, open_items, chosen].prod(axis=1)), np.array(scores, dtype=float)


def test_totals_and_cuts_are_those_of_all_possible_answers(network):
    drawn, categories = make_people(network, 25)
    categories[0] = -1
    found = look_out(network, drawn, categories)
    assert found.cuts.keys() == CUTS.keys()
    for person in range(25):
        possible = list(enumerate_answers(network, drawn, person, categories[person].tolist()))
        assert sum(mass for mass, _ in possible) == pytest.approx(1, abs=1e-5)
        expected = sum(mass * scores for mass, scores in possible)
        assert found.scores[person].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        for scale in SPEC.scales[:3]:
            members = [SPEC.columns.index(key) for key in scale.items]
            reached = sum(mass for mass, scores in possible if CUTS[scale.key](scale.multiply * scores[members].sum()))
            assert found.cuts[scale.key][person].item() == pytest.approx(reached, abs=1e-4), scale.key


def test_complete_answers_are_certain(network):
    drawn, categories = make_people(network, 300, missing=0.0)
    some = categories.clone()
    some[::2, 5] = -1  # an item of the third scale alone
    for answers in (categories, some):
        found = look_out(network, drawn, answers)
        codes = categories.numpy().copy()
        for position, item in enumerate(SPEC.items):
            levels = item.levels[::-1] if item.flipped else item.levels
            codes[:, position] = np.array(levels)[categories[:, position]]
        np.testing.assert_array_equal(found.scores[:, :5].numpy(), codes[:, :5])
        assert found.cuts["sum"].tolist() == (codes[:, :3].sum(axis=1) >= 5).astype(float).tolist()
        assert found.cuts["low"].tolist() == (4 * codes[:, 3:5].sum(axis=1) <= 16).astype(float).tolist()
        assert 0 < found.cuts["sum"].mean() < 1 and 0 < found.cuts["low"].mean() < 1
    assert ((found.cuts["across"] > 0) & (found.cuts["across"] < 1)).any()


def test_a_person_gets_the_same_bits_in_any_company(network, monkeypatch):
    drawn, categories = make_people(network, 602)
    placed, masses = place_items(network, drawn.latents), drawn.masses()
    together = foretell(network, placed, masses, categories)
    monkeypatch.setattr(outlook, "MOST_AT_ONCE", 1000)
    for chosen in (torch.tensor([3]), torch.arange(500, 560), torch.randperm(len(categories))):
        shift, spread = (part if part is None else part[:, :, chosen] for part in (placed.shift, placed.spread))
        part = Placed(placed.thetas[:, :, chosen], placed.slope, placed.trait, shift, spread)
        alone = foretell(network, part, masses[:, chosen], categories[chosen])
        assert torch.equal(alone.scores, together.scores[chosen])
        assert all(torch.equal(alone.cuts[key], together.cuts[key][chosen]) for key in CUTS)


def test_probabilities_stay_between_0_and_1_for_far_away_people(network):
    drawn, categories = make_people(network, 60)
    far = Draws(30 * drawn.latents, 50 * drawn.log_weights)
    found = look_out(network, far, categories)
    assert all(((cut >= 0) & (cut <= 1)).all() for cut in found.cuts.values())
    assert torch.isfinite(found.scores).all()
