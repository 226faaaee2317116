"""People of known traits, some of whom answer an item as if their trait were another; `benchmarks.privacy` counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.special import expit

from model.design import Design
from model.differential import (
    FEWEST_IN_CATEGORY,
    FEWEST_IN_GROUP,
    GroupEffect,
    ItemFinding,
    choose_anchors,
    examine_items,
    examine_trait,
    join_categories,
    regress_answers,
)
from model.item_curves import compare_curves, derive, fit_curve, tabulate
from model.matching import Evidence, TraitItems
from model.multiplicity import adjust_false_discoveries

ITEMS, LEVELS = 6, 4
GROUPS = ("first", "second", "third")


def make_items(count: int = ITEMS) -> tuple[TraitItems, np.ndarray, np.ndarray]:
    """Items of a scale with a floor, and their discriminations and cuts."""
    slopes = np.linspace(1.3, 2.3, count)
    cuts = slopes[:, None] * (np.linspace(0.2, 1.0, count)[:, None] + np.array([0.0, 0.7, 1.4]))
    theta = np.linspace(-5, 6, 45)
    above = expit(slopes[:, None, None] * theta[None, :, None] - cuts[:, None, :])
    probability = -np.diff(above, axis=2, prepend=1.0, append=0.0)
    density = np.exp(-0.5 * theta**2)
    keys = tuple(f"i{number}" for number in range(count))
    scores = np.tile(np.arange(LEVELS, dtype=float), (count, 1))
    items = TraitItems("t", keys, (LEVELS,) * count, theta, probability, scores, density / density.sum())
    return items, slopes, cuts


def answer(people: int, seed: int, shift: float = 0.0, gap: float = 0.6, groups: int = 2, missing: float = 0.05):
    """Answers (people, ITEMS) of groups whose traits lie `gap` apart; the last group's first item is shifted."""
    random = np.random.default_rng(seed)
    _, slopes, cuts = make_items()
    group = random.integers(0, groups, people)
    seen = np.repeat((random.standard_normal(people) + gap * group)[:, None], ITEMS, axis=1)
    seen[:, 0] -= shift * (group == groups - 1)
    answers = (random.uniform(size=(people, ITEMS, 1)) < expit((slopes * seen)[:, :, None] - cuts)).sum(axis=2)
    answers[random.uniform(size=answers.shape) < missing] = -1
    return answers, group, Design.of(random.uniform(0.5, 2, people), (np.arange(people) % 5).tolist(),
                                     (np.arange(people) % 50).tolist())  # fmt: skip


def examine(answers, group, design) -> list[ItemFinding]:
    return examine_items([(make_items()[0], answers)], {"cohort": [GROUPS[number] for number in group]}, design)


def test_a_shifted_item_is_found_left_out_of_the_matching_and_told_with_its_sign():
    findings = examine(*answer(3000, 1, shift=0.7))
    first, *others = findings
    assert first.verdict == "large" and first.purified and first.model_adjusted < 0.001 and first.r2_change > 0.01
    assert [finding.verdict for finding in others] == [None] * 5 and not any(finding.purified for finding in others)
    reference, focal = first.groups
    assert (reference.difference, reference.effect) == (0.0, 0.0) and reference.people >= focal.people
    assert focal.group == ("first" if reference.group == "second" else "second")
    assert (focal.effect < 0) == (focal.group == "second"), "who answers as if the trait were lower scores lower"
    assert abs(focal.difference) == pytest.approx(abs(focal.effect), rel=0.5)
    curves = np.array([part.expected for part in first.groups])
    assert (np.diff(curves, axis=1) > 0).all() and curves.min() >= 0 and curves.max() <= 3


def test_a_gap_in_the_trait_is_none_of_the_item_though_sum_scores_would_say_so():
    answers, group, design = answer(6000, 2, gap=0.8, missing=0.0)
    findings = examine(answers, group, design)
    assert [finding.verdict for finding in findings] == [None] * ITEMS
    # Half of the items, at most, by chance: 1 in 20 of each. The rest score matches people of unlike traits.
    assert min(finding.p for finding in findings) > 0.001
    rest = (answers.sum(axis=1) - answers[:, 3]).astype(float)
    assert regress_answers(answers[:, 3], rest, group, design).p < 0.001


def test_of_three_groups_the_one_that_differs_is_named():
    findings = examine(*answer(3000, 3, shift=0.8, groups=3))
    most = max(findings[0].groups, key=lambda part: abs(part.effect))
    assert findings[0].verdict == "large" and "third" in (most.group, findings[0].groups[0].group)
    assert len(findings[0].groups) == 3 and [finding.verdict for finding in findings[1:]] == [None] * 5


def test_an_item_that_separates_better_in_one_group_is_not_uniform():
    random = np.random.default_rng(4)
    theta, group = random.standard_normal(4000), random.integers(0, 2, 4000)
    answers = (random.uniform(size=(4000, 1)) < expit(((1 + group) * theta)[:, None] - [0.0, 1.0])).sum(axis=1)
    found = regress_answers(answers, theta, group, Design.unclustered(np.ones(4000)))
    assert found.p_slope < 1e-6 and found.df == 3999


def test_too_few_people_or_items_are_told_and_nothing_is_tested():
    answers, group, design = answer(1000, 5)
    labels = ["first" if number % 6 else "second" for number in range(1000)]
    found = examine_trait(make_items()[0], answers, "cohort", labels, design)
    assert sum(label == "second" for label in labels) < FEWEST_IN_GROUP
    assert {finding.reason for finding in found} == {"too few people"} and found[0].p is None
    labels = [None if label == "second" else label for label in labels]
    assert examine_trait(make_items()[0], answers, "cohort", labels, design)[0].reason == "too few people"
    [one, _] = examine_trait(make_items(2)[0], answers[:, :2], "cohort", [GROUPS[number] for number in group], design)
    assert one.reason == "too few items to match people by" and one.verdict is None


def test_an_item_that_nobody_answers_otherwise_has_a_reason():
    answers, group, design = answer(1000, 6, missing=0.0)
    answers[:, 2] = 0
    findings = examine(answers, group, design)
    assert findings[2].reason == "the answers vary too little" and findings[1].p is not None


def test_the_order_of_people_changes_nothing():
    answers, group, design = answer(600, 7, shift=0.5)
    order = np.random.default_rng(1).permutation(600)
    there, back = examine(answers, group, design), examine(answers[order], group[order], design.take(order))
    for one, other in zip(there, back, strict=True):
        assert other.p == pytest.approx(one.p, rel=1e-5) and other.p_model == pytest.approx(one.p_model, rel=1e-5)
        assert other.effect == pytest.approx(one.effect, abs=1e-6)


def test_half_of_the_items_stay_to_match_by_however_many_differ():
    def finding(effect: float, adjusted: float) -> ItemFinding:
        groups = (GroupEffect("first", 500, 0, 0, []), GroupEffect("second", 500, effect, effect, []))
        return ItemFinding("t", "i", "cohort", p=adjusted, groups=groups, adjusted=adjusted)

    one_sure = [finding(0.5, 0.001), finding(0.5, 0.2), finding(0.1, 0.001), finding(0.0, 0.9)]
    assert choose_anchors(one_sure).tolist() == [False, True, True, True]
    all_sure = [finding(effect, 0.001) for effect in (0.5, -0.3, 0.9, 0.2, -0.8)]
    assert choose_anchors(all_sure).tolist() == [True, True, False, True, False]


@given(st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), min_size=2, max_size=3))
def test_joined_categories_are_frequent_in_every_group_and_keep_their_order(counts):
    answers = np.concatenate([np.repeat(np.arange(5), row) for row in counts])
    group = np.repeat(np.arange(len(counts)), [sum(row) for row in counts])
    if not len(answers):
        return
    joined = join_categories(answers, group, 5)
    if joined.max() > 0:
        for number in np.unique(group):
            assert np.bincount(joined[group == number], minlength=joined.max() + 1).min() >= FEWEST_IN_CATEGORY
    order = np.argsort(answers, kind="stable")
    assert set(np.diff(joined[order]).tolist()) <= {0, 1} and joined.min() == 0


def test_each_group_has_its_own_distribution_of_the_trait():
    answers, group, design = answer(2000, 8, gap=1.0)
    items = make_items()[0]
    evidence = Evidence.of(items, answers, group, design.weights)
    densities = evidence.find_densities(evidence.logs.sum(axis=0))
    assert densities.sum(axis=1) == pytest.approx([1, 1])
    assert densities @ items.theta == pytest.approx([0.0, 1.0], abs=0.15)
    # An item's own answer is no part of what it is matched by.
    posterior = next(iter(evidence.match_all(np.ones(ITEMS, dtype=bool))))
    turned = np.where(answers >= 0, LEVELS - 1 - answers, -1)
    turned[:, 1:] = answers[:, 1:]
    others = Evidence.of(items, turned, group, design.weights)
    fixed = densities[group]
    alone = np.exp(others.logs[1:].sum(axis=0)) * fixed
    assert posterior == pytest.approx(alone / alone.sum(axis=1, keepdims=True), abs=1e-6)


def test_curves_of_items_have_their_own_derivatives_and_the_parameters_that_they_were_drawn_with():
    theta = np.linspace(-4, 4, 33)
    random = np.random.default_rng(9)
    place = random.choice(33, 3000, p=np.exp(-0.5 * theta**2) / np.exp(-0.5 * theta**2).sum())
    answers = (random.uniform(size=(3000, 1)) < expit(1.6 * theta[place][:, None] - [0.0, 1.5])).sum(axis=1)
    posterior = np.exp(-0.5 * np.square((theta - theta[place][:, None]) / 0.1))
    posterior /= posterior.sum(axis=1, keepdims=True)
    curve = fit_curve(answers, posterior, theta, np.ones(3000))
    assert curve.parameters == pytest.approx([1.6, 0.0, 1.5], abs=0.15)
    at = np.array([1.2, -0.2, 1.1])
    _, scores, information = derive(at, answers, posterior, theta, np.ones(3000))

    def value(parameters):
        return derive(parameters, answers, posterior, theta, np.ones(3000))[0]

    assert scores.sum(axis=0) == pytest.approx(optimize.approx_fprime(at, value, 1e-6), rel=1e-3, abs=1e-2)
    slopes = optimize.approx_fprime(at, lambda at: derive(at, answers, posterior, theta, np.ones(3000))[1].sum(axis=0))
    assert information == pytest.approx(-slopes, rel=1e-3, abs=1e-2)
    assert tabulate(at, theta)[0].sum(axis=1) == pytest.approx(1)
    group = random.integers(0, 2, 3000)
    assert compare_curves(answers, posterior, theta, group, Design.unclustered(np.ones(3000))).p > 0.01


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_are_no_smaller_and_in_the_same_order(values):
    adjusted = adjust_false_discoveries(values)
    assert all(after >= before - 1e-12 for before, after in zip(values, adjusted, strict=True)) and max(adjusted) <= 1
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= -1e-12).all()
