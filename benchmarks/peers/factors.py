"""scikit-learn's factor analysis on the answers' normal scores, and the conditional normal cut at the margins.

An answer stands for the part of a normal variable that its share among the answers cuts out; its score is the mean
there, standardised. Missing scores are filled with their conditional means in a few rounds; validation people choose
the number of factors. An answer's variable is normal given the seen scores, and is cut at the same points.
Shapes: n people, J items, K levels, F factors, C cells.
"""

import time
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri
from sklearn.decomposition import FactorAnalysis

from benchmarks.peers.exchange import MISSING, Floats, Integers, Task, blend_with_margins, hide_answers, run_peer

NUMBERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
ROUNDS = 5
BLOCK = 512  # people at once


@dataclass(frozen=True)
class Factors:
    """Loadings (J, F) and unique variances (J) of standardised scores."""

    loadings: Floats
    unique: Floats


def predict(task: Task) -> tuple[Floats, float]:
    start = time.process_time()
    judged = hide_answers(task.train[task.validation], float(task.hidden_share), np.random.default_rng(int(task.seed)))
    learners = score_answers(task.train[~task.validation], task.margins)
    losses = {}
    for number in [number for number in NUMBERS if number <= max(1, len(task.margins) // 2)]:
        model = fit(learners, number)
        found = predict_cells(model, task.margins, judged.seen, judged.rows, judged.items)
        losses[number] = judged.measure(found)
    best = min(losses, key=losses.__getitem__)
    model = fit(score_answers(task.train, task.margins), best)
    training = time.process_time() - start
    return predict_cells(model, task.margins, task.test, task.cell_rows, task.cell_items), training


def cut_normal(margins: Floats) -> Floats:
    """Cuts (J, K+1) of a standard normal into shares (J, K), the outer ones infinite."""
    cuts = ndtri(np.cumsum(margins, axis=1).clip(1e-9, 1 - 1e-9))
    cuts[np.cumsum(margins[:, ::-1], axis=1)[:, ::-1] <= margins] = np.inf  # nothing above the last level
    return np.concatenate([np.full((len(cuts), 1), -np.inf), cuts], axis=1)


def score_levels(margins: Floats) -> Floats:
    """Means (J, K) of a standard normal between its cuts, standardised; zero for an item of one level."""
    density = np.exp(-0.5 * cut_normal(margins) ** 2) / np.sqrt(2 * np.pi)
    scores = (density[:, :-1] - density[:, 1:]) / np.where(margins > 0, margins, 1.0)
    sd = np.sqrt((margins * scores**2).sum(axis=1, keepdims=True))
    return np.asarray(scores / np.where(sd > 1e-9, sd, 1.0))


def score_answers(codes: np.ndarray, margins: Floats) -> Floats:
    """Scores (n, J), NaN where there is no answer."""
    scores = score_levels(margins)[np.arange(codes.shape[1]), np.maximum(codes, 0)]
    return np.where(codes == MISSING, np.nan, scores)


def fit(scores: Floats, number: int) -> Factors:
    missing = np.isnan(scores)
    filled = np.nan_to_num(scores)
    for _ in range(ROUNDS):
        found = FactorAnalysis(number, tol=1e-3).fit(filled)
        model = Factors(found.components_.T, found.noise_variance_.clip(1e-3))
        if not missing.any():
            break
        filled = np.where(missing, condition(scores, model)[0], scores)
    return model


def condition(scores: Floats, model: Factors) -> tuple[Floats, Floats]:
    """Mean and variance (n, J) of every score given the person's scores that are not NaN."""
    means, variances = [], []
    for start in range(0, len(scores), BLOCK):
        block = scores[start : start + BLOCK]
        scaled = model.loadings / model.unique[:, None]
        precision = np.einsum("nj,jf,jg->nfg", ~np.isnan(block), scaled, model.loadings, optimize=True)
        covariance = np.linalg.inv(precision + np.eye(model.loadings.shape[1]))
        factors = np.einsum("nfg,ng->nf", covariance, np.nan_to_num(block) @ scaled)
        means.append(factors @ model.loadings.T)
        spread = np.einsum("jf,nfg,jg->nj", model.loadings, covariance, model.loadings, optimize=True)
        variances.append(spread + model.unique)
    return np.concatenate(means), np.concatenate(variances)


def predict_cells(model: Factors, margins: Floats, seen: np.ndarray, rows: Integers, items: Integers) -> Floats:
    mean, variance = condition(score_answers(seen, margins), model)
    cuts = (cut_normal(margins)[items] - mean[rows, items, None]) / np.sqrt(variance[rows, items, None])
    return blend_with_margins(np.diff(ndtr(cuts), axis=1), margins[items])


if __name__ == "__main__":
    run_peer(predict)
