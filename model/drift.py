"""How far tonight's people are from those a model was made on: the population stability index (PSI)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model.inputs import People, iterate_people
from model.network import ProfileNetwork
from model.spec import MISSING, FeatureSpec

PSEUDO_SHARE = 1e-3  # of a category that nobody is in: the logarithm must be a number
PROFILE_EDGES = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # reference sds
BLOCK = 4096

Floats = npt.NDArray[np.float64]


def share_answers(paths: Sequence[Path], spec: FeatureSpec, weight_column: str | None) -> dict[str, list[float]]:
    """For each item the weighted shares of no answer and of each code, everybody included."""
    totals = [np.zeros(len(item.levels) + 1) for item in spec.items]
    for people in iterate_people(paths, spec, weight_column):
        for position, total in enumerate(totals):
            total += np.bincount(people.codes[:, position] + 1, people.weights, minlength=len(total))
    return {item.key: (total / total.sum()).tolist() for item, total in zip(spec.items, totals, strict=True)}


@torch.no_grad()
def share_traits(network: ProfileNetwork, people: People) -> dict[str, list[float]]:
    """For each trait the shares of profile means, as `share_profiles`, of people who answered anything."""
    answered = (people.codes != MISSING).any(axis=1)
    blocks = torch.split(torch.from_numpy(people.codes[answered]), BLOCK)
    means = np.concatenate([network.posterior(network.categories(block)).mean.numpy() for block in blocks])
    weights = people.weights[answered]
    return {trait.key: share_profiles(means[:, place], weights) for place, trait in enumerate(network.spec.traits)}


def share_profiles(means: npt.NDArray[np.float32], weights: Floats) -> list[float]:
    """Weighted shares of profile means between PROFILE_EDGES, in reference sds; zeros where nobody counts."""
    counts = np.bincount(np.searchsorted(PROFILE_EDGES, means), weights, minlength=len(PROFILE_EDGES) + 1)
    return (counts / (counts.sum() or 1.0)).tolist()  # type: ignore[no-any-return]


def compare_shares(reference: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """PSI of each entry: sum of (q - p) ln(q / p); .1 is usually called some drift, .25 much."""
    return {key: compare_one(reference[key], now[key]) for key in reference}


def compare_one(reference: Sequence[float], now: Sequence[float]) -> float:
    p, q = (np.maximum(shares, PSEUDO_SHARE) for shares in (np.asarray(reference), np.asarray(now)))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())
