"""Many tests at once.

Holm's adjustment bounds the chance of any false alarm: for a gate, where one refuses a model. Benjamini and Hochberg's
bounds the share of false ones among the alarms: for a screening, where a miss is the worse.
"""

from collections.abc import Sequence

import numpy as np

SIGNIFICANCE = 0.05


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = np.empty(len(order)), 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = running
    return [float(p) for p in adjusted]


def adjust_false_discoveries(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's (1995) step-up adjustment, in the order given."""
    count = len(p_values)
    if not count:
        return []
    order = np.argsort(p_values, kind="stable")[::-1]
    adjusted = np.empty(count)
    adjusted[order] = np.minimum.accumulate(
        np.minimum(np.asarray(p_values)[order] * count / np.arange(count, 0, -1), 1.0)
    )
    return [float(p) for p in adjusted]
