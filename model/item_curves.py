"""A graded response item of its own for each group, where a trait is known from the other answers: the model's
likelihood ratio for an item that works otherwise in some group.

log p(y | others) = log sum_q h_q P(y | theta_q), h the posterior given the other answers (compare Thissen, Steinberg &
Wainer 1993). Shapes: N people, Q points of the trait, K categories; parameters are a, then b_1 .. b_K-1, K in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from model.design import Design, judge_statistic
from model.proportional_odds import NoFit, begin

MOST_STEPS = 60
MOST_HALVINGS = 30
TOLERANCE = 1e-9  # of the gain that a step promises, per unit of weight
FIRST_DISCRIMINATION = 1.5
SMALLEST = 1e-300

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """An item as some group answers it; log likelihood, scores (N, K) and information (K, K) are weighted."""

    parameters: Floats
    log_likelihood: float
    scores: Floats
    information: Floats

    def probability(self, theta: Floats) -> Floats:
        """P(category | trait) (Q, K)."""
        return tabulate(self.parameters, theta)[0]


@dataclass(frozen=True)
class GroupCurves:
    """Each group's own curve, and the p of one curve for all."""

    curves: list[Curve]
    p: float


def compare_curves(answers: Integers, posterior: Floats, theta: Floats, group: Integers, design: Design) -> GroupCurves:
    """Of the groups 0, 1, ... of `group` (N); `answers` (N) hold every category in every group. Raises NoFit."""
    weights = design.weights / design.weights.mean()
    common = fit_curve(answers, posterior, theta, weights)
    members = [group == number for number in range(int(group.max()) + 1)]
    curves = [fit_curve(answers[m], posterior[m], theta, weights[m], common.parameters) for m in members]
    count = len(common.parameters)
    scores = np.zeros((len(answers), count * len(curves)))
    for number, (curve, member) in enumerate(zip(curves, members, strict=True)):
        scores[member, number * count : (number + 1) * count] = curve.scores
    working = invert_blocks([curve.information for curve in curves])
    covariance = working @ design.spread(scores) @ working
    # Every group's parameters less the first's.
    contrast = np.concatenate(
        [np.tile(-np.eye(count), (len(curves) - 1, 1)), np.eye(count * (len(curves) - 1))], axis=1
    )
    statistic = 2 * (sum(curve.log_likelihood for curve in curves) - common.log_likelihood)
    df = design.count_df(np.ones(len(answers), dtype=bool))
    p = judge_statistic(max(statistic, 0.0), contrast @ covariance @ contrast.T, contrast @ working @ contrast.T, df)
    return GroupCurves(curves, p)


def invert_blocks(blocks: Sequence[Floats]) -> Floats:
    count = len(blocks[0])
    whole = np.zeros((count * len(blocks), count * len(blocks)))
    for number, block in enumerate(blocks):
        part = slice(number * count, (number + 1) * count)
        try:
            whole[part, part] = np.linalg.inv(block)
        except np.linalg.LinAlgError as error:
            raise NoFit from error
    return whole


def fit_curve(
    answers: Integers, posterior: Floats, theta: Floats, weights: Floats, start: Floats | None = None
) -> Curve:
    """By steps with the outer product of the scores as their information (Berndt, Hall, Hall & Hausman 1974), which
    never leads down, and Newton's near the end. Raises NoFit."""
    if start is None:
        start = np.concatenate([[FIRST_DISCRIMINATION], FIRST_DISCRIMINATION * begin(answers, 0, weights)])
    parameters = start
    value, scores, information = derive(parameters, answers, posterior, theta, weights)
    for _ in range(MOST_STEPS):
        gradient = weights @ scores
        steps = [_solve(information, gradient), _solve((scores * weights[:, None]).T @ scores, gradient)]
        step = next((step for step in steps if step is not None and gradient @ step > 0), None)
        if step is None:
            break
        promised = float(gradient @ step)
        if promised < TOLERANCE * weights.sum():
            return Curve(parameters, value, weights[:, None] * scores, information)
        for _ in range(MOST_HALVINGS):
            trial = parameters + step
            if (np.diff(trial[1:]) > 0).all():
                tried = derive(trial, answers, posterior, theta, weights)
                if tried[0] > value:
                    break
            step = step / 2
        else:
            break
        parameters, (value, scores, information) = trial, tried
    raise NoFit


def _solve(information: Floats, gradient: Floats) -> Floats | None:
    try:
        return np.asarray(np.linalg.solve(information, gradient))
    except np.linalg.LinAlgError:
        return None


def derive(
    parameters: Floats, answers: Integers, posterior: Floats, theta: Floats, weights: Floats
) -> tuple[float, Floats, Floats]:
    """Weighted log likelihood, unweighted scores (N, K), and minus the weighted Hessian (K, K)."""
    probability, first, second = tabulate(parameters, theta)
    count = len(parameters)
    likelihood, scores = np.empty(len(answers)), np.empty((len(answers), count))
    reached = np.empty((len(theta), probability.shape[1]))
    for category in range(probability.shape[1]):
        chosen = answers == category
        own = posterior[chosen]
        likelihood[chosen] = np.maximum(own @ probability[:, category], SMALLEST)
        scores[chosen] = (own @ first[:, category]) / likelihood[chosen, None]
        reached[:, category] = (weights[chosen] / likelihood[chosen]) @ own
    hessian = np.einsum("qk,qkab->ab", reached, second) - (scores * weights[:, None]).T @ scores
    return float(weights @ np.log(likelihood)), scores, -hessian


def tabulate(parameters: Floats, theta: Floats) -> tuple[Floats, Floats, Floats]:
    """P(category | trait) (Q, K), its derivatives (Q, K, K) by the parameters, and the second ones (Q, K, K, K)."""
    slope, cuts = parameters[0], parameters[1:]
    count = len(parameters)
    above = expit(slope * theta[:, None] - cuts)
    steep = above * (1 - above)
    direction = np.zeros((len(theta), count - 1, count))  # of a theta - b_k, by the parameters
    direction[:, :, 0] = theta[:, None]
    direction[:, np.arange(count - 1), np.arange(1, count)] = -1.0
    first = steep[..., None] * direction
    second = (steep * (1 - 2 * above))[..., None, None] * direction[..., :, None] * direction[..., None, :]
    return (
        -np.diff(above, axis=1, prepend=1.0, append=0.0),
        -np.diff(first, axis=1, prepend=0.0, append=0.0),
        -np.diff(second, axis=1, prepend=0.0, append=0.0),
    )
