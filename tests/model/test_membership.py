"""The likelihood ratio attack on scores whose distributions are known, and shadows of the real training."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import norm

from model.fitting import TrainingSettings
from model.membership import attack, find_threshold, leave_one_out
from model.shadows import Shadows, train_shadows
from tests.model.simulation import make_spec, simulate

MODELS, PEOPLE = 65, 500


def draw_shadows(gain, seed: int = 1, models: int = MODELS, people: int = PEOPLE) -> Shadows:
    """People differ in level and spread; being in raises a person's score by `gain` of their spread."""
    random = np.random.default_rng(seed)
    members = random.random((models, people)) < 0.5
    level, spread = 10 * random.standard_normal(people), np.exp(random.standard_normal(people))
    return Shadows(level + spread * (random.standard_normal(members.shape) + gain * members), members)


@pytest.fixture(scope="module")
def found():
    return {gain: attack(draw_shadows(gain)) for gain in (0.0, 1.0)}


def test_scores_that_hang_on_membership_are_told_apart_nearly_as_well_as_can_be(found):
    best = 2 * norm.cdf(0.5) - 1  # of two normal distributions one sd apart
    assert best - 0.04 < found[1.0].advantage < best
    assert found[1.0].advantage < found[1.0].advantage_upper95 < found[1.0].advantage + 0.02
    at_few = norm.sf(norm.isf(0.01) - 1)
    assert 0.5 * at_few < found[1.0].tpr_at_fpr1 < at_few
    assert found[1.0].tpr_at_fpr1 < found[1.0].tpr_at_fpr1_upper95 < 2 * at_few
    assert found[1.0].fpr_at_fpr1 == pytest.approx(0.01, abs=0.002)


def test_scores_that_do_not_are_not(found):
    assert abs(found[0.0].advantage) < 0.02
    assert found[0.0].advantage_upper95 > 0
    assert found[0.0].tpr_at_fpr1 == pytest.approx(0.01, abs=0.004)


@pytest.mark.parametrize(("gain", "spread"), [(0.0, 0.0), (0.5, 1.0)])
def test_the_limit_lies_below_the_truth_in_no_more_samples_than_it_says(gain, spread):
    """Also where some people are told apart and others not, and models give away more or less of all."""
    random, found = np.random.default_rng(1), []
    for seed in range(2, 62):
        people, models = random.exponential(size=200), random.normal(1, 0.5, (17, 1))
        found.append(attack(draw_shadows(gain * (1 - spread + spread * people * models), seed, 17, 200)))
    advantages, limits = (np.array([vars(one)[name] for one in found]) for name in ("advantage", "advantage_upper95"))
    assert np.mean(limits < advantages.mean()) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(found))
    assert np.mean(limits - advantages) < 2 * norm.ppf(0.95) * advantages.std()  # and it is none that always holds


def test_a_ratio_is_made_of_all_other_models():
    shadows = draw_shadows(1.0)
    person, target = 3, 7
    others = np.arange(MODELS) != target
    scores, members = shadows.scores[others, person], shadows.members[others, person]
    inside, outside = (norm(scores[of].mean(), scores[of].std(ddof=1)) for of in (members, ~members))
    own = shadows.scores[target, person]
    assert leave_one_out(shadows)[target, person] == pytest.approx(inside.logpdf(own) - outside.logpdf(own))


def test_the_threshold_parts_members_from_others():
    ratios = np.array([3.0, 2.0, 1.0, -1.0, -2.0])
    assert find_threshold(ratios, np.array([True, True, False, False, False])) == (1.0, 1.0)


def test_where_few_shadows_tell_little_of_single_people_the_offline_form_is_taken():
    """A small gain that all people share: means of a handful of models, in and out, are mostly noise."""
    assert attack(draw_shadows(0.2, models=13)).offline > 0.9
    assert attack(draw_shadows(3.0, models=33, people=200)).offline < 0.1


def test_shadows_are_trained_on_half_of_those_outside_fold_0_and_go_on_where_they_were_killed(tmp_path):
    spec = make_spec((4,))
    codes, _ = simulate(spec, 300)
    codes[5] = -1
    columns = {key: codes[:, place] for place, key in enumerate(spec.columns)}
    folds, weights = (np.arange(300) % 10).astype(np.int8), np.ones(300)
    weights[7] = 0
    pq.write_table(pa.table({**columns, "fold": folds, "weight": weights}), tmp_path / "features.parquet")
    settings = TrainingSettings(residuals=0, max_epochs=2, settle_steps=5)

    def run(models: int) -> Shadows:
        return train_shadows([tmp_path / "features.parquet"], spec, settings, models, tmp_path / "shadows")

    first = run(1)
    assert first.scores.shape == (1, 268)  # 270 outside fold 0, without who said nothing and who has no weight
    (tmp_path / "shadows" / "scores-000.npy").touch()
    again = run(2)
    assert (again.scores[0] == first.scores[0]).all() and (again.members.sum(axis=1) == 134).all()
    assert (again.members[0] != again.members[1]).any() and np.abs(again.scores[0] - again.scores[1]).max() > 1e-3
    assert sorted(path.name for path in (tmp_path / "shadows").iterdir()) == ["scores-000.npy", "scores-001.npy"]
