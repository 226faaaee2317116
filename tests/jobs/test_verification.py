"""Corrected figures against the truth of simulated people, of whom clinicians see mostly those with high totals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.verification import FEWEST, Totals, fit_firth, measure_cut

CUT = 10


def expit(value: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-value)))


def simulate(seed: int, people: int, looked_at: np.ndarray) -> tuple[Totals, dict[str, float]]:
    """People with totals of 0 to 27; `looked_at` (28) is the chance that a clinician looks at one of each total."""
    rng = np.random.default_rng(seed)
    total = rng.binomial(27, rng.beta(1.1, 4.0, people))
    weight = rng.uniform(0.5, 1.5, people)
    case = rng.random(people) < expit(-4.0 + 0.32 * total)
    seen = rng.random(people) < looked_at[total]
    values = np.arange(28.0)
    counts = [np.bincount(total, minlength=28, weights=what) for what in (np.ones(people), weight, seen, seen & case)]
    positive = total >= CUT
    truth = {
        "sensitivity": weight[positive & case].sum() / weight[case].sum(),
        "specificity": weight[~positive & ~case].sum() / weight[~case].sum(),
        "prevalence": weight[case].sum() / weight.sum(),
    }
    whole = [one.astype(np.int64) for one in (counts[0], counts[2], counts[3])]
    return Totals(values, whole[0], counts[1], whole[1], whole[2]), truth


def test_the_bias_of_looking_at_high_totals_is_taken_out() -> None:
    chosen = np.where(np.arange(28) >= CUT, 0.5, 0.02)
    covered: dict[str, list[bool]] = {}
    for seed in range(60):
        counted, truth = simulate(seed, 20_000, chosen)
        found = measure_cut(counted, counted.totals >= CUT)
        assert found.accuracy is not None and found.probability is not None
        for key, value in truth.items():
            figure = found.accuracy[key]
            assert figure.low is not None and figure.high is not None
            covered.setdefault(key, []).append(figure.low <= value <= figure.high)
        assert np.all(np.diff(found.probability) > 0)
        # As it stands among those who were looked at, the cut seems to miss next to nobody.
        naive = found.accuracy["sensitivity"]
        assert naive.verified is not None and naive.verified - truth["sensitivity"] > 0.1
    # Of 60 intervals of 95 %, 53 or more hold the truth with a probability of .99.
    assert {key: sum(hits) >= 53 for key, hits in covered.items()} == dict.fromkeys(covered, True)


@given(st.integers(1, 500), st.floats(0, 1))
def test_a_constant_alone_has_firths_closed_form(people: int, share: float) -> None:
    cases = round(share * people)
    found, _ = fit_firth(np.ones((1, 1)), np.array([float(people)]), np.array([float(cases)]))
    assert expit(found)[0] == pytest.approx((cases + 0.5) / (people + 1), abs=1e-6)


def test_totals_that_part_cases_from_others_have_the_closed_form_of_two_shares() -> None:
    totals, seen, cases = np.array([3.0, 15.0]), np.array([25, 30]), np.array([0, 30])
    found = measure_cut(Totals(totals, seen, seen.astype(float), seen, cases), totals >= CUT)
    assert found.probability == pytest.approx([0.5 / 26, 30.5 / 31], abs=1e-6)
    assert found.low is not None and found.high is not None
    assert np.all((found.low > 0) & (found.low < found.probability) & (found.probability < found.high))


def test_too_few_tell_nothing_and_the_counts_stay() -> None:
    seen = np.array([FEWEST, FEWEST - 1])
    counted = Totals(np.array([0.0, 12.0]), seen + 5, seen + 5.0, seen, np.array([0, FEWEST - 1]))
    found = measure_cut(counted, counted.totals >= CUT)
    assert found.probability is None and found.to_json()["accuracy"] is None
    assert [row["probability"] for row in found.to_rows()] == [None, None]
    assert [row["verified"] for row in found.to_rows()] == [FEWEST, FEWEST - 1]
