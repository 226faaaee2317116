"""Corrected figures against the truth of simulated people, of whom clinicians see mostly those with high totals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.verification import Totals, fit_firth, measure_cut

CUT = 10


def expit(value: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-value)))


def find_truth() -> dict[str, float]:
    """Of the population that people are drawn from."""
    rng = np.random.default_rng(0)
    total = rng.binomial(27, rng.beta(1.1, 4.0, 2_000_000))
    chance, positive = expit(-4.0 + 0.32 * total), total >= CUT
    return {
        "sensitivity": chance[positive].sum() / chance.sum(),
        "specificity": (1 - chance[~positive]).sum() / (1 - chance).sum(),
        "prevalence": chance.mean(),
    }


TRUTH = find_truth()


def simulate(seed: int, people: int, looked_at: np.ndarray) -> tuple[Totals, dict[str, float]]:
    """People with totals of 0 to 27; `looked_at` (28) is the chance that a clinician looks at one of each total."""
    rng = np.random.default_rng(seed)
    total = rng.binomial(27, rng.beta(1.1, 4.0, people))
    weight = rng.uniform(0.5, 1.5, people)
    case = rng.random(people) < expit(-4.0 + 0.32 * total)
    seen = rng.random(people) < looked_at[total]
    values = np.arange(28.0)
    sums = [np.bincount(total, minlength=28, weights=what) for what in (weight, weight**2, seen, seen & case)]
    return Totals(values, *sums[:2], sums[2].astype(np.int64), sums[3].astype(np.int64)), TRUTH


def test_the_bias_of_looking_at_high_totals_is_taken_out() -> None:
    chosen = np.where(np.arange(28) >= CUT, 0.5, 0.02)
    covered: dict[str, list[bool]] = {}
    for seed in range(60):
        counted, truth = simulate(seed, 20_000, chosen)
        found = measure_cut(counted, counted.totals >= CUT)
        assert found.accuracy is not None and found.curve is not None
        for key, value in truth.items():
            figure = found.accuracy[key]
            assert figure.low is not None and figure.high is not None
            covered.setdefault(key, []).append(figure.low <= value <= figure.high)
        rows = found.to_rows([float(one) for one in range(28)])
        assert [row["probability"] for row in rows] == sorted(row["probability"] for row in rows)
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


def test_shares_are_those_of_the_people_who_were_looked_at_and_only_there() -> None:
    """Two totals alone are told apart exactly: the constant is fitted without a penalty, so that sums agree."""
    totals, seen, cases = np.array([3.0, 9.0, 15.0, 20.0]), np.array([0, 25, 30, 0]), np.array([0, 5, 27, 0])
    found = measure_cut(Totals(totals, seen + 9.0, seen + 9.0, seen, cases), totals >= CUT)
    assert found.beyond == pytest.approx(18 / 91)
    rows = found.to_rows([3.0, 9.0, 12.0, 15.0, 20.0])
    assert [row["total"] for row in rows] == [9.0, 12.0, 15.0]
    chances = np.array([row["probability"] for row in rows])
    assert 25 * chances[0] + 30 * chances[2] == pytest.approx(32, abs=1e-6)
    assert all(0 < row["low"] < row["probability"] < row["high"] < 1 for row in rows)


def test_cases_that_the_total_parts_from_others_have_finite_chances() -> None:
    totals, seen, cases = np.array([3.0, 15.0]), np.array([25, 30]), np.array([0, 30])
    found = fit_firth(np.array([[1.0, 0.0], [1.0, 1.0]]), seen.astype(float), cases.astype(float))[0]
    assert expit(np.array([found[0], found.sum()])) == pytest.approx([0.5 / 26, 30.5 / 31], abs=1e-6)
    (low, high) = measure_cut(Totals(totals, seen + 0.0, seen + 0.0, seen, cases), totals >= CUT).to_rows([3.0, 15.0])
    assert 0 < low["probability"] < 0.05 < 0.95 < high["probability"] < 1


# looked at | cases of them | why nothing is told
TOO_FEW = """
20 19       | 0 19          | fewer than 20 cases
40 40       | 25 40         | fewer than 20 others
0 60        | 0 30          | nobody below the cut
60 0        | 30 0          | nobody at the cut
"""


@pytest.mark.parametrize("line", TOO_FEW.strip().splitlines())
def test_too_few_tell_nothing_but_their_number(line: str) -> None:
    seen, cases, _ = ([int(word) for word in part.split() if word.isdigit()] for part in line.split("|"))
    totals = Totals(np.array([0.0, 12.0]), np.full(2, 90.0), np.full(2, 90.0), np.array(seen), np.array(cases))
    found = measure_cut(totals, totals.totals >= CUT)
    assert found.to_json() == {"verified": sum(seen), "cases": sum(cases), "beyond": None, "accuracy": None}
    assert found.to_rows([0.0, 12.0]) == []
