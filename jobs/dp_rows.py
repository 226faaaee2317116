"""Figures of a differentially private release: all of them follow from the noisy sums, so that none costs more privacy.

The standard error has two parts: what the noise is expected to add (its own column `noise_se`), and the sample's, of a
simple random sample times the design effect that the codebook assumes.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from expectations.outcomes import Outcome
from jobs.dp_noise import Noise
from jobs.dp_sums import UNITS, CellSums, start_interval
from jobs.kinds import leave_out
from jobs.presentation import (
    MIN_CASES,
    Interval,
    Presentation,
    judge_count,
    judge_mean,
    judge_proportion,
    korn_graubard,
    log_t_interval,
    t_interval,
)
from jobs.survey import CohortRow, Estimate, Kind

LARGE_DF = 10**6  # the degrees of freedom of an assumed design effect: as good as known
LEAST_SIGNAL = 2.0  # noise standard deviations that the weights of a cell must come to
ABOVE = 2.0  # noise standard deviations that are added to a variance
NOISE = "the noise of differential privacy is as large as the group"
NOT_PRIVATE = "not among the figures of a differentially private release"
BELOW_ONE = 0.98  # a share of 0 or 1 in noisy sums is no certainty; `korn_graubard` takes it as one


def make_rows(
    sums: CellSums, noise: Noise, outcomes: Sequence[Outcome], largest: float, deff: float
) -> list[CohortRow]:
    """The rows of one cell and scale: means, proportions, and how many people each proportion is.

    `largest` is the weight that UNITS stand for.
    """
    made, cell = [], Cell(sums, noise, largest, deff)
    for outcome in outcomes:
        figures = cell.estimate_mean() if outcome.kind == "mean" else cell.estimate_proportion(outcome)
        made.append(CohortRow(sums.breakdown, sums.cell, outcome.name, figures, "shown"))
        if outcome.kind == "proportion":
            made.append(CohortRow(sums.breakdown, sums.cell, outcome.name, cell.count_cases(outcome), "shown"))
    return made


class Cell:
    """A cell's noisy sums as numbers of people represented."""

    def __init__(self, sums: CellSums, noise: Noise, largest: float, deff: float) -> None:
        unit = largest / UNITS
        self.question, self.deff = sums.question, deff
        self.n = max(sums.n, 0)
        self.intervals = [value * unit for value in sums.intervals]
        self.total, self.square = (0.0 if value is None else value * unit for value in (sums.total, sums.square))
        self.sd = {part: math.sqrt(2) * scale * (1 if part == "n" else unit) for part, scale in noise.scales.items()}

    @property
    def weight(self) -> float:
        """Of the people who answered."""
        return sum(self.intervals[:-1])

    def drowns(self) -> bool:
        """Whether the cell's weights are no more than noise could be."""
        answered = len(self.intervals) - 1
        return self.n < 2 or self.weight < LEAST_SIGNAL * self.sd["intervals"] * math.sqrt(answered)

    def estimate_proportion(self, outcome: Outcome) -> Estimate:
        if self.drowns():
            return self._withhold("proportion")
        p, noise_se = self._share(outcome)
        se = math.hypot(noise_se, math.sqrt(self.deff * p * (1 - p) / self.n))
        inner = min(max(p, 1 - BELOW_ONE), BELOW_ONE)
        low, high = korn_graubard(inner, max(se, 1e-9), self.n, LARGE_DF)
        presentation, reason = judge_proportion(inner, max(se, 1e-9), self.n, LARGE_DF)
        limits = min(low, p), max(high, p)
        return self._tell("proportion", p, se, limits, "korn-graubard", presentation, reason, noise_se)

    def count_cases(self, outcome: Outcome) -> Estimate:
        """The people whom the proportion is, of all of the cell: those without an answer are as the others."""
        if self.drowns():
            return self._withhold("total")
        everybody, (p, _) = max(sum(self.intervals), self.weight), self._share(outcome)
        inside, outside = self._count_intervals(outcome)
        # Of p E / W by each interval, W of those who answered, E with the others: their noise is one and the same.
        beside = p * (1 - everybody / self.weight)
        parts = inside * (everybody / self.weight + beside) ** 2 + outside * beside**2 + p**2
        total, noise = p * everybody, self.sd["intervals"] * math.sqrt(parts)
        se = math.hypot(noise, everybody * math.sqrt(self.deff * p * (1 - p) / self.n))
        if total <= 0:
            return self._withhold("total")
        presentation, reason = judge_count(total, se, MIN_CASES, LARGE_DF)  # the cases themselves are not counted
        return self._tell("total", total, se, log_t_interval(total, se, LARGE_DF), "log-t", presentation, reason, noise)

    def estimate_mean(self) -> Estimate:
        if self.drowns():
            return self._withhold("mean")
        low, high = self.question.span
        centred = min(max(self.total / self.weight, -1.0), 1.0)
        mean, answered = self.question.middle + self.question.half * centred, len(self.intervals) - 1
        spread = math.hypot(self.sd["total"], centred * self.sd["intervals"] * math.sqrt(answered)) / self.weight
        noise_se = self.question.half * spread
        # Rather too large than too small, and at most that of a bounded variable (Bhatia and Davis 2000).
        found = (self.square + ABOVE * self.sd["square"]) / self.weight - centred**2
        variance = min(max(found, 0.0) * self.question.half**2, (high - mean) * (mean - low))
        se = math.hypot(noise_se, math.sqrt(self.deff * variance / self.n))
        presentation, reason = judge_mean(mean, se, self.n, LARGE_DF)
        ends = t_interval(mean, se, LARGE_DF)
        limits = max(ends[0], low), min(ends[1], high)
        return self._tell("mean", mean, se, limits, "t", presentation, reason, noise_se)

    def _share(self, outcome: Outcome) -> tuple[float, float]:
        """The share of those with the outcome, 0 to 1, and what the noise is expected to add to its standard error."""
        inside, outside = self._count_intervals(outcome)
        answered = self.intervals[:-1]
        p = sum(answered[outside:] if outcome.side == ">=" else answered[:inside]) / self.weight
        p = min(max(p, 0.0), 1.0)
        variance = ((1 - p) ** 2 * inside + p**2 * outside) * self.sd["intervals"] ** 2
        return p, math.sqrt(variance) / self.weight

    def _count_intervals(self, outcome: Outcome) -> tuple[int, int]:
        """How many intervals of the total have the outcome, and how many do not."""
        below = self.question.cuts.index(start_interval(outcome)) + 1
        above = len(self.intervals) - 1 - below
        return (above, below) if outcome.side == ">=" else (below, above)

    def _tell(
        self,
        kind: Kind,
        estimate: float,
        se: float,
        limits: Interval,
        method: str,
        presentation: Presentation,
        reason: str | None,
        noise_se: float,
    ) -> Estimate:
        figures = Estimate(
            kind, self.n, None, self.weight, estimate, se, None, *limits, method, None, presentation, reason
        )
        return replace(figures, noise_se=noise_se)

    def _withhold(self, kind: Kind) -> Estimate:
        return leave_out(kind, self.n, None, max(self.weight, 0.0), None, None, NOISE)
