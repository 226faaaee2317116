from dataclasses import replace

import numpy as np
import pytest
import torch

from model.fitting import TrainingSettings
from model.linking import LARGEST_DRIFT, link, measure_shifts, move_to
from model.training import train
from tests.model.simulation import make_spec, simulate, write_features

SPEC = make_spec((4, 2))
ZERO = {item.key: 0.0 for item in SPEC.items}


def make_people(network, codes):
    return network.categories(torch.from_numpy(codes)), torch.ones(len(codes))


def test_linking_error_is_that_of_pisa():
    now = {"t0_0": 0.1, "t0_1": -0.1, "t0_2": 0.02, "t0_3": 0.0, "t1_0": 0.05, "t1_1": 0.05}
    found = link(SPEC, ZERO, now)
    shifts = np.array([0.1, -0.1, 0.02, 0.0])
    assert found.errors["t0"] == pytest.approx(shifts.std(ddof=1) / 2)
    assert found.errors["t1"] == pytest.approx(0.0, abs=1e-9)
    assert found.drifted == [] and found.broken == []


def test_a_drifted_item_is_no_anchor():
    found = link(SPEC, ZERO, {**ZERO, "t0_3": 1.5 * LARGEST_DRIFT})
    assert found.drifted == ["t0_3"] and found.errors["t0"] == 0.0 and not found.broken


@pytest.mark.parametrize(
    ("now", "trait"),
    [({**ZERO, "t0_0": 0.6, "t0_1": -0.6, "t0_2": 1.4}, "t0"), ({key: 0.0 for key in ZERO if key != "t1_0"}, "t1")],
)
def test_a_trait_with_too_few_anchors_is_not_linked(now, trait):
    found = link(SPEC, ZERO, now)
    assert trait not in found.errors and len(found.broken) == 1
    assert found.broken[0].startswith(f"trait {trait}: only 1 of")


def test_shift_of_an_item_is_found(trained):
    network = trained.result.network
    codes, _ = simulate(trained.spec, 2000, seed=21)
    usual = measure_shifts(network, *make_people(network, codes))
    assert max(abs(shift) for shift in usual.values()) < 0.15
    harder = network.copy()
    harder.items.move({"t0_1": 0.5})
    moved = measure_shifts(harder, *make_people(network, codes))
    assert moved["t0_1"] - usual["t0_1"] == pytest.approx(-0.5, abs=0.05)
    # The others lean on it a little.
    assert max(abs(moved[key] - usual[key]) for key in usual if key != "t0_1") < 0.12


def make_harder(spec, codes, key):
    """Codes in which every answer to an item is a level lower, where there is one."""
    changed = codes.copy()
    place = spec.columns.index(key)
    changed[:, place] = np.where(changed[:, place] > 0, changed[:, place] - 1, changed[:, place])
    return changed


def test_a_drifted_item_gets_a_place_of_its_own_and_stays_out_of_the_link(trained):
    report = trained.result.report
    codes, _ = simulate(trained.spec, 2000, seed=22)
    codes = make_harder(trained.spec, codes, "t0_2")
    network = trained.result.network.copy()
    before = network.items.edges()[:, 1].clone()
    people = make_people(network, codes)
    found, moved = move_to(network, *people, reference=report["shifts"], moved={})
    assert found.drifted == ["t0_2"] == list(moved) and not found.broken
    assert moved["t0_2"] > LARGEST_DRIFT
    changed = torch.nonzero(network.items.edges()[:, 1] != before).flatten().tolist()
    assert changed == [trained.spec.columns.index("t0_2")]
    assert network.prior.population_mean.abs().max() < 0.15, "the drift is the item's, not the population's"
    again, later = move_to(network.copy(), *people, reference=report["shifts"], moved=moved)
    assert again.drifted == ["t0_2"] and later["t0_2"] == pytest.approx(moved["t0_2"], abs=0.1)


def test_a_later_model_keeps_items_norms_and_unit(trained, tmp_path):
    """The population has become more distressed by half an sd: profiles say so, items stay."""
    codes, traits = simulate(trained.spec, 4000, seed=23)
    distressed = np.random.default_rng(1).uniform(size=len(codes)) < 1 / (1 + np.exp(-2 * traits[:, 0]))
    codes, traits = codes[distressed], traits[distressed]
    paths = write_features(tmp_path / "f", trained.spec, codes)
    settings = replace(TrainingSettings(), settle_steps=200)
    result = train(paths, trained.spec, settings, tmp_path / "c", champion=trained.result, progress=False)
    old, new = trained.result.network, result.network
    for name, tensor in new.state_dict().items():
        if name.startswith(("items.", "shift.")):
            torch.testing.assert_close(tensor, old.state_dict()[name], rtol=0, atol=0)
    assert result.norms.traits == trained.result.norms.traits
    assert new.prior.population_mean[0].item() == pytest.approx(traits[:, 0].mean(), abs=0.1)
    assert result.report["link"]["broken"] == [] and result.report["moved"] == {}
    assert result.report["shifts"] == trained.result.report["shifts"], "those of the reference"
    people = new.categories(torch.from_numpy(codes[:1000]))
    with torch.no_grad():
        means = [network.posterior(people).mean[:, :2].numpy() for network in (old, new)]
    for trait in range(2):
        assert np.corrcoef(means[0][:, trait], means[1][:, trait])[0, 1] > 0.98
