"""How good predictions of hidden answers are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.heldout_data import Integers, Questionnaire

Floats = npt.NDArray[np.float64]
SMALLEST_PROBABILITY = 1e-6  # a certain error costs 13.8 nats, not infinitely many


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood per hidden answer in nats, its standard error clustered by person's row, and accuracy."""

    nll: float
    nll_se: float
    accuracy: float


def measure_losses(probabilities: Floats, truth: Integers) -> Floats:
    """Negative log-likelihood (C) of the answers under probabilities (C, K)."""
    found = probabilities[np.arange(len(truth)), truth]
    return -np.log(np.maximum(found, SMALLEST_PROBABILITY))


def measure_score(data: Questionnaire, probabilities: Floats, truth: Integers) -> Score:
    losses = measure_losses(probabilities, truth)
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    return Score(float(losses.mean()), clustered_se(losses, data.cell_rows), accuracy)


def clustered_se(values: Floats, clusters: Integers) -> float:
    """Standard error of the mean of values that are alike within a cluster."""
    sums = np.bincount(clusters, weights=values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))
