"""People of a known truth: correlated traits, skewed graded items, informative weights, answers missing at random.

Age and income bear on the traits, on who is drawn into the sample (weights undo that) and on who skips answers. In the
population the traits are normal with mean 0, variance 1 and CORRELATIONS.
Shapes: n people, T traits, J items, K levels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

SIZES = (9, 8, 8, 8)  # items of each trait
LEVELS = 4
CORRELATIONS = np.array([[1.0, 0.65, 0.5, 0.6], [0.65, 1.0, 0.45, 0.5], [0.5, 0.45, 1.0, 0.55], [0.6, 0.5, 0.55, 1.0]])
AGE_EFFECTS = np.array([-0.15, -0.2, 0.1, 0.0])  # per sd of age
INCOME_EFFECTS = np.array([-0.25, -0.15, -0.2, -0.25])  # per sd of income
SAMPLED_AGE, SAMPLED_INCOME = 0.3, -0.4  # of the log odds of being drawn, per sd
SKIPPING_AGE, SKIPPING_INCOME = 0.3, -0.3  # of the log odds of skipping an answer, per sd
ITEMS_SEED = 7
DRAWN_SHARE = 0.3


@dataclass(frozen=True)
class Truth:
    """The items' parameters: trait (J), discrimination (J), thresholds (J, K-1); the traits' correlations (T, T)."""

    traits: npt.NDArray[np.int64]
    slopes: Floats
    thresholds: Floats
    correlations: Floats


@dataclass(frozen=True)
class Sample:
    codes: Codes  # (n, J), -1 missing
    traits: Floats  # (n, T)
    weights: Floats  # (n), mean 1


def make_truth() -> Truth:
    """The same items whatever the seed of the people: floored, some more than others."""
    random = np.random.default_rng(ITEMS_SEED)
    traits = np.repeat(np.arange(len(SIZES)), SIZES)
    slopes = random.uniform(0.9, 2.4, len(traits))
    first = random.uniform(0.3, 1.6, len(traits))
    gaps = random.uniform(0.5, 1.1, (len(traits), LEVELS - 2))
    depths = np.concatenate([first[:, None], first[:, None] + gaps.cumsum(axis=1)], axis=1)
    return Truth(traits, slopes, slopes[:, None] * depths, CORRELATIONS)


def simulate(truth: Truth, people: int, missing: float, seed: int) -> Sample:
    """Those drawn from a population of people / DRAWN_SHARE."""
    random = np.random.default_rng(seed)
    population = round(people / DRAWN_SHARE)
    age, income = random.standard_normal((2, population))
    effects = np.outer(AGE_EFFECTS, AGE_EFFECTS) + np.outer(INCOME_EFFECTS, INCOME_EFFECTS)
    rest = random.multivariate_normal(np.zeros(len(truth.correlations)), truth.correlations - effects, population)
    traits = np.outer(age, AGE_EFFECTS) + np.outer(income, INCOME_EFFECTS) + rest
    drawn_odds = SAMPLED_AGE * age + SAMPLED_INCOME * income
    # Exponential races draw without replacement, about in proportion to the odds.
    drawn = np.argsort(random.exponential(size=population) / np.exp(drawn_odds))[:people]
    rate = brentq(lambda log_rate: expected_draws(drawn_odds + log_rate) - people, -20, 20)
    weights = 1 / -np.expm1(-np.exp(drawn_odds[drawn] + rate))
    reached = random.uniform(size=(people, len(truth.slopes), 1)) < answer_steps(truth, traits[drawn])
    codes = reached.sum(axis=2).astype(np.int8)
    if missing:
        odds = SKIPPING_AGE * age[drawn] + SKIPPING_INCOME * income[drawn]
        level = brentq(lambda log_odds: expit(odds + log_odds).mean() - missing, -20, 20)
        codes[random.uniform(size=codes.shape) < expit(odds + level)[:, None]] = -1
    return Sample(codes, traits[drawn], weights / weights.mean())


def expected_draws(log_rates: Floats) -> float:
    """How many races of these rates have ended at time 1."""
    return float(-np.expm1(-np.exp(log_rates)).sum())


def answer_steps(truth: Truth, traits: Floats) -> Floats:
    """P(answer >= k) (n, J, K-1) for k of 1 to K-1."""
    return np.asarray(expit((truth.slopes * traits[:, truth.traits])[:, :, None] - truth.thresholds))
