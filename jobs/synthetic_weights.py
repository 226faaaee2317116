"""Weights of a synthetic extract, calibrated to what has been published.

Ridge calibration by raking (Deville & Sarndal 1992; Rao & Singh 1997): of all weights that meet the published margins
but for their rounding, those nearest to the drawn ones. Published standard errors are met, too: how people fell into
the survey's PSUs has made them larger or smaller than a drawing anew would, and intervals are to be the survey's.
Nothing is used that readers do not have. Shapes: D people, K margins, P PSUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.cells import Floats, Integers

ROUNDS = 100
CLOSE = 1e-8
TOTAL_ERROR = 0.005  # of a published number of people, which has three digits
MEAN_ERROR = 0.1  # of a published figure, in its standard errors
SE_ERROR = 0.05  # of a published standard error, which has two digits
SE_ROUNDS = 8
FARTHEST = 50.0  # of a factor's logarithm
LONGEST_STEP = 0.5  # of a standard error's logarithm in a round
DIGITS = 6  # of a weight in the file


@dataclass(frozen=True)
class Margin:
    """A published figure of `n` people: who of those drawn (D) is in it, their answers (D), and what it comes to."""

    inside: npt.NDArray[np.bool_]
    answers: Floats
    n: int
    people: float  # weighted
    estimate: float
    se: float

    def linearise(self) -> Floats:
        """What a unit of each person's weight (D) adds to the mean."""
        return np.asarray(self.inside * (self.answers - self.estimate) / self.people)

    @property
    def se_drawn(self) -> float:
        """The standard error of as many people as were drawn: it goes by the root of their number."""
        return self.se * float(np.sqrt(self.n / self.inside.sum()))


Side = tuple[Floats, float, float]  # of an equation: what people (D) add to it, what it comes to, and its error


@dataclass(frozen=True)
class Design:
    """The PSU of each drawn person (D), and the stratum of each PSU (P); one of whom nobody was drawn is none."""

    psus: Integers
    homes: Integers

    def vary(self, parts: Floats) -> tuple[float, Floats]:
        """The variance of a sum of people's `parts` (D), and half of its derivative by each of them (D)."""
        drawn = np.bincount(self.psus, minlength=len(self.homes)) > 0
        sizes = np.bincount(self.homes, drawn)
        totals = np.bincount(self.psus, parts, len(self.homes))
        away = drawn * (totals - (np.bincount(self.homes, totals) / np.maximum(sizes, 1))[self.homes])
        half = away * (sizes / np.maximum(sizes - 1, 1))[self.homes]
        return float(half @ away), half[self.psus]

    def meet(self, margin: Margin, weights: Floats) -> Side | None:
        """The tangent of the logarithm of a mean's standard error, at these weights (D); None where it has none."""
        parts = margin.linearise()
        variance, half = self.vary(weights * parts)
        if variance <= 0:
            return None
        wanted = float(np.clip(np.log(margin.se_drawn / np.sqrt(variance)), -LONGEST_STEP, LONGEST_STEP))
        # Times the weights it adds up to 1, as the root of a square does.
        return np.asarray(half * parts / variance), 1 + wanted, SE_ERROR

    def miss(self, margins: Sequence[Margin], weights: Floats) -> float:
        """How far standard errors lie off, as the sum of squared logarithms."""
        variances = [(margin, self.vary(weights * margin.linearise())[0]) for margin in margins]
        return sum(float(np.log(m.se_drawn / np.sqrt(variance))) ** 2 for m, variance in variances if variance > 0)


def calibrate_weights(weights: Floats, margins: Sequence[Margin], design: Design) -> Floats:
    """Weights (D) that meet the margins, as far as `weights` allow; margins that nobody is in are left.

    Standard errors bend with the weights: each round meets their tangents at the weights of the last, and the round
    that came nearest to them counts.
    """
    met = [margin for margin in margins if margin.inside.any()]
    if not met:
        return weights
    whole, means = max(margin.people for margin in met), [margin for margin in met if margin.se > 0]
    start = weights / weights.sum()
    fixed: list[Side] = [(margin.inside / margin.people, 1.0, TOTAL_ERROR) for margin in met]
    fixed += [(margin.linearise() / margin.se, 0.0, MEAN_ERROR) for margin in means]
    found: Floats = whole * start
    best, least = found, np.inf
    for _ in range(SE_ROUNDS):
        bending = [side for margin in means if (side := design.meet(margin, found))]
        x, wanted, errors = map(np.array, zip(*fixed, *bending, strict=True))
        found = np.asarray(whole * start * _find_factors(start, whole * x.T, wanted, len(weights) * errors**2))
        missed = design.miss(means, found)
        if missed < least:
            best, least = found, missed
    return best


def _find_factors(start: Floats, x: Floats, wanted: Floats, ridge: Floats) -> Floats:
    """exp(x b), b by Newton's method on the dual: its slope is x' (start factors) - wanted + ridge b."""
    slopes = np.zeros(x.shape[1])

    def cost(at: Floats) -> float:
        return float(start @ np.exp(np.minimum(x @ at, FARTHEST)) - wanted @ at + 0.5 * ridge @ at**2)

    for _ in range(ROUNDS):
        mass = start * np.exp(np.minimum(x @ slopes, FARTHEST))
        slope = x.T @ mass - wanted + ridge * slopes
        step = np.linalg.solve((x * mass[:, None]).T @ x + np.diag(ridge), -slope)
        share, now = 1.0, cost(slopes)
        while cost(slopes + share * step) > now and share > 1e-6:
            share /= 2
        slopes = slopes + share * step
        if float(np.abs(step).max()) < CLOSE:
            break
    return np.asarray(np.exp((x @ slopes).clip(-FARTHEST, FARTHEST)))


def round_weights(weights: Floats, real: Floats, fewest: int) -> Floats:
    """To DIGITS significant digits; one that fewer than `fewest` real people have is moved by its last digit."""
    places = DIGITS - 1 - np.floor(np.log10(weights)).astype(int)
    rounded = np.round(weights * 10.0**places) / 10.0**places
    numbers, counts = np.unique(real, return_counts=True)
    rare = numbers[counts < fewest]
    while (same := np.isin(rounded, rare)).any():
        rounded[same] += 10.0 ** -places[same]
    return rounded
