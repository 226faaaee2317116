"""The graded response model, one scale at a time: marginal maximum likelihood over a quadrature of the trait.

What a psychometrician would fit; the network is judged beside it. Samejima (1969): P(Y >= k | theta) =
sigmoid(a theta - b_k), theta standard normal.
Shapes: n people, J items of the scale, K the most levels, Q nodes.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

NODES = 41
WIDEST = 5.0  # the trait's quadrature reaches so many sds
STEPS = 150
FIRST_DISCRIMINATION = 1.5
PRIOR_LOG_SD = 1.0  # of a discrimination, about FIRST_DISCRIMINATION: keeps an item with few answers finite
SMALLEST_PROBABILITY = 1e-9


def fit_scale(
    codes: npt.NDArray[np.int8], margins: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None
) -> Tensor:
    """Probabilities (Q, J, K) of every item's levels at every node.

    `codes` (n, J), -1 where there is no answer; `margins` (J, K) are shares to start from, above zero for every level
    that an item has; `weights` (n) of people, one each where there are none.
    """
    answers = torch.from_numpy(codes)
    shares = torch.ones(len(codes)).double() if weights is None else torch.from_numpy(weights)
    # As many as there are: the penalty must not count for more, or less, where weights are large.
    shares = shares * len(codes) / shares.sum()
    at_least = np.cumsum(margins[:, ::-1], axis=1)[:, ::-1][:, 1:].clip(1e-6, 1 - 1e-6)
    thresholds = torch.tensor(np.log1p(-at_least) - np.log(at_least)) * FIRST_DISCRIMINATION
    # Beyond an item's last level the threshold is out of reach.
    real = torch.from_numpy(margins[:, 1:] > 0)
    first = thresholds[:, :1].clone().requires_grad_()
    raw_gaps = thresholds.diff(dim=1).clamp(min=1e-2).log().requires_grad_()
    log_slope = torch.full((len(margins), 1), np.log(FIRST_DISCRIMINATION), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([first, raw_gaps, log_slope], max_iter=STEPS, line_search_fn="strong_wolfe")

    def tabulate() -> Tensor:
        steps = torch.cat([first, raw_gaps.clamp(-9, 5).exp()], dim=1).cumsum(dim=1)
        return tabulate_items(log_slope.exp(), torch.where(real, steps, 1e4))

    def closure() -> float:
        optimizer.zero_grad()
        penalty = ((log_slope - np.log(FIRST_DISCRIMINATION)) / PRIOR_LOG_SD).square().sum() / 2
        loss = (penalty - log_joint(answers, tabulate()).logsumexp(dim=1) @ shares) / len(answers)
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
