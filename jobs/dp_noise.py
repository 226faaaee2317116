"""The noise of a differentially private release, drawn by OpenDP: pure epsilon, discrete Laplace, scaled to people.

Adding or removing one person changes, of each breakdown and scale, one cell alone: `n` by 1, one interval, the total
and the square by UNITS at most. The cells of a breakdown share a part of epsilon (parallel composition), the parts add
up (Dwork and Roth 2014, theorem 3.16; the discrete Laplace of Ghosh, Roughgarden and Sundararajan 2012).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import opendp.prelude as dp

from jobs.dp_sums import UNITS, Breakdown, CellSums, Question

# How a scale's share of epsilon is divided; parts that it does not need leave theirs to the others.
SHARES: Mapping[str, float] = {"n": 0.15, "intervals": 0.4, "total": 0.35, "square": 0.1}


@dataclass(frozen=True)
class Noise:
    """The scales of the noise of one breakdown's question, in the units of each part: the sd is sqrt(2) times it."""

    scales: Mapping[str, float]


def plan_noise(
    epsilon: float, breakdowns: Sequence[Breakdown], questions: Sequence[Question]
) -> dict[tuple[Breakdown, str], Noise]:
    """Epsilon in equal shares for breakdowns and scales, and within each by SHARES. What the noise of each part is."""
    plan = {}
    for breakdown in breakdowns:
        for question in questions:
            own = epsilon / len(breakdowns) / len(questions)
            whole = sum(SHARES[part] for part in question.parts)
            scales = {part: _sensitivity(part) / (own * SHARES[part] / whole) for part in question.parts}
            plan[breakdown, question.source] = Noise(scales)
    return plan


def _sensitivity(part: str) -> int:
    return 1 if part == "n" else UNITS


def measure_cost(plan: Mapping[tuple[Breakdown, str], Noise]) -> float:
    """Epsilon of all of it together, as OpenDP accounts for it."""
    costs = (
        float(_laplace(scale).map(_sensitivity(part)))
        for noise in plan.values()
        for part, scale in noise.scales.items()
    )
    return sum(costs)


def add_noise(sums: CellSums, noise: Noise) -> CellSums:
    """The cell's sums with noise, by OpenDP's own source of randomness: it cannot be drawn a second time."""
    scales = noise.scales
    drawn = replace(sums, n=_draw([sums.n], scales["n"])[0], intervals=_draw(sums.intervals, scales["intervals"]))
    if sums.total is not None and sums.square is not None:
        (total,), (square,) = _draw([sums.total], scales["total"]), _draw([sums.square], scales["square"])
        drawn = replace(drawn, total=total, square=square)
    return drawn


def _draw(values: Sequence[int], scale: float) -> tuple[int, ...]:
    return tuple(int(value) for value in _laplace(scale)(list(values)))


def _laplace(scale: float) -> Any:
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    return dp.m.make_laplace(*space, scale=scale)
