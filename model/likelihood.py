"""Graded response items: the ordinal likelihood of answers given the traits.

Samejima (1969): P(Y >= k | theta) = sigmoid(a theta - b_k), with a > 0 and b_1 < b_2 < ... < b_{K-1}.
Every item loads on its one trait; an item without a trait has thresholds only. What the traits leave comes in
from outside, as a shift of an item's location and as its spread.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.spec import FeatureSpec

FIRST_DISCRIMINATION = 1.5
MIN_GAP = 1e-3  # keeps the probability of a category above zero
OPEN_EDGE = 1e4  # stands for infinity at both ends: sigmoid is exactly 0 or 1 there, and gradients stay finite
PSEUDO_COUNT = 0.5  # spread over an item's categories, so that an unseen one has a probability
LOGISTIC_NORMAL = (16 * math.sqrt(3) / (15 * math.pi)) ** 2  # logit-normal integral: logit / sqrt(1 + c a^2)


def to_categories(codes: Tensor, spec: FeatureSpec) -> Tensor:
    """Codes (rows, items) as int64 categories: flipped items turned round, -1 kept."""
    last = torch.tensor([len(item.levels) - 1 for item in spec.items])
    flipped = torch.tensor([item.flipped for item in spec.items])
    codes = codes.long()
    return torch.where((codes >= 0) & flipped, last - codes, codes)


def smooth_margins(counts: npt.NDArray[np.float64], spec: FeatureSpec) -> npt.NDArray[np.float64]:
    """Category probabilities (items, most categories) from weighted counts; zero beyond an item's last category."""
    sizes = np.array([len(item.levels) for item in spec.items])
    exists = np.arange(counts.shape[1]) < sizes[:, None]
    smoothed = np.where(exists, counts + PSEUDO_COUNT / sizes[:, None], 0.0)
    return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True), dtype=np.float64)


class GradedItems(nn.Module):
    """All items of a spec. Shapes: B people, T traits, J items, K the most categories of an item."""

    loads: Tensor
    shared: Tensor
    sizes: Tensor
    category_scores: Tensor

    def __init__(self, spec: FeatureSpec, margins: npt.NDArray[np.float64] | None = None) -> None:
        super().__init__()
        sizes = torch.tensor([len(item.levels) for item in spec.items])
        self.most = int(sizes.max())
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("loads", _loading_pattern(spec), persistent=False)
        self.register_buffer("shared", _shared_discriminations(spec), persistent=False)
        self.register_buffer("category_scores", _category_scores(spec, self.most), persistent=False)
        if margins is None:
            margins = smooth_margins(np.zeros((len(spec.items), self.most)), spec)
        first, gaps = self._start_from_margins(margins)
        count = int(self.shared.max()) + 1
        self.log_discrimination = nn.Parameter(torch.full((count,), math.log(FIRST_DISCRIMINATION)))
        self.first_threshold = nn.Parameter(first)
        self.raw_gaps = nn.Parameter(gaps)

    def _start_from_margins(self, margins: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Thresholds whose probabilities, averaged over a standard normal trait, are about the margins."""
        at_least = np.cumsum(margins[:, ::-1], axis=1)[:, ::-1][:, 1:].clip(1e-6, 1 - 1e-6)
        loaded = self.loads.sum(dim=0).numpy()
        stretch = np.sqrt(1 + LOGISTIC_NORMAL * (FIRST_DISCRIMINATION * loaded) ** 2)
        thresholds = (np.log1p(-at_least) - np.log(at_least)) * stretch[:, None]
        gaps = np.diff(thresholds, axis=1).clip(2 * MIN_GAP) - MIN_GAP
        raw = gaps + np.log(-np.expm1(-gaps))  # inverse of softplus
        return torch.tensor(thresholds[:, 0], dtype=torch.float32), torch.tensor(raw, dtype=torch.float32)

    def discriminations(self) -> Tensor:
        """Slopes (T, J): positive where an item loads on the trait, else zero."""
        return self.loads * self.log_discrimination.exp()[self.shared]

    def edges(self) -> Tensor:
        """Thresholds with open ends (J, K+1): category y of an item lies between edges y and y+1."""
        gaps = F.softplus(self.raw_gaps) + MIN_GAP
        inner = torch.cat([self.first_threshold[:, None], gaps], dim=1).cumsum(dim=1)
        beyond = torch.arange(1, self.most) >= self.sizes[:, None]
        inner = inner.masked_fill(beyond, OPEN_EDGE)
        ends = torch.full((len(self.sizes), 1), OPEN_EDGE)
        return torch.cat([-ends, inner, ends], dim=1)

    def locations(self, theta: Tensor) -> Tensor:
        """Slope times trait (..., J) for traits (..., T); zero for an item without a trait."""
        return theta @ self.discriminations()

    def log_prob(self, location: Tensor, spread: Tensor | None, categories: Tensor) -> Tensor:
        """Log probability of each answer (..., B, J); zero where there is no answer.

        P(Y >= k) = sigmoid(spread (location - b_k)), both (..., B, J), spread positive and 1 where it is None
        (McCullagh 1980: location and scale of an ordinal answer): the categories keep their order.
        """
        return log_between(location, spread, *self.gather_edges(categories))

    def gather_edges(self, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper edge of each answer's category, each (B, J); the open ends where there is no answer."""
        edges = self.edges().flatten()
        rows = (self.most + 1) * torch.arange(len(self.sizes))
        lower = rows + categories.clamp(min=0)
        upper = rows + (categories + 1).masked_fill(categories < 0, self.most)
        # Its gradient is a plain sum in a fixed order, and many times quicker than that of other look-ups.
        below, above = (edges.index_select(0, places.flatten()).view(places.shape) for places in (lower, upper))
        return below, above

    def probabilities(self, location: Tensor, spread: Tensor | None) -> Tensor:
        """Probability of every category (..., J, K) at locations (..., J); zero beyond an item's last category."""
        logits = self.edges() - location[..., None]
        below = torch.sigmoid(logits if spread is None else spread[..., None] * logits)
        return below[..., 1:] - below[..., :-1]

    def draw(self, location: Tensor, spread: Tensor | None, generator: torch.Generator) -> Tensor:
        """A category of each item (..., J), drawn at locations (..., J)."""
        logits = location[..., None] - self.edges()[:, 1:-1]
        reached = torch.sigmoid(logits if spread is None else spread[..., None] * logits)
        return (torch.rand((*location.shape, 1), generator=generator) < reached).sum(dim=-1)

    def scores(self, categories: Tensor) -> Tensor:
        """Score of each answer (B, J), in the scale's own direction; meaningless where there is none."""
        rows = categories.clamp(min=0) + self.most * torch.arange(len(self.sizes))
        return self.category_scores.flatten()[rows]


def log_between(location: Tensor, spread: Tensor | None, lower: Tensor, upper: Tensor) -> Tensor:
    """Log probability (..., B, J) of answers between their categories' edges, as `gather_edges` gives them.

    sigmoid(u) - sigmoid(v) = sigmoid(u) sigmoid(-v) (1 - exp(v - u)), and u - v is the gap between two thresholds: no
    cancellation. Between the open ends the probability is exactly 1.
    """
    if not torch.is_grad_enabled():  # a traced model knows no function of Python's
        return _reckon_between(location, spread, lower, upper)[0]
    found: Tensor = _LogBetween.apply(location, spread, lower, upper)  # type: ignore[no-untyped-call]
    return found


def _reckon_between(
    location: Tensor, spread: Tensor | None, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The log probability; distances to both edges, and the third factor, which the derivatives are made of."""
    above, below = location - lower, upper - location
    if spread is None:
        held, scaled = torch.expm1(lower - upper).neg_(), (above, below)
    else:
        held, scaled = torch.expm1(spread * (lower - upper)).neg_(), (spread * above, spread * below)
    # log sigmoid(x) = min(x, 0) + log sigmoid(|x|): one logarithm serves all three factors. (An exponential that
    # underflows, as those of open ends would, takes ten times as long as a sigmoid.)
    floor = scaled[0].clamp(max=0).add_(scaled[1].clamp(max=0))
    sure = [part.abs().sigmoid_() for part in scaled]
    return sure[0].mul_(sure[1]).mul_(held).log_().add_(floor), above, below, held


class _LogBetween(torch.autograd.Function):
    """Derivatives by hand: what the way forward has reckoned is all that they need, where autograd would do most of it
    again. With h = 1 - exp(v - u) they are 1 / h - sigmoid(u) by u, and sigmoid(-v) - 1 / h by v."""

    @staticmethod
    def forward(ctx: Any, location: Tensor, spread: Tensor | None, lower: Tensor, upper: Tensor) -> Tensor:
        found, *parts = _reckon_between(location, spread, lower, upper)
        ctx.save_for_backward(spread, *parts)
        ctx.edges = lower.shape
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        spread, above, below, held = ctx.saved_tensors
        inverse = held.reciprocal()
        scaled = (above, below) if spread is None else (spread * above, spread * below)
        by_above, by_below = ((inverse - torch.sigmoid(part)).mul_(gradient) for part in scaled)
        by_spread = None
        if spread is not None:
            by_spread = (by_above * above).addcmul_(by_below, below)
            by_above, by_below = by_above.mul_(spread), by_below.mul_(spread)
        by_lower, by_upper = -by_above.sum_to_size(ctx.edges), by_below.sum_to_size(ctx.edges)
        return by_above.sub_(by_below), by_spread, by_lower, by_upper


def _loading_pattern(spec: FeatureSpec) -> Tensor:
    """(T, J), 1 where the item loads on the trait."""
    rows = [[float(item.trait == trait.key) for item in spec.items] for trait in spec.traits]
    return torch.tensor(rows).reshape(len(spec.traits), len(spec.items))


def _shared_discriminations(spec: FeatureSpec) -> Tensor:
    """Index of each item's discrimination parameter: the two items of a two-item trait share one."""
    sizes = Counter(item.trait for item in spec.items)
    index: dict[str, int] = {}
    owners = [item.trait if item.trait and sizes[item.trait] == 2 else f"item {item.key}" for item in spec.items]
    return torch.tensor([index.setdefault(owner, len(index)) for owner in owners])


def _category_scores(spec: FeatureSpec, most: int) -> Tensor:
    """Scores of the categories (J, K); an item's last score is repeated beyond its last category."""
    scores = [list(reversed(item.levels)) if item.flipped else list(item.levels) for item in spec.items]
    return torch.tensor([[float(v) for v in row + row[-1:] * (most - len(row))] for row in scores])
