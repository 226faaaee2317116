"""Whether predictions serve every cohort alike: coverage of hidden answers, and bias of expected totals, by group.

Held-out people's answers are hidden and foretold from those that are left. Figures are ratios of weighted sums over
people, with design-based intervals. Shapes: P held-out people; groups are members (P).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.design import Design
from model.multiplicity import SIGNIFICANCE, adjust_holm
from model.predicting import COVERAGE, Foretold
from model.spec import FeatureSpec

FEWEST_IN_COHORT = 50
# What a new model may lose against the champion: of a share covered, and of a bias beside the root mean square error of
# an expected total, where a tenth is negligible (Cochran 1977, section 1.8).
WORST_COVERAGE, WORST_BIAS = 0.03, 0.10

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measure:
    """A figure, by person: the ratio of sums of `above` (P) to `below` (P) should be `target`; what it may be further
    off than the champion's is `margin`, in its own unit."""

    name: str
    above: Floats
    below: Floats
    target: float
    margin: float


@dataclass(frozen=True)
class GroupFigure:
    """`measure` is `coverage` (a share) or `<scale>_expected` (points too high); its 95 % interval is by the design,
    None where that has no degrees of freedom."""

    group: str
    measure: str
    people: int
    figure: float
    se: float
    df: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Growth:
    """How much further off its target a figure is than the champion's; `p` is one-sided, for more than `margin`."""

    group: str
    measure: str
    growth: float
    margin: float
    se: float
    p: float


def take_measures(foretold: Foretold, spec: FeatureSpec) -> list[Measure]:
    """Coverage of all hidden answers, and the bias of each scale's expected total where answers to it are hidden."""
    person, people = foretold.person, foretold.people
    asked = sum_by(person, np.ones(len(person)), people)
    found = [Measure("coverage", sum_by(person, foretold.inside, people), asked, COVERAGE, WORST_COVERAGE)]
    for scale in spec.scales:
        member = np.isin(foretold.item, [spec.columns.index(key) for key in scale.items])
        if not member.any():
            continue
        rows, place = np.unique(foretold.row[member], return_inverse=True)
        errors = scale.multiply * sum_by(place, foretold.error[member], len(rows))
        above, below = (sum_by(rows % people, column, people) for column in (errors, np.ones(len(rows))))
        margin = WORST_BIAS * math.sqrt(float(np.square(errors).mean()))
        found.append(Measure(f"{scale.key}_expected", above, below, 0.0, margin))
    return found


def sum_by(place: Integers, values: Floats, count: int) -> Floats:
    """Sums (count) of values by their place."""
    return np.asarray(np.bincount(place, values, count), dtype=np.float64)


def describe_groups(measures: Sequence[Measure], groups: Mapping[str, Members], design: Design) -> list[GroupFigure]:
    """Everybody and each group of people enough, measure by measure."""
    found = []
    for measure in measures:
        for name, member in {"all": np.ones(len(design.weights), dtype=bool), **groups}.items():
            people = count_people(measure, member, design)
            if people >= FEWEST_IN_COHORT or (name == "all" and people):
                ratio = design.estimate_ratio(measure.above * member, measure.below * member)
                found.append(GroupFigure(name, measure.name, people, *ratio))
    return found


def compare_fairness(
    new: Sequence[Measure], old: Sequence[Measure], groups: Mapping[str, Members], design: Design
) -> list[Growth]:
    """Paired, on the same hidden answers; `old` measures set the margins. Groups of too few people are left out."""
    found = []
    for ours, theirs in zip(new, old, strict=True):
        for name, member in groups.items():
            if count_people(theirs, member, design) < FEWEST_IN_COHORT:
                continue
            below = ours.below * member
            gaps = [design.estimate_ratio(part.above * member, below)[0] - part.target for part in (ours, theirs)]
            growth = abs(gaps[0]) - abs(gaps[1])
            signs = np.sign(gaps)
            _, se, df, _, _ = design.estimate_ratio((signs[0] * ours.above - signs[1] * theirs.above) * member, below)
            found.append(
                Growth(name, ours.name, growth, theirs.margin, se, judge_excess(growth, theirs.margin, se, df))
            )
    return found


def find_unfairness(growths: Sequence[Growth]) -> list[str]:
    """A sentence for each group whose figure is surely further off than the champion's by more than the margin."""
    adjusted = adjust_holm([growth.p for growth in growths])
    return [
        f"{growth.measure} is further off than the champion's for {growth.group} by {growth.growth:.3f}, more than "
        f"{growth.margin:.3f} (adjusted p {p:.4f})"
        for growth, p in zip(growths, adjusted, strict=True)
        if not p >= SIGNIFICANCE
    ]


def judge_excess(value: float, margin: float, se: float, df: int) -> float:
    """One-sided p for a value above the margin: without a spread the value decides, without df nothing is sure."""
    if not math.isfinite(value):
        return 0.0
    if se <= 0:
        return float(value <= margin)
    return float(stats.t.sf((value - margin) / se, df)) if df > 0 else 1.0


def count_people(measure: Measure, member: Members, design: Design) -> int:
    return int(((measure.below > 0) & member & (design.weights > 0)).sum())
