"""The proportional-odds model (McCullagh 1980): logit P(Y >= k | x) = x'beta - c_k, with survey weights.

Fitted by pseudo maximum likelihood (Binder 1983): the weighted log likelihood is concave (Pratt 1981), so Newton's
steps end at its one maximum. Shapes: N people, p covariates, K categories, P = p + K - 1 parameters: beta, then
c_1 .. c_K-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

MOST_STEPS = 100
MOST_HALVINGS = 40
TOLERANCE = 1e-10  # of a step, and of the gain that it promises beside the log likelihood
EDGE = 60.0  # stands for infinity: logistic(60) is 1
SMALLEST = 1e-300

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """`parameters` (P), the log likelihood, scores (N, P) and information (P, P), all weighted.

    `working` is the covariance if weights were counts of independent people: the information's inverse.
    """

    parameters: Floats
    covariates: int
    log_likelihood: float
    scores: Floats
    information: Floats

    @property
    def slopes(self) -> Floats:
        return self.parameters[: self.covariates]

    @property
    def cuts(self) -> Floats:
        return self.parameters[self.covariates :]

    @property
    def working(self) -> Floats:
        return np.asarray(np.linalg.inv(self.information))

    def probability(self, covariates: Floats) -> Floats:
        """P(Y = k | x) (rows, K) at rows of covariates (rows, p)."""
        return divide(self.cuts - (covariates @ self.slopes)[:, None])


class NoFit(Exception):
    """The log likelihood has no maximum, or none that can be found: a category or a covariate is separated."""


def fit_proportional_odds(answers: Integers, covariates: Floats, weights: Floats, start: Floats | None = None) -> Fit:
    """`answers` (N) are 0 .. K-1, each seen; `start` (P) is where to begin. Raises NoFit."""
    count = covariates.shape[1]
    parameters = begin(answers, count, weights) if start is None else start
    value, scores, information = derive(parameters, answers, covariates, weights)
    for _ in range(MOST_STEPS):
        gradient = weights @ scores
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError as error:
            raise NoFit from error
        if not np.isfinite(step).all():
            raise NoFit
        for _ in range(MOST_HALVINGS):
            trial = parameters + step
            if (np.diff(trial[count:]) > 0).all():
                tried = derive(trial, answers, covariates, weights)
                if tried[0] >= value - TOLERANCE * abs(value):
                    break
            step = step / 2
        else:
            raise NoFit
        parameters, (value, scores, information) = trial, tried
        if np.abs(step).max() < TOLERANCE * (1 + np.abs(parameters).max()):
            return Fit(parameters, count, value, weights[:, None] * scores, information)
    raise NoFit


def begin(answers: Integers, count: int, weights: Floats) -> Floats:
    """No slopes, and the cuts of the margins."""
    mass = np.bincount(answers, weights)
    above = mass[::-1].cumsum()[::-1][1:] / mass.sum()
    return np.concatenate([np.zeros(count), np.log1p(-above) - np.log(above)])


def derive(parameters: Floats, answers: Integers, covariates: Floats, weights: Floats) -> tuple[float, Floats, Floats]:
    """Weighted log likelihood, unweighted scores (N, P), and minus the weighted Hessian (P, P)."""
    count = covariates.shape[1]
    cuts = np.concatenate([[-EDGE], parameters[count:], [EDGE]])
    linear = covariates @ parameters[:count]
    upper, lower = (np.clip(cuts[answers + side] - linear, -EDGE, EDGE) for side in (1, 0))
    f_upper, f_lower = expit(upper), expit(lower)
    chance = np.maximum(f_upper - f_lower, SMALLEST)
    d_upper, d_lower = f_upper * (1 - f_upper) / chance, f_lower * (1 - f_lower) / chance
    # Each answer's two edges, as functions of the parameters: a cut less the linear part.
    last = len(cuts) - 2
    open_above, open_below = answers == last, answers == 0
    d_upper, d_lower = np.where(open_above, 0.0, d_upper), np.where(open_below, 0.0, d_lower)
    edges = np.eye(last)
    at_upper = np.concatenate([-covariates, edges[np.minimum(answers, last - 1)]], axis=1)
    at_lower = np.concatenate([-covariates, edges[np.maximum(answers - 1, 0)]], axis=1)
    scores = d_upper[:, None] * at_upper - d_lower[:, None] * at_lower
    second_upper = weights * (d_upper * (1 - 2 * f_upper))
    second_lower = weights * (-d_lower * (1 - 2 * f_lower))
    hessian = (at_upper * second_upper[:, None]).T @ at_upper + (at_lower * second_lower[:, None]).T @ at_lower
    hessian -= (scores * weights[:, None]).T @ scores
    return float(weights @ np.log(chance)), scores, -hessian


def divide(edges: Floats) -> Floats:
    """P(Y = k) (rows, K) between rising edges (rows, K-1), logistic."""
    below = expit(edges)
    zero, one = np.zeros((len(below), 1)), np.ones((len(below), 1))
    return np.diff(np.concatenate([zero, below, one], axis=1), axis=1)
