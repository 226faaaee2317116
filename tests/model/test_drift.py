import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.drift import PSEUDO_SHARE, compare_one, compare_shares, share_answers, share_profiles, share_traits
from model.inputs import People
from tests.model.simulation import make_spec, simulate, write_features

shares = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=6)


def test_psi_by_hand():
    expected = (0.5 - 0.6) * math.log(0.5 / 0.6) + (0.5 - 0.4) * math.log(0.5 / 0.4)
    assert compare_one([0.6, 0.4], [0.5, 0.5]) == pytest.approx(expected)


@given(shares)
def test_psi_is_zero_for_the_same_and_never_negative(values):
    p = np.array(values) / sum(values)
    assert compare_one(p, p) == 0.0
    assert compare_one(p, p[::-1]) >= 0.0
    assert compare_one(p, p[::-1]) == pytest.approx(compare_one(p[::-1], p))


def test_a_category_that_nobody_is_in_gives_a_number():
    found = compare_one([0.5, 0.5, 0.0], [0.5, 0.25, 0.25])
    assert math.isfinite(found) and found > 0.25 * math.log(0.2 / PSEUDO_SHARE)


def test_answers_are_shared_out_by_weight(tmp_path):
    spec = make_spec((2, 2))
    codes, _ = simulate(spec, 400)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(codes))
    found = share_answers(write_features(tmp_path, spec, codes, weights), spec, "weight")
    for position, item in enumerate(spec.items):
        expected = [weights[codes[:, position] == code].sum() / weights.sum() for code in range(-1, 4)]
        assert found[item.key] == pytest.approx(expected)


def test_people_who_skip_more_or_answer_higher_are_a_drift(tmp_path):
    spec = make_spec((2, 2))
    codes, _ = simulate(spec, 3000)
    others, _ = simulate(spec, 3000, seed=2)
    before, same = (
        share_answers(write_features(tmp_path / name, spec, part), spec, None)
        for name, part in (("before", codes), ("same", others))
    )
    assert max(compare_shares(before, same).values()) < 0.02
    others[:, 0] = np.where(np.arange(len(others)) % 2, -1, others[:, 0])
    others[:, 1] = 3
    found = compare_shares(before, share_answers(write_features(tmp_path / "moved", spec, others), spec, None))
    assert found["t0_0"] > 0.25 and found["t0_1"] > 0.25 and max(found["t1_0"], found["t1_1"]) < 0.02


def test_profiles_are_shared_out_between_fixed_levels():
    found = share_profiles(np.array([-3.0, 0.1, 0.2, 5.0], dtype=np.float32), np.array([1.0, 1.0, 1.0, 3.0]))
    assert found[0] == pytest.approx(1 / 6) and found[-1] == pytest.approx(0.5) and sum(found) == pytest.approx(1.0)


def test_profiles_drift_with_their_trait_alone(trained):
    codes, _ = simulate(trained.spec, 4000, seed=5)
    first = [position for position, item in enumerate(trained.spec.items) if item.trait == "t0"]
    moved = codes.copy()
    moved[:, first] = np.where(codes[:, first] >= 0, np.minimum(codes[:, first] + 1, 3), -1)
    before, same, after = (share(trained, part) for part in (codes[:2000], codes[2000:], moved))
    assert max(compare_shares(before, same).values()) < 0.05
    found = compare_shares(before, after)
    # The other trait goes with it, and its profiles with the answers: they move, but far less.
    assert found["t0"] > 0.25 and found["t1"] < found["t0"] / 3


def test_who_answered_nothing_has_no_part_in_the_drift_of_profiles(trained):
    codes, _ = simulate(trained.spec, 200, seed=5)
    silent = np.full_like(codes, -1)
    assert share(trained, np.concatenate([codes, silent])) == share(trained, codes)
    assert {sum(shares) for shares in share(trained, silent).values()} == {0.0}


def share(trained, codes):
    people = People(codes, np.ones(len(codes)), np.zeros(len(codes), dtype=np.int64))
    return share_traits(trained.result.network, people)
