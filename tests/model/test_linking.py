from dataclasses import replace

import numpy as np
import pytest
import torch

from model.amortise import simulate_people
from model.fitting import TrainingSettings
from model.linking import (
    LARGEST_DRIFT,
    LARGEST_FACTOR,
    Behaviour,
    LinkError,
    check_spread,
    link,
    link_population,
    measure_items,
)
from model.training import train
from tests.model.simulation import make_spec, simulate, write_features

SPEC = make_spec((4, 2))
USUAL = Behaviour(0.0, 0.02, 1.0, 0.05)
REFERENCE = {item.key: USUAL for item in SPEC.items}
SETTINGS = replace(TrainingSettings(), settle_steps=200)


def make_people(network, codes):
    return network.categories(torch.from_numpy(codes)), torch.ones(len(codes))


def read_reference(result):
    return {key: Behaviour(**found) for key, found in result.report["reference"].items()}


def moved(step):
    return replace(USUAL, location=step)


def test_linking_error_is_that_of_pisa():
    shifts = np.array([0.1, -0.1, 0.02, 0.0])
    now = {f"t0_{number}": moved(shift) for number, shift in enumerate(shifts)}
    found = link(SPEC, REFERENCE, now | {"t1_0": moved(0.05), "t1_1": moved(0.05)})
    assert found.errors["t0"] == pytest.approx(shifts.std(ddof=1) / 2)
    assert found.errors["t1"] == pytest.approx(0.0, abs=1e-9)
    assert found.drifted == {"t0": [], "t1": []}


@pytest.mark.parametrize(
    ("now", "drifted"),
    [
        (moved(1.5 * LARGEST_DRIFT), True),
        (moved(0.9 * LARGEST_DRIFT), False),
        (Behaviour(1.5 * LARGEST_DRIFT, LARGEST_DRIFT, 1.0, 0.05), False),
        (replace(USUAL, factor=1.1 * LARGEST_FACTOR), True),
        (replace(USUAL, factor=0.9 / LARGEST_FACTOR), True),
        (replace(USUAL, factor=0.9 * LARGEST_FACTOR), False),
        (Behaviour(0.0, 0.02, 0.0, 0.4), False),
    ],
    ids=["moved", "near", "moved, by chance", "sharper", "blunter", "a little sharper", "blunt, by chance"],
)
def test_a_drifted_item_is_no_anchor(now, drifted):
    found = link(SPEC, REFERENCE, REFERENCE | {"t0_3": now})
    assert found.drifted["t0"] == (["t0_3"] if drifted else [])
    assert (found.errors["t0"] == 0) == (drifted or now.location == 0)


@pytest.mark.parametrize(
    ("now", "trait"),
    [
        (REFERENCE | {"t0_0": moved(0.6), "t0_1": moved(-0.6), "t0_2": moved(1.4)}, "t0"),
        ({key: USUAL for key in REFERENCE if key != "t1_0"}, "t1"),
    ],
)
def test_a_trait_with_too_few_anchors_is_not_linked(now, trait):
    found = link(SPEC, REFERENCE, now)
    other = {"t0": "t1", "t1": "t0"}[trait]
    assert found.anchors[trait] == 1 and list(found.errors) == [other]


def test_how_an_item_has_changed_is_found(trained):
    network = trained.result.network
    codes, _ = simulate(trained.spec, 3000, seed=21)
    people = make_people(network, codes)
    usual = measure_items(network, *people)
    assert max(abs(item.location) for item in usual.values()) < 0.15
    assert all(item.factor == pytest.approx(1, abs=0.25) for item in usual.values())
    assert all(0.01 < item.location_se < 0.06 and 0.02 < item.factor_se < 0.15 for item in usual.values())
    changed = network.copy()
    place = network.spec.columns.index("t0_1")
    slope = changed.items.discriminations()[0, place]
    changed.items.first_threshold[place] += 0.5 * slope
    found = measure_items(changed, *people)
    assert found["t0_1"].location - usual["t0_1"].location == pytest.approx(-0.5, abs=0.06)
    changed = network.copy()
    changed.items.log_discrimination[changed.items.shared[place]] += np.log(1.6)
    found = measure_items(changed, *people)
    assert found["t0_1"].factor == pytest.approx(usual["t0_1"].factor / 1.6, abs=0.12)
    # The others lean on it a little.
    assert max(abs(found[key].location - usual[key].location) for key in usual if key != "t0_1") < 0.12


def make_harder(spec, codes, key):
    """Codes in which every answer to an item is a level lower, where there is one."""
    changed = codes.copy()
    place = spec.columns.index(key)
    changed[:, place] = np.where(changed[:, place] > 0, changed[:, place] - 1, changed[:, place])
    return changed


def make_random(spec, codes, keys, seed=1):
    """Codes in which people answer some items as somebody else did."""
    changed, random = codes.copy(), np.random.default_rng(seed)
    for key in keys:
        place = spec.columns.index(key)
        changed[:, place] = random.permutation(changed[:, place])
    return changed


@pytest.mark.parametrize("change", ["harder", "random"])
def test_a_drifted_item_says_nothing_about_the_population(trained, change):
    codes, traits = simulate(trained.spec, 3000, seed=22)
    codes, traits = codes[traits[:, 0] > -0.5], traits[traits[:, 0] > -0.5]
    changed = make_harder(trained.spec, codes, "t0_2") if change == "harder" else None
    changed = make_random(trained.spec, codes, ["t0_2", "t0_4"]) if changed is None else changed
    network = trained.result.reference.copy()
    found = link_population(network, *make_people(network, changed), read_reference(trained.result))
    assert sorted(found.drifted["t0"]) == (["t0_2"] if change == "harder" else ["t0_2", "t0_4"])
    assert found.drifted["t1"] == []
    assert network.prior.population_mean[0].item() == pytest.approx(traits[:, 0].mean(), abs=0.12)
    for name, tensor in network.items.state_dict().items():
        assert torch.equal(tensor, trained.result.reference.items.state_dict()[name])


def test_a_hard_item_that_has_lost_its_sense_is_found(trained):
    network = trained.result.reference.copy()
    place = network.spec.columns.index("t0_3")
    network.items.first_threshold[place] += 4.0
    everything = torch.ones(1, len(network.spec.items), dtype=torch.bool)
    people = [
        simulate_people(network, everything, 5000, torch.Generator().manual_seed(n), thinned=0)[1] for n in (1, 2)
    ]
    assert (people[0][:, place] > 0).float().mean() < 0.1
    reference = measure_items(network, people[0], torch.ones(5000))
    assert link_population(network.copy(), people[1], torch.ones(5000), reference).drifted["t0"] == []
    people[1][:, place] = people[1][torch.randperm(5000, generator=torch.Generator().manual_seed(3)), place]
    assert link_population(network.copy(), people[1], torch.ones(5000), reference).drifted["t0"] == ["t0_3"]


def test_an_item_that_nobody_could_judge_is_no_anchor(trained):
    codes, _ = simulate(trained.spec, 2000, seed=22)
    network = trained.result.reference.copy()
    network.items.first_threshold[trained.spec.columns.index("t0_2")] += 3.0
    reference = {key: found for key, found in read_reference(trained.result).items() if key != "t0_2"}
    found = link_population(network, *make_people(network, codes), reference)
    assert found.drifted["t0"] == ["t0_2"]
    assert network.prior.population_mean.abs().max() < 0.15


def test_items_at_random_throughout_break_the_link(trained, tmp_path):
    codes, _ = simulate(trained.spec, 3000, seed=24)
    codes = make_random(trained.spec, codes, ["t0_0", "t0_1", "t0_2"])
    paths = write_features(tmp_path / "f", trained.spec, codes)
    with pytest.raises(LinkError, match="trait t0") as caught:
        train(paths, trained.spec, SETTINGS, tmp_path / "c", champion=trained.result, progress=False)
    assert len(caught.value.reasons) == 1


def test_answers_that_are_all_at_random_break_the_link(trained):
    codes, _ = simulate(trained.spec, 3000, seed=24)
    codes = make_random(trained.spec, codes, [f"t1_{number}" for number in range(4)])
    network = trained.result.reference.copy()
    with pytest.raises(LinkError, match="trait t1"):
        link_population(network, *make_people(network, codes), read_reference(trained.result))
        check_spread(network)


@pytest.fixture(scope="module")
def later(trained, tmp_path_factory):
    """The population has become more distressed; its traits no longer go together; two items have lost their sense."""
    home = tmp_path_factory.mktemp("later")
    codes, traits = simulate(trained.spec, 6000, seed=23, correlation=0.0)
    distressed = np.random.default_rng(1).uniform(size=len(codes)) < 1 / (1 + np.exp(-2 * traits[:, 0]))
    codes, traits = make_random(trained.spec, codes[distressed], ["t0_1", "t0_3"]), traits[distressed]
    paths = write_features(home / "f", trained.spec, codes)
    result = train(paths, trained.spec, SETTINGS, home / "c", champion=trained.result, progress=False)
    return result, codes, traits


def test_a_later_model_keeps_anchors_norms_and_unit(trained, later):
    result, _, traits = later
    assert sorted(result.report["link"]["drifted"]["t0"]) == ["t0_1", "t0_3"]
    # The item without a trait is learned anew, too.
    kept = torch.tensor([key not in ("t0_1", "t0_3", "loose_0") for key in trained.spec.columns])
    old, new = trained.result.network, result.network
    for name in ("first_threshold", "raw_gaps"):
        before, after = (getattr(network.items, name) for network in (old, new))
        assert torch.equal(before[kept], after[kept]) and not torch.equal(before, after)
    slopes = [network.items.discriminations().sum(dim=0) for network in (old, new)]
    assert torch.equal(slopes[0][kept], slopes[1][kept])
    assert (slopes[1][~kept][:2] < 0.4).all(), "answers at random"
    residual = torch.randn(50, 2)
    places = [network.place(torch.cat([torch.zeros(50, 2), residual], dim=1)) for network in (old, new)]
    for before, after in zip(*places, strict=True):
        torch.testing.assert_close(before[:, kept], after[:, kept], rtol=0, atol=1e-5)
    assert result.norms.traits == trained.result.norms.traits
    assert result.norms.profiles == trained.result.norms.profiles
    assert result.report["reference"] == trained.result.report["reference"]
    assert result.reference is trained.result.reference
    assert new.prior.population_mean[0].item() == pytest.approx(traits[:, 0].mean(), abs=0.1)


def test_a_later_model_learns_how_its_own_traits_go_together(trained, later):
    result, codes, traits = later
    assert trained.result.network.trait_correlations()[0, 1] > 0.45
    assert abs(result.network.trait_correlations()[0, 1]) < 0.15
    with torch.no_grad():
        posterior = result.network.posterior(result.network.categories(torch.from_numpy(codes)))
    inside = np.abs(traits - posterior.mean[:, :2].numpy()) < 1.6449 * posterior.sd()[:, :2].numpy()
    assert inside.mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.03)


def test_a_third_model_is_judged_by_the_first(trained, later, tmp_path):
    """The items have come to their senses: they are anchors again, with the parameters that they had."""
    codes, _ = simulate(trained.spec, 3000, seed=25)
    paths = write_features(tmp_path / "f", trained.spec, codes)
    third = train(paths, trained.spec, SETTINGS, tmp_path / "c", champion=later[0], progress=False)
    assert third.report["link"]["drifted"] == {"t0": [], "t1": []}
    for name in ("first_threshold", "raw_gaps"):
        before, after = (getattr(result.network.items, name)[:-1] for result in (trained.result, third))
        assert torch.equal(before, after)
    torch.testing.assert_close(third.network.items.discriminations(), trained.result.network.items.discriminations())
    assert third.network.trait_correlations()[0, 1] == pytest.approx(0.6, abs=0.1)
