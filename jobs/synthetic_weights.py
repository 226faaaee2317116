"""Weights of a synthetic extract, calibrated to what has been published.

Ridge calibration by raking (Deville & Sarndal 1992; Rao & Singh 1997): of all weights that meet the published margins
but for their rounding, those nearest to the drawn ones. Nothing is used that readers do not have. Shapes: D people,
K margins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.cells import Floats

ROUNDS = 100
CLOSE = 1e-8
TOTAL_ERROR = 0.005  # of a published number of people, which has three digits
MEAN_ERROR = 0.1  # of a published figure, in its standard errors
DIGITS = 6  # of a weight in the file


@dataclass(frozen=True)
class Margin:
    """A published figure: who of the drawn people (D) is in it, their answers (D), and what it comes to."""

    inside: npt.NDArray[np.bool_]
    answers: Floats
    people: float  # weighted
    estimate: float
    se: float


def calibrate_weights(weights: Floats, margins: Sequence[Margin]) -> Floats:
    """Weights (D) that meet the margins, as far as `weights` allow; margins that nobody is in are left."""
    met = [margin for margin in margins if margin.inside.any()]
    if not met:
        return weights
    whole = max(margin.people for margin in met)
    start = weights / weights.sum()
    sides = [(margin.inside * whole / margin.people, 1.0, TOTAL_ERROR) for margin in met]
    sides += [(m.inside * (m.answers - m.estimate) / m.se * whole / m.people, 0.0, MEAN_ERROR) for m in met if m.se > 0]
    x, wanted = np.stack([side[0] for side in sides], axis=1), np.array([side[1] for side in sides])
    ridge = len(weights) * np.array([side[2] for side in sides]) ** 2
    return np.asarray(whole * start * _find_factors(start, x, wanted, ridge))


def _find_factors(start: Floats, x: Floats, wanted: Floats, ridge: Floats) -> Floats:
    """exp(x b), b by Newton's method on the dual: its slope is x' (start factors) - wanted + ridge b."""
    slopes = np.zeros(x.shape[1])

    def cost(at: Floats) -> float:
        return float(start @ np.exp(np.minimum(x @ at, 50.0)) - wanted @ at + 0.5 * ridge @ at**2)

    for _ in range(ROUNDS):
        mass = start * np.exp(np.minimum(x @ slopes, 50.0))
        slope = x.T @ mass - wanted + ridge * slopes
        step = np.linalg.solve((x * mass[:, None]).T @ x + np.diag(ridge), -slope)
        share, now = 1.0, cost(slopes)
        while cost(slopes + share * step) > now and share > 1e-6:
            share /= 2
        slopes = slopes + share * step
        if float(np.abs(step).max()) < CLOSE:
            break
    return np.asarray(np.exp(np.minimum(x @ slopes, 50.0)))


def round_weights(weights: Floats, real: Floats, fewest: int) -> Floats:
    """To DIGITS significant digits; one that fewer than `fewest` real people have is moved by its last digit."""
    places = DIGITS - 1 - np.floor(np.log10(weights)).astype(int)
    rounded = np.round(weights * 10.0**places) / 10.0**places
    numbers, counts = np.unique(real, return_counts=True)
    rare = numbers[counts < fewest]
    while (same := np.isin(rounded, rare)).any():
        rounded[same] += 10.0 ** -places[same]
    return rounded
