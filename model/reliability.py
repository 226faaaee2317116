"""Reliability of profiles beside that of sum scores, on the same people: those who answered a scale completely.

Shapes: B people, T traits, k items of a scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model.inputs import People, open_parquet
from model.network import ProfileNetwork
from model.spec import MISSING, FeatureSpec

FEWEST_PEOPLE = 50  # figures of fewer are withheld
BLOCK = 4096
ROUNDS = 500
TOLERANCE = 1e-10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """0 to 1, weighted; None where too few people are complete or an item does not vary. `people` is None if few."""

    trait: str
    people: int | None
    marginal: float | None = None
    alpha: float | None = None
    omega: float | None = None


@dataclass(frozen=True)
class DataSummary:
    """`effective` is Kish's (1965) number of equally weighted people; `unanswered` weighted shares by item."""

    people: int
    sampled: int
    effective: float
    unanswered: dict[str, float]
    complete: float


def count_people(paths: Sequence[Path]) -> int:
    """Rows of the files."""
    rows = 0
    for path in paths:
        with open_parquet(path) as file:
            rows += int(file.metadata.num_rows)
    return rows


def summarise_data(people: People, rows: int, spec: FeatureSpec) -> DataSummary:
    """Of a sample of the files' people, and of all `rows` in them."""
    weights, missing = people.weights, people.codes == MISSING
    shares = (weights[:, None] * missing).sum(axis=0) / weights.sum()
    return DataSummary(
        people=rows,
        sampled=len(weights),
        effective=float(weights.sum() ** 2 / np.square(weights).sum() * rows / len(weights)),
        unanswered=dict(zip(spec.columns, shares.tolist(), strict=True)),
        complete=float((weights * ~missing.any(axis=1)).sum() / weights.sum()),
    )


@torch.no_grad()
def measure_reliability(network: ProfileNetwork, people: People) -> list[Reliability]:
    """For each trait.

    Marginal reliability (Green, Bock, Humphreys, Linn & Reckase 1984), for posterior means: their variance over that
    variance plus the mean posterior variance. Alpha (Cronbach 1951) and omega (McDonald 1999) are of the sum score.
    """
    categories = network.categories(torch.from_numpy(people.codes))
    found = []
    for number, trait in enumerate(network.spec.traits):
        places = [network.spec.columns.index(key) for key in trait.items]
        complete = (categories[:, places] >= 0).all(dim=1).numpy() & (people.weights > 0)
        if complete.sum() < FEWEST_PEOPLE:
            found.append(Reliability(trait.key, None))
            continue
        answers, weights = categories[complete], people.weights[complete]
        parts = [network.posterior(block) for block in torch.split(answers, BLOCK)]
        mean = torch.cat([part.mean[:, number] for part in parts]).double().numpy()
        variance = torch.cat([part.sd()[:, number].square() for part in parts]).double().numpy()
        between = float(np.cov(mean, aweights=weights, ddof=0))
        within = float(np.average(variance, weights=weights))
        scores = network.items.scores(answers)[:, places].double().numpy()
        covariance = np.cov(scores.T, aweights=weights, ddof=0)
        found.append(
            Reliability(
                trait.key,
                people=int(complete.sum()),
                marginal=between / (between + within),
                alpha=find_alpha(covariance),
                omega=find_omega(covariance),
            )
        )
    return found


def find_alpha(covariance: Floats) -> float | None:
    """k / (k - 1) (1 - sum of item variances / variance of the sum), from item covariances (k, k)."""
    items, total = len(covariance), covariance.sum()
    return float(items / (items - 1) * (1 - np.trace(covariance) / total)) if total > 0 else None


def find_omega(covariance: Floats) -> float | None:
    """(sum of loadings)^2 over itself plus the sum of unique variances, from item covariances (k, k).

    One factor by minimum residuals on the Pearson correlations, its loadings put back into the items' own units, so
    that omega is that of the same sum score as alpha.
    """
    sds = np.sqrt(np.diag(covariance))
    if not (sds > 0).all():
        return None
    loadings = load_one_factor(covariance / sds[:, None] / sds)
    common = float((loadings * sds).sum() ** 2)
    unique = float((np.square(sds) * (1 - np.square(loadings))).sum())
    return common / (common + unique)


def load_one_factor(correlations: Floats) -> Floats:
    """Minimum-residual loadings (k) of one factor; positive in sum.

    Principal axes, repeated: at rest they meet the conditions of minimum residuals (Harman & Jones 1966).
    """
    reduced = correlations.copy()
    communality = np.abs(correlations - np.eye(len(correlations))).max(axis=1)
    for _ in range(ROUNDS):
        np.fill_diagonal(reduced, communality)
        values, vectors = np.linalg.eigh(reduced)
        loadings: Floats = vectors[:, -1] * math.sqrt(max(values[-1], 0.0))
        before, communality = communality, np.square(loadings).clip(max=1.0)
        if np.abs(communality - before).max() < TOLERANCE:
            break
    return np.clip(loadings * (1 if loadings.sum() >= 0 else -1), -1.0, 1.0)
