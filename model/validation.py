"""How well a network describes held-out people, beside what the items' margins alone would say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.inputs import Inputs, survey_inputs
from model.likelihood import smooth_margins
from model.network import ProfileNetwork
from model.spec import FeatureSpec

BLOCK = 4096


@dataclass(frozen=True)
class Bound:
    """Weighted mean per person, nats; `answers` is the weighted mean number of answers."""

    elbo: float
    reconstruction: float
    kl: float
    answers: float


@dataclass(frozen=True)
class Validation:
    """Weighted, in nats. `elbo` is per person; `_per_answer` are costs: lower is better.

    Compare `elbo_per_answer` with `margins_per_answer`: it pays for the traits (KL), the reconstruction does not.
    """

    elbo: float
    elbo_per_answer: float
    reconstruction_per_answer: float
    margins_per_answer: float


@torch.no_grad()
def measure_bound(network: ProfileNetwork, inputs: Inputs) -> Bound:
    """The bound on the held-out people, by quadrature: no random number enters."""
    sums = np.zeros(3)
    for categories, weights in zip(
        torch.split(inputs.held_out, BLOCK), torch.split(inputs.held_out_weights, BLOCK), strict=True
    ):
        reconstruction, kl = network.bound(categories)
        answers = (categories >= 0).sum(dim=1)
        sums += [float((weights * figure).sum()) for figure in (reconstruction, kl, answers)]
    reconstruction_mean, kl_mean, answers_mean = (sums / float(inputs.held_out_weights.sum())).tolist()
    return Bound(reconstruction_mean - kl_mean, reconstruction_mean, kl_mean, answers_mean)


def judge_network(network: ProfileNetwork, paths: Sequence[Path], weight_column: str | None) -> Validation:
    """Figures of any network on the files' held-out people: what a champion says of those that judge its challenger.

    Raises ModelError as `survey_inputs` does.
    """
    inputs = survey_inputs(sorted(paths), network.spec, weight_column)
    return compare_margins(measure_bound(network, inputs), inputs, network.spec)


def compare_margins(bound: Bound, inputs: Inputs, spec: FeatureSpec) -> Validation:
    """Set the bound beside the cost of the same answers under the training folds' item margins."""
    margins = smooth_margins(inputs.counts, spec)
    categories = inputs.held_out.numpy()
    weights = np.where(categories >= 0, inputs.held_out_weights.numpy()[:, None], 0.0)
    probability = margins[np.arange(len(spec.items)), categories.clip(min=0)]
    cost = -float((weights * np.log(probability)).sum() / weights.sum())
    return Validation(bound.elbo, -bound.elbo / bound.answers, -bound.reconstruction / bound.answers, cost)
