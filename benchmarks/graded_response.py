"""The graded response model, one scale at a time: marginal maximum likelihood over a quadrature of the trait.

Samejima (1969): P(Y >= k | theta) = sigmoid(a theta - b_k), theta standard normal. Items without a scale have margins.
Shapes: n people, J items of the scale, K the most levels, Q nodes.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.heldout_data import MISSING, Codes, Questionnaire
from benchmarks.margins import find_margins, predict_margins
from benchmarks.measures import Floats
from benchmarks.scales import Scale, find_scales

NODES = 41
WIDEST = 5.0  # the trait's quadrature reaches so many sds
STEPS = 150
FIRST_DISCRIMINATION = 1.5
PRIOR_LOG_SD = 1.0  # of a discrimination, about FIRST_DISCRIMINATION: keeps an item with few answers finite
SMALLEST_PROBABILITY = 1e-9


def predict_with_graded_response(data: Questionnaire) -> Floats:
    """Probabilities (C, K): each person's trait has its posterior given the answers seen in the scale."""
    probabilities = predict_margins(data)
    place = np.full(len(data.items), -1)
    for scale in find_scales(data):
        items = list(scale.items)
        table = fit_scale(turn(data.train, data, scale), data.sizes[items])
        posterior = find_posterior(torch.from_numpy(turn(data.test, data, scale)), table)
        found = torch.einsum("nq,qjk->njk", posterior, table).numpy()
        place[:] = -1
        place[items] = np.arange(len(items))
        for cell in np.flatnonzero(place[data.cell_items] >= 0):
            item = data.cell_items[cell]
            values = found[data.cell_rows[cell], place[item], : data.sizes[item]]
            flipped = scale.flipped[place[item]]
            probabilities[cell, : data.sizes[item]] = values[::-1] if flipped else values
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def turn(codes: Codes, data: Questionnaire, scale: Scale) -> Codes:
    """The scale's codes (n, J), flipped items turned round."""
    chosen = codes[:, scale.items]
    turned = (data.sizes[list(scale.items)] - 1 - chosen).astype(np.int8)
    return np.where(np.array(scale.flipped) & (chosen != MISSING), turned, chosen).astype(np.int8)


def fit_scale(codes: Codes, sizes: np.ndarray) -> Tensor:
    """Probabilities (Q, J, K) of every item's levels at every node."""
    answers = torch.from_numpy(codes)
    margins = find_margins(codes, sizes)
    at_least = np.cumsum(margins[:, ::-1], axis=1)[:, ::-1][:, 1:].clip(1e-6, 1 - 1e-6)
    thresholds = torch.tensor(np.log1p(-at_least) - np.log(at_least)) * FIRST_DISCRIMINATION
    # Beyond an item's last level the threshold is out of reach.
    real = torch.from_numpy(np.arange(1, margins.shape[1]) < sizes[:, None])
    first = thresholds[:, :1].clone().requires_grad_()
    raw_gaps = thresholds.diff(dim=1).clamp(min=1e-2).log().requires_grad_()
    log_slope = torch.full((len(sizes), 1), np.log(FIRST_DISCRIMINATION), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([first, raw_gaps, log_slope], max_iter=STEPS, line_search_fn="strong_wolfe")

    def tabulate() -> Tensor:
        steps = torch.cat([first, raw_gaps.clamp(-9, 5).exp()], dim=1).cumsum(dim=1)
        return tabulate_items(log_slope.exp(), torch.where(real, steps, 1e4))

    def closure() -> float:
        optimizer.zero_grad()
        penalty = ((log_slope - np.log(FIRST_DISCRIMINATION)) / PRIOR_LOG_SD).square().sum() / 2
        loss = (penalty - log_joint(answers, tabulate()).logsumexp(dim=1).sum()) / len(answers)
        loss.backward()
        return float(loss.item())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return tabulate().detach()


def nodes() -> Tensor:
    return torch.linspace(-WIDEST, WIDEST, NODES, dtype=torch.float64)


def tabulate_items(slopes: Tensor, thresholds: Tensor) -> Tensor:
    """Probabilities (Q, J, K) from slopes (J, 1) and rising thresholds (J, K-1)."""
    above = torch.sigmoid(slopes * nodes()[:, None, None] - thresholds)
    edge = torch.ones_like(above[..., :1])
    return (torch.cat([edge, above], dim=-1) - torch.cat([above, 0 * edge], dim=-1)).clamp(min=SMALLEST_PROBABILITY)


def log_joint(codes: Tensor, table: Tensor) -> Tensor:
    """log p(answers, node) (n, Q), up to a constant."""
    one_hot = torch.nn.functional.one_hot(codes.long() + 1, table.shape[-1] + 1)[..., 1:].double()
    return -0.5 * nodes().square() + one_hot.flatten(1) @ table.log().flatten(1).T


def find_posterior(codes: Tensor, table: Tensor) -> Tensor:
    """Masses (n, Q) of the trait's nodes, given codes (n, J)."""
    return log_joint(codes, table).softmax(dim=1)
