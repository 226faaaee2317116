"""Quantiles of a weighted distribution and Woodruff's intervals, as R's `svyquantile` with `qrule = "math"`.

Woodruff (1952): the interval of the share of people at or below the quantile, read back through the distribution.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.presentation import t_interval, t_quantile

TIE = 1e-12  # a share that is this close to the one asked for has reached it, whatever the sum's last digit says

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantile:
    """A quantile; its SE and the bounds are null where the share's interval leaves 0 to 1 or has no df."""

    estimate: float
    se: float | None
    ci_low: float | None
    ci_high: float | None


def find_quantile(values: NDArray[Any], weights: Floats, share: float) -> float:
    """The smallest value that has at least `share` (0-1) of the weight at or below it.

    `values` are distinct and rise, `weights` (not all of them 0) are those of the people with each value.
    """
    held = weights > 0
    return float(values[held][_find_place(weights[held], share)])


def estimate_quantile(
    values: NDArray[Any], weights: Floats, share: float, share_se: Callable[[float], float | None], df: int
) -> Quantile:
    """The quantile and Woodruff's 95 % interval; the SE is the interval's width over twice its t.

    `values` and `weights` as for `find_quantile`; `share_se` gives the design-based SE of the share of people at or
    below a value, null where there is no variance.
    """
    quantile = find_quantile(values, weights, share)
    below = math.fsum(weights[values <= quantile]) / math.fsum(weights)
    se = share_se(quantile)
    if df <= 0 or se is None:
        return Quantile(quantile, None, None, None)
    bounds = [find_quantile(values, weights, bound) if 0 <= bound <= 1 else None for bound in t_interval(below, se, df)]
    low, high = bounds
    width = None if low is None or high is None else (high - low) / (2 * t_quantile(df))
    return Quantile(quantile, width, low, high)


def _find_place(weights: Floats, share: float) -> int:
    reached = np.cumsum(weights) / weights.sum() >= share - TIE
    return int(np.argmax(reached)) if reached.any() else len(weights) - 1
