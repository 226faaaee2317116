"""Beside R: MASS 7.3-58.2, survey 4.1-1; the program is golden/proportional_odds.R."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from model.design import Design, judge_statistic, judge_working_wald
from model.proportional_odds import NoFit, derive, fit_proportional_odds

POLR = [1.5061403164, 0.0909347294705, -0.0511883028682, -0.533707868516, -0.26778756591,
        0.0405723300084, 1.12313283231, 1.96590132425]  # fmt: skip
POLR_LOG_LIKELIHOOD = -439.119433992
SVYOLR = [1.5917802481, 0.0651980403671, -0.0925255075761, -0.614923245656, -0.40942600969,
          0.067820638841, 1.07779998776, 1.96539096225]  # fmt: skip
SVYOLR_SE = [0.243088168697, 0.346158033781, 0.274369156100, 0.275873575385, 0.360744308474,
             0.245862415066, 0.274873758051, 0.301057583070]  # fmt: skip
DF, CHISQ, P, CHISQ_SLOPES, P_SLOPES = 15, 9.25294812269, 0.355031604481, 7.70841109136, 0.148267104091


@pytest.fixture(scope="module")
def people():
    path = Path(__file__).parent / "golden" / "proportional_odds.csv"
    return np.genfromtxt(path, delimiter=",", names=True)


@pytest.fixture(scope="module")
def covariates(people):
    first, second = (people["group"] == number for number in (1, 2))
    trait = people["trait"]
    return np.column_stack([trait, first, second, first * trait, second * trait]).astype(float)


@pytest.fixture(scope="module")
def answers(people):
    return people["answer"].astype(np.int64)


def test_the_fit_is_that_of_polr(answers, covariates):
    fit = fit_proportional_odds(answers, covariates, np.ones(len(answers)))
    assert fit.parameters == pytest.approx(POLR, abs=1e-6)
    assert fit.log_likelihood == pytest.approx(POLR_LOG_LIKELIHOOD, abs=1e-6)


def test_the_weighted_fit_its_errors_and_its_tests_are_those_of_survey(people, answers, covariates):
    design = Design.of(people["weight"], people["stratum"].tolist(), people["psu"].tolist())
    fit = fit_proportional_odds(answers, covariates, design.weights)
    covariance = fit.working @ design.spread(fit.scores) @ fit.working
    assert fit.parameters == pytest.approx(SVYOLR, abs=1e-6)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(SVYOLR_SE, abs=1e-6)
    df = design.count_df(np.ones(len(answers), dtype=bool))
    assert df == DF
    for part, chisq, p in ((slice(1, 5), CHISQ, P), (slice(3, 5), CHISQ_SLOPES, P_SLOPES)):
        slopes, working = fit.parameters[part], fit.working[part, part]
        assert slopes @ np.linalg.solve(working, slopes) == pytest.approx(chisq, rel=1e-6)
        assert judge_working_wald(slopes, covariance[part, part], working, df) == pytest.approx(p, abs=1e-6)


def test_weights_are_counts_where_people_are_repeated(answers, covariates):
    counts = 1 + np.arange(len(answers)) % 3
    weighted = fit_proportional_odds(answers, covariates, counts.astype(float))
    repeated = fit_proportional_odds(answers.repeat(counts), covariates.repeat(counts, axis=0), np.ones(counts.sum()))
    assert weighted.parameters == pytest.approx(repeated.parameters, abs=1e-9)


def test_derivatives_are_those_of_the_log_likelihood(answers, covariates):
    weights = 0.5 + np.arange(len(answers)) % 4
    at = np.array([0.3, -0.2, 0.1, 0.05, -0.4, -0.5, 0.4, 1.6])

    def value(parameters):
        return derive(parameters, answers, covariates, weights)[0]

    _, scores, information = derive(at, answers, covariates, weights)
    assert weights @ scores == pytest.approx(optimize.approx_fprime(at, value, 1e-6), rel=1e-4)
    slopes = optimize.approx_fprime(
        at, lambda parameters: weights @ derive(parameters, answers, covariates, weights)[1]
    )
    assert information == pytest.approx(-slopes, rel=1e-4, abs=1e-3)


def test_separated_answers_have_no_fit():
    answers = np.repeat([0, 1, 2], 20)
    with pytest.raises(NoFit):
        fit_proportional_odds(answers, answers[:, None].astype(float), np.ones(60))


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_the_order_of_people_and_the_unit_of_weights_change_nothing(sizes, seed):
    random = np.random.default_rng(seed)
    answers = np.concatenate([np.arange(sizes), random.integers(0, sizes, 150)])
    covariates, weights = random.normal(size=(len(answers), 2)), random.uniform(0.5, 2.0, len(answers))
    order = random.permutation(len(answers))
    fit = fit_proportional_odds(answers, covariates, weights)
    other = fit_proportional_odds(answers[order], covariates[order], 100 * weights[order])
    assert other.parameters == pytest.approx(fit.parameters, abs=1e-6)
    assert other.log_likelihood == pytest.approx(100 * fit.log_likelihood)


def test_where_nothing_is_clustered_the_design_is_that_of_single_people():
    weights = np.ones(40)
    design = Design.of(weights, ["all"] * 40, ["all"] * 40)
    scores = np.random.default_rng(1).normal(size=(40, 2))
    scores -= scores.mean(axis=0)
    assert design.spread(scores) == pytest.approx(scores.T @ scores * 40 / 39)
    assert design.count_df(np.ones(40, dtype=bool)) == 39


def test_a_psu_without_people_counts_on_and_a_lonely_one_is_centred_on_zero():
    strata, psus = ["a", "a", "a", "b", "b", "c"], ["1", "2", "3", "4", "5", "6"]
    design = Design.of(np.ones(6), strata, psus)
    scores = np.array([[1.0], [-1.0], [0.0], [2.0], [-2.0], [0.5]])
    assert design.spread(scores)[0, 0] == pytest.approx(1.5 * 2 + 2 * 8 + 0.25)
    some = np.array([True, True, False, True, True, True])
    assert design.take(some).spread(scores[some])[0, 0] == pytest.approx(1.5 * 2 + 2 * 8 + 0.25)
    assert design.count_df(some) == 5 - 3


def test_a_design_without_degrees_of_freedom_proves_nothing():
    assert judge_statistic(50.0, np.eye(2), np.eye(2), 0) == 1.0
