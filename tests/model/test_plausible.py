import numpy as np
import pyarrow as pa
import pytest

from benchmarks.plausible import COHORTS, GAP, compare, make_network, simulate_survey
from model.conditioning import condition_on
from model.errors import ModelError
from model.plausible import VALUES, EffectiveDraws, Imputer, choose_people, find_regression

PSUS = [str(number) for number in range(50)]


@pytest.fixture(scope="module")
def network():
    return make_network(steps=400)


@pytest.fixture(scope="module")
def people(network):
    return simulate_survey(network, 3).people


def find_imputer(network, people, levels=COHORTS):
    weights = people["weight"].to_numpy()
    conditioning = condition_on([(), ("cohort",)], {"cohort": levels}, PSUS, weights)
    return Imputer(conditioning, find_regression(network, conditioning, people).draw(VALUES))


@pytest.fixture(scope="module")
def imputer(network, people):
    return find_imputer(network, people)


def test_a_gap_is_recovered_that_profiles_shrink(network):
    found = compare(network, (simulate_survey(network, seed) for seed in range(12)))
    spread = 2.5 * found["plausible_values"]["spread"] / np.sqrt(12)
    assert found["plausible_values"]["gap"] == pytest.approx(GAP, abs=spread)
    assert found["profile_means"]["gap"] < 0.8 * found["plausible_values"]["gap"]
    assert found["effective_draws"]["quantile_05"] > 10 and found["effective_draws"]["share_under_2"] == 0
    # Reliability is about .75, so a quarter of what a cohort mean's variance could be is missing.
    assert 0.1 < found["missing_information"] < 0.4


def test_neither_order_nor_files_change_a_value(network, people, imputer):
    whole = imputer.draw(network, people)
    order = np.random.default_rng(1).permutation(len(people))
    shuffled = people.take(pa.array(order))
    again = find_imputer(network, shuffled)
    np.testing.assert_array_equal(again.parameters.effects, imputer.parameters.effects)
    parts = [again.draw(network, shuffled.slice(*piece)).values for piece in ((0, 700), (700, 1), (701, 499))]
    np.testing.assert_array_equal(np.concatenate(parts), whole.values[order])


def test_who_answered_nothing_gets_the_regressions_own_prior(network, people, imputer):
    mute = people
    for place, key in enumerate(network.spec.columns):
        mute = mute.set_column(place + 1, key, pa.array(np.full(len(people), -1, dtype=np.int8)))
    drawn = imputer.draw(network, mute)
    assert np.isnan(drawn.effective).all()
    effects, factors = imputer.parameters.effects, imputer.parameters.factors
    second = np.array(people["cohort"].to_pylist()) == COHORTS[1]
    gap = drawn.values[second].mean() - drawn.values[~second].mean()
    assert gap == pytest.approx((effects[:, 2] - effects[:, 1]).mean(), abs=0.06)
    within = np.mean([drawn.values[second].std(), drawn.values[~second].std()])
    between = effects[:, -len(PSUS) :].std()
    assert within == pytest.approx(np.hypot(factors.mean(), between), rel=0.1)


def test_answers_bear_on_the_values(network, people, imputer):
    total = sum(people[key].to_numpy().astype(int) for key in network.spec.columns)
    middle = imputer.draw(network, people).values.mean(axis=(1, 2))
    assert np.corrcoef(total, middle)[0, 1] > 0.85


def test_a_cell_of_a_handful_stays_within_reason_and_the_unknown_have_a_level_of_their_own(network, people):
    labels = people["cohort"].to_pylist()
    labels[:3], labels[3:200] = ["rare"] * 3, [None] * 197
    place = people.column_names.index("cohort")
    changed = people.set_column(place, "cohort", pa.array(labels, pa.string()))
    imputer = find_imputer(network, changed, (*COHORTS, "rare", "nobody"))
    effects = imputer.parameters.effects[:, :1, 0] + imputer.parameters.effects[:, 1:6, 0]
    assert np.abs(effects.mean(axis=0)).max() < 1.5
    # What few or none tell is known the less: a cell without people has its prior's sd, a trait's.
    sds = effects.std(axis=0)
    assert sds[3] > 0.5 and sds[2] > 3 * sds[0] and sds[4] < sds[2]


def test_a_sample_of_many_is_by_the_person(monkeypatch):
    monkeypatch.setattr("model.plausible.MOST_PEOPLE", 300)
    people = pa.table({"person_id": [f"p{n}" for n in range(1000)], "weight": np.r_[np.zeros(100), np.ones(900)]})
    chosen = choose_people(people, 1000)["person_id"].to_pylist()
    assert 220 < len(chosen) < 320
    halves = [choose_people(people.slice(*part), 1000)["person_id"].to_pylist() for part in ((0, 500), (500, 500))]
    assert [key for half in halves for key in half] == chosen
    assert len(choose_people(people.slice(0, 300), 300)) == 200


def test_nobody_and_people_outside_the_design_are_errors(network, people, imputer):
    with pytest.raises(ModelError, match="Nobody has a weight above zero"):
        find_regression(network, imputer.conditioning, people.slice(0, 0))
    with pytest.raises(ModelError, match=r"1,200 people .* are in no PSU of the design"):
        imputer.draw(network, people.set_column(people.column_names.index("psu"), "psu", pa.nulls(1200, pa.string())))
    assert imputer.draw(network, people.slice(0, 0)).values.shape == (0, VALUES, 1)


def test_effective_draws_are_described():
    counted = EffectiveDraws.of([np.array([1.2, 20.0, np.nan], dtype=np.float32), np.full(38, 23.1, dtype=np.float32)])
    assert counted.describe() == {"mean": 22.6, "quantile_05": 20.0, "share_under_2": 0.025}
    assert EffectiveDraws.of([]).describe()["mean"] is None
