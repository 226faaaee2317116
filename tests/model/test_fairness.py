from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.design import Design
from model.fairness import (
    FEWEST_IN_COHORT,
    compare_fairness,
    describe_groups,
    find_unfairness,
    judge_excess,
    take_measures,
)
from model.fitting import TrainingSettings
from model.predicting import Foretold
from model.spec import CovariateSpec
from model.training import train
from tests.model.simulation import make_spec, simulate, write_features

PEOPLE, ROUNDS = 400, 2
SPEC = make_spec((2, 2))


def foretell(error: np.ndarray, inside: float = 0.9) -> Foretold:
    """Every answer of PEOPLE is hidden in each of two rounds; `error` (PEOPLE) is added to chance."""
    random = np.random.default_rng(3)
    rows, items = np.divmod(np.arange(ROUNDS * PEOPLE * 4), 4)
    drawn = random.normal(0, 0.5, len(rows)) + error[rows % PEOPLE]
    covered = (random.uniform(size=len(rows)) < inside).astype(float)
    return Foretold(rows, items, np.ones(len(rows)), covered, np.zeros(len(rows)), drawn, PEOPLE)


@pytest.fixture
def design() -> Design:
    weights = np.random.default_rng(1).uniform(0.5, 2, PEOPLE)
    return Design.of(weights, (np.arange(PEOPLE) % 4).tolist(), (np.arange(PEOPLE) % 20).tolist())


@pytest.fixture
def groups() -> dict[str, np.ndarray]:
    place = np.arange(PEOPLE)
    return {"sex=a": place < 200, "sex=b": place >= 200, "few=c": place < FEWEST_IN_COHORT - 1}


def test_bias_and_coverage_are_told_by_group_with_their_intervals(design, groups):
    foretold = foretell(np.where(groups["sex=a"], 0.4, 0.0))
    figures = {(figure.measure, figure.group): figure for figure in describe_groups(
        take_measures(foretold, SPEC), groups, design)}  # fmt: skip
    assert len(figures) == 3 * 3 and ("coverage", "few=c") not in figures
    # Two items of .4 points each, both hidden.
    assert figures["s0_expected", "sex=a"].figure == pytest.approx(0.8, abs=0.15)
    assert figures["s0_expected", "sex=a"].low > 0 > figures["s0_expected", "sex=b"].low
    assert figures["coverage", "all"].figure == pytest.approx(0.9, abs=0.03)
    assert figures["coverage", "all"].people == PEOPLE and figures["coverage", "all"].df == 16
    weight = design.weights[foretold.person] * (foretold.person < 200)
    assert figures["coverage", "sex=a"].figure == pytest.approx(np.average(foretold.inside, weights=weight))


def test_a_design_without_degrees_of_freedom_has_no_interval(groups):
    design = Design.of(np.ones(PEOPLE), ["all"] * PEOPLE, (np.arange(PEOPLE) % 2).tolist())
    lonely = Design.of(np.ones(PEOPLE), (np.arange(PEOPLE) % 2).tolist(), (np.arange(PEOPLE) % 2).tolist())
    measures = take_measures(foretell(np.zeros(PEOPLE)), SPEC)
    assert {figure.df for figure in describe_groups(measures, {}, design)} == {1}
    assert {(figure.df, figure.low) for figure in describe_groups(measures, {}, lonely)} == {(0, None)}


def test_a_group_that_the_champion_served_better_is_a_reason(design, groups):
    fair, unfair = (foretell(np.where(groups["sex=a"], bias, 0.0)) for bias in (0.0, 0.4))
    growths = compare_fairness(take_measures(unfair, SPEC), take_measures(fair, SPEC), groups, design)
    assert {growth.group for growth in growths} == {"sex=a", "sex=b"}
    reasons = find_unfairness(growths)
    assert len(reasons) == 2 and all("for sex=a" in reason for reason in reasons)
    assert "s0_expected" in reasons[0] and "s1_expected" in reasons[1]


def test_a_bias_that_the_champion_had_as_well_is_none(design, groups):
    """What the questionnaire does to a group, no training undoes: the other way round it counts as much."""
    biases = [np.where(groups["sex=a"], bias, 0.0) for bias in (0.4, -0.4)]
    ours, theirs = (take_measures(foretell(bias), SPEC) for bias in biases)
    assert find_unfairness(compare_fairness(ours, theirs, groups, design)) == []
    assert find_unfairness(compare_fairness(ours, ours, groups, design)) == []


def test_coverage_that_moves_away_from_its_target_in_a_group_is_a_reason(design, groups):
    sound = foretell(np.zeros(PEOPLE))
    narrow = replace(sound, inside=np.where(sound.person < 200, np.minimum(sound.inside, foretell(
        np.zeros(PEOPLE), 0.5).inside), sound.inside))  # fmt: skip
    reasons = find_unfairness(compare_fairness(take_measures(narrow, SPEC), take_measures(sound, SPEC), groups, design))
    assert len(reasons) == 1 and reasons[0].startswith("coverage is further off than the champion's for sex=a")


@pytest.mark.parametrize(
    ("value", "se", "df", "p"),
    [(0.2, 0.0, 9, 0.0), (0.05, 0.0, 9, 1.0), (0.2, 0.1, 0, 1.0), (float("nan"), 0.1, 9, 0.0)],
)
def test_what_is_not_known_is_not_sure_but_no_number_is_a_fault(value, se, df, p):
    assert judge_excess(value, 0.1, se, df) == p


def test_other_cohorts_and_covariates_leave_every_bit_of_encoder_items_and_population(tmp_path):
    spec = replace(
        make_spec((3, 3)), covariates=(CovariateSpec("age", "count"), CovariateSpec("urban", "binary", ("0", "1")))
    )
    codes, traits = simulate(spec, 300)
    settings = TrainingSettings(max_epochs=1, residuals=0, settle_steps=5)
    learned = []
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        # Both hang on the trait: a model that could see them would use them.
        age = np.round(50 + 10 * traits[:, 0] * (-1) ** seed + random.normal(0, 3, 300)).clip(0)
        told = {"age": age, "age_band": np.where(age < 50, "young", "old"), "urban": np.where(age < 45, "0", "1")}
        paths = write_features(tmp_path / str(seed), spec, codes)
        start = 0
        for path in paths:
            table = pq.read_table(path)
            for name, column in told.items():
                table = table.append_column(name, pa.array(column[start : start + table.num_rows]))
            start += table.num_rows
            pq.write_table(table, path)
        learned.append(train(paths, spec, settings, tmp_path / f"checkpoints-{seed}", progress=False).network)
    one, other = (network.state_dict() for network in learned)
    differing = {name.split(".")[0] for name in one if not one[name].equal(other[name])}
    assert differing == {"covariates"}, "the covariates' own heads have read them, and nothing else has"
