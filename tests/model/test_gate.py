from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from model.fairness import describe_groups, take_measures
from model.gate import (
    LARGEST_RANK_DEVIATION,
    WORST_LOSS,
    Comparison,
    compare_costs,
    cover_answers,
    cover_simulated,
    find_losses,
    find_miscalibration,
    place_simulated,
    rank_simulated,
)
from model.inputs import survey_inputs
from model.multiplicity import adjust_false_discoveries, adjust_holm
from model.predicting import foretell_hidden
from model.validation import cost_people, cost_per_answer, design_cells, hide_cells


@pytest.fixture(scope="module")
def inputs(trained):
    return survey_inputs(trained.paths, trained.spec, "weight")


@pytest.fixture(scope="module")
def cells(inputs):
    return hide_cells(inputs)


@pytest.fixture(scope="module")
def design(inputs):
    """Nobody is clustered."""
    people = ["all"] * len(inputs.held_out)
    return design_cells(inputs, people, people)


def test_holm_steps_down():
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.6, 0.9]) == [1.0, 1.0] and adjust_holm([]) == []


def test_benjamini_and_hochberg_step_up():
    # R: p.adjust(c(.01, .04, .03, .005), "BH")
    assert adjust_false_discoveries([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjust_false_discoveries([]) == []


def test_a_difference_is_paired_and_people_are_clusters(trained, cells, design):
    costs = cost_people(trained.result.network, cells)
    worse = costs + 0.03 * (cells.hidden >= 0).sum(dim=1)
    [same] = compare_costs(costs, costs, cells, {}, design)
    assert (same.group, same.difference, same.se) == ("all", 0.0, 0.0)
    [all_of_them] = compare_costs(worse, costs, cells, {}, design)
    assert all_of_them.difference == pytest.approx(0.03, rel=1e-5) and all_of_them.se == pytest.approx(0.0, abs=1e-6)
    assert all_of_them.people == cells.people < len(costs), "rounds of one person are one cluster"
    noisy = costs + torch.randn(len(costs), generator=torch.Generator().manual_seed(1))
    [compared] = compare_costs(noisy, costs, cells, {}, design)
    assert compared.difference == pytest.approx(cost_per_answer(noisy, cells) - cost_per_answer(costs, cells), abs=1e-6)
    # By the bootstrap over people.
    random, draws = np.random.default_rng(1), []
    shape = (-1, cells.people)
    weights = cells.weights.double().numpy().reshape(shape)
    apart = (noisy - costs).double().numpy().reshape(shape)
    answers = (cells.hidden >= 0).sum(dim=1).double().numpy().reshape(shape)
    for _ in range(2000):
        chosen = random.integers(0, cells.people, cells.people)
        total = (weights * answers)[:, chosen].sum()
        draws.append((weights * apart)[:, chosen].sum() / total)
    assert compared.se == pytest.approx(np.std(draws), rel=0.1)


def test_a_group_that_is_served_worse_is_found(trained, cells, design):
    costs = cost_people(trained.result.network, cells)
    member, few = np.arange(cells.people) % 3 == 0, np.arange(cells.people) < 20
    rows = torch.from_numpy(np.tile(member, len(costs) // cells.people))
    worse = costs + 0.05 * rows.float() * (cells.hidden >= 0).sum(dim=1)
    compared = compare_costs(worse, costs, cells, {"sex=a": member, "sex=b": ~member, "sex=c": few}, design)
    assert [comparison.group for comparison in compared] == ["all", "sex=a", "sex=b"], "twenty people are too few"
    reasons = find_losses(compared)
    assert any("sex=a" in reason for reason in reasons) and not any("sex=b" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("difference", "p", "refused"),
    [(WORST_LOSS / 2, 0.9, 0), (WORST_LOSS * 1.2, 0.3, 1), (float("nan"), float("nan"), 1)],
)
def test_for_everybody_the_loss_itself_counts(difference, p, refused):
    assert len(find_losses([Comparison("all", 900, difference, 0.002, p)])) == refused


def test_for_a_group_the_loss_must_be_sure():
    def judge(p: float) -> int:
        return len(find_losses([Comparison("all", 900, 0.0, 0.002, 1.0), Comparison("sex=a", 90, 0.03, 0.02, p)]))

    assert judge(0.2) == 0 and judge(0.001) == 1


def test_predictions_of_a_true_model_cover_what_they_say(trained, cells):
    bands = cover_answers(foretell_hidden(trained.result.network, cells))
    assert bands[0]["level"] == "all" and len(bands) == 5
    assert bands[0]["covered"] == pytest.approx(0.9, abs=0.03)
    assert bands[0]["answers"] == int((cells.hidden >= 0).sum())
    assert find_miscalibration(bands, {}, {}) == []


def test_a_true_model_foretells_totals_without_bias(trained, cells, design):
    measures = take_measures(foretell_hidden(trained.result.network, cells), trained.spec)
    figures = describe_groups(measures, {}, design)
    assert [figure.measure for figure in figures] == ["coverage", "s0_expected", "s1_expected"]
    assert figures[0].figure == pytest.approx(0.9, abs=0.03)
    assert all(abs(figure.figure) < 4 * figure.se for figure in figures[1:])


def test_predictions_that_are_too_sure_are_found(trained, cells):
    network = trained.result.network.copy()
    with torch.no_grad():
        network.items.log_discrimination += 1.5
        network.items.first_threshold *= 4.0
    reasons = find_miscalibration(cover_answers(foretell_hidden(network, cells)), {}, {})
    assert reasons and "hidden answers (all)" in reasons[0]


@pytest.mark.parametrize(("people", "reasons"), [(12, False), (200, True)])
def test_answers_that_are_all_foretold_are_a_reason_only_where_they_are_many(people, reasons, trained, inputs):
    """Where all lie inside, the share shows no variation; a dozen people prove nothing for all that."""
    cells = hide_cells(replace(inputs, held_out=inputs.held_out[:people], held_out_weights=torch.ones(people)))
    network = trained.result.network.copy()
    network.predict = lambda seen, draws: torch.tensor([0.05, 0.9, 0.05, 0.0]).expand(*seen.shape, 4)
    middle = replace(cells, hidden=torch.where(cells.hidden >= 0, 1, cells.hidden))
    bands = cover_answers(foretell_hidden(network, middle))
    assert all(band["covered"] == 1.0 and band["se"] > 0 for band in bands)
    assert bool(find_miscalibration(bands, {}, {})) == reasons


def test_ranks_of_simulated_people_are_uniform_unless_sds_lie(trained, inputs):
    network = trained.result.network.copy()
    patterns = inputs.held_out >= 0
    honest = rank_simulated(place_simulated(network, patterns))
    assert set(honest) == {"t0", "t1"} and max(honest.values()) < LARGEST_RANK_DEVIATION
    with torch.no_grad():
        network.encoder[-1].bias[: network.traits] += 0.5
    shifted = rank_simulated(place_simulated(network, patterns))
    reasons = find_miscalibration([], shifted, {})
    assert len(reasons) == 2 and "not calibrated" in reasons[0]
    assert shifted["t0"] > stats.norm.cdf(0.25) - 0.5


@pytest.mark.parametrize("factor", [0.75, 0.85, 1.3])
def test_intervals_that_are_too_narrow_or_too_wide_are_a_reason(factor, trained, inputs):
    """Of all this the ranks alone might say nothing: such sds are wrong on both sides of the middle."""
    patterns = inputs.held_out >= 0
    honest = trained.result.network
    assert find_miscalibration([], {}, cover_simulated(place_simulated(honest, patterns))) == []
    lying = honest.copy()
    encode = honest.posterior
    lying.posterior = lambda categories: replace(encode(categories), factor=factor * encode(categories).factor)
    reasons = find_miscalibration([], {}, cover_simulated(place_simulated(lying, patterns)))
    assert len(reasons) == 2 and "90 % intervals" in reasons[0]


def test_coverage_and_ranks_that_are_no_numbers_are_reasons():
    bands = [{"level": "all", "answers": 5, "covered": float("nan"), "se": 0.0}]
    assert len(find_miscalibration(bands, {"t0": float("nan")}, {"t0": float("nan")})) == 3
