"""Differential item functioning: whether people of the same trait answer an item alike, whatever their cohort.

Each item of a trait is regressed on the trait, as the person's other answers tell it, and on the group: an ordinal
logistic regression (Zumbo 1999; Crane, Gibbons, Jolley & van Belle 2006; Choi, Gibbons & Crane 2011). Items that differ
leave the matching of the others, until no more do. Beside it stands the model's own likelihood ratio. Both tests are
design-based. An item is flagged where the test is sure and the difference large enough to matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.design import Design, judge_working_wald
from model.item_curves import GroupCurves, compare_curves
from model.matching import Evidence, TraitItems
from model.multiplicity import SIGNIFICANCE, adjust_false_discoveries
from model.proportional_odds import NoFit, fit_proportional_odds

FEWEST_IN_GROUP = 200  # people (Zumbo 1999)
FEWEST_IN_CATEGORY = 5  # of any group: rarer answers join their neighbour's (Choi and others 2011)
FEWEST_ITEMS = 3  # of a trait: of two, none can be told to be the odd one
MOST_ROUNDS = 10
# Difference in expected score, in sds of the item: "moderate" and "large" of the rule that the Educational Testing
# Service has for polytomous items (Zwick, Thayer & Mazzeo 1997).
MODERATE, LARGE = 0.17, 0.25

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GroupEffect:
    """How a group answers beside the reference group, the trait being the same.

    `difference` in points of the item and `effect` in its sds are averages over the group's own people; `expected` is
    the group's expected score at `TraitItems.theta`.
    """

    group: str
    people: int
    difference: float
    effect: float
    expected: list[float]


@dataclass(frozen=True)
class ItemFinding:
    """One item and one cohort. `reason` says why there are no figures.

    `p` is of any difference between groups, `p_slope` of one that hangs on the trait (non-uniform), `p_model` that of
    the model's likelihood ratio; `adjusted` and `model_adjusted` allow for all tests of a report. `r2_change` is
    McFadden's. `purified` items were left out of the matching of the others. `groups` begin with the reference.
    """

    trait: str
    item: str
    cohort: str
    people: int = 0
    df: int = 0
    p: float | None = None
    p_slope: float | None = None
    p_model: float | None = None
    r2_change: float | None = None
    groups: tuple[GroupEffect, ...] = ()
    purified: bool = False
    adjusted: float | None = None
    model_adjusted: float | None = None
    reason: str | None = None

    @property
    def effect(self) -> float:
        """The largest of the groups' effects, with its sign; 0 where there are none."""
        return max((group.effect for group in self.groups), key=abs, default=0.0)

    @property
    def verdict(self) -> str | None:
        """`moderate` or `large` for a flagged item, else None."""
        if self.adjusted is None or self.adjusted >= SIGNIFICANCE or abs(self.effect) <= MODERATE:
            return None
        return "large" if abs(self.effect) > LARGE else "moderate"


def examine_items(
    traits: Sequence[tuple[TraitItems, Integers]], cohorts: Mapping[str, Sequence[str | None]], design: Design
) -> list[ItemFinding]:
    """Every item of every trait by every cohort; `traits` have the people's categories (N, J), `cohorts` their groups.

    Benjamini & Hochberg's (1995) adjustment runs over all of them, as Thissen, Steinberg & Kuang (2002) have it for
    this very use: a report is a screening, of which a share of false flags is borne, and a missed item is the worse.
    """
    found = [
        finding
        for items, categories in traits
        for cohort, labels in cohorts.items()
        for finding in examine_trait(items, categories, cohort, labels, design)
    ]
    tested = [place for place, finding in enumerate(found) if finding.p is not None]
    adjusted = adjust_false_discoveries([found[place].p or 0.0 for place in tested])
    by_model = adjust_false_discoveries([found[place].p_model or 0.0 for place in tested])
    for place, p, p_model in zip(tested, adjusted, by_model, strict=True):
        found[place] = replace(found[place], adjusted=p, model_adjusted=p_model)
    return found


def examine_trait(
    items: TraitItems, categories: Integers, cohort: str, labels: Sequence[str | None], design: Design
) -> list[ItemFinding]:
    """The items of one trait by one cohort, after purification; adjusted among themselves."""
    blank = [ItemFinding(items.trait, key, cohort) for key in items.keys]
    if len(items.keys) < FEWEST_ITEMS:
        return [replace(finding, reason="too few items to match people by") for finding in blank]
    groups = choose_groups(categories, labels, design)
    if len(groups) < 2:
        return [replace(finding, reason="too few people") for finding in blank]
    number = {name: place for place, name in enumerate(groups)}
    group = np.array([number.get(label or "", -1) for label in labels])
    chosen = (group >= 0) & (design.weights > 0) & (categories >= 0).any(axis=1)
    cells = _Cells(items, categories[chosen], groups, group[chosen], design.take(chosen), cohort)
    anchors = np.ones(len(items.keys), dtype=bool)
    seen: list[Members] = []
    found = cells.examine(anchors)
    while len(seen) < MOST_ROUNDS:
        seen.append(anchors)
        anchors = choose_anchors(found)
        if any((anchors == before).all() for before in seen):
            break
        found = cells.examine(anchors)
    return found


def choose_groups(categories: Integers, labels: Sequence[str | None], design: Design) -> list[str]:
    """Groups with enough people who answered, the largest first: it is the reference."""
    answered = (design.weights > 0) & (categories >= 0).any(axis=1)
    names, counts = np.unique([label or "" for label, keep in zip(labels, answered, strict=True) if keep],
                              return_counts=True)  # fmt: skip
    enough = [(-count, name) for name, count in zip(names.tolist(), counts.tolist(), strict=True)
              if name and count >= FEWEST_IN_GROUP]  # fmt: skip
    return [name for _, name in sorted(enough)]


def choose_anchors(found: Sequence[ItemFinding]) -> Members:
    """Who may be matched by: unflagged items; where those are fewer than half, the half that differs least."""
    anchors = np.array([finding.verdict is None for finding in found])
    least = max(FEWEST_ITEMS, (len(found) + 1) // 2)
    if anchors.sum() >= least:
        return anchors
    order = np.argsort([abs(finding.effect) for finding in found], kind="stable")
    anchors[:] = False
    anchors[order[:least]] = True
    return anchors


@dataclass(frozen=True)
class _Cells:
    """People of the groups compared, with their answers (N, J), the number of their group (N), and their design."""

    items: TraitItems
    categories: Integers
    names: Sequence[str]
    group: Integers
    design: Design
    cohort: str

    def examine(self, anchors: Members) -> list[ItemFinding]:
        """Matched by the items of `anchors` (J); adjusted among themselves."""
        evidence = Evidence.of(self.items, self.categories, self.group, self.design.weights)
        found = []
        for place, (key, posterior) in enumerate(zip(self.items.keys, evidence.match_all(anchors), strict=True)):
            others = anchors.copy()
            others[place] = False
            finding = ItemFinding(self.items.trait, key, self.cohort, purified=not anchors[place])
            try:
                found.append(self._examine_item(place, posterior, others, finding))
            except NoFit:
                found.append(replace(finding, reason="the answers vary too little"))
        tested = [place for place, finding in enumerate(found) if finding.p is not None]
        for place, p in zip(tested, adjust_false_discoveries([found[place].p or 0.0 for place in tested]), strict=True):
            found[place] = replace(found[place], adjusted=p)
        return found

    def _examine_item(self, place: int, posterior: Floats, others: Members, finding: ItemFinding) -> ItemFinding:
        """Raises NoFit."""
        answers = self.categories[:, place]
        known = (answers >= 0) & (self.categories[:, others] >= 0).any(axis=1)
        group, design, posterior = self.group[known], self.design.take(known), posterior[known]
        if np.bincount(group, minlength=len(self.names)).min() < FEWEST_IN_GROUP:
            return replace(finding, reason="too few people answered it")
        joined = join_categories(answers[known], group, self.items.sizes[place])
        if joined.max() < 1:
            return replace(finding, reason="the answers vary too little")
        scores = np.array([
            np.average(self.items.scores[place][answers[known][joined == category]],
                       weights=design.weights[joined == category])
            for category in range(int(joined.max()) + 1)
        ])  # fmt: skip
        regression = regress_answers(joined, posterior @ self.items.theta, group, design)
        curves = compare_curves(joined, posterior, self.items.theta, group, design)
        return replace(
            finding,
            people=len(group),
            df=regression.df,
            p=regression.p,
            p_slope=regression.p_slope,
            p_model=curves.p,
            r2_change=regression.r2_change,
            groups=self._compare_groups(curves, scores, scores[joined], posterior, group, design),
        )

    def _compare_groups(
        self, curves: GroupCurves, scores: Floats, answered: Floats, posterior: Floats, group: Integers, design: Design
    ) -> tuple[GroupEffect, ...]:
        mean = np.average(answered, weights=design.weights)
        sd = float(np.sqrt(np.average(np.square(answered - mean), weights=design.weights)))
        expected = [curve.probability(self.items.theta) @ scores for curve in curves.curves]
        effects = []
        for number, name in enumerate(self.names):
            member = group == number
            own = design.weights[member] @ posterior[member] / design.weights[member].sum()
            difference = float(own @ (expected[number] - expected[0]))
            told = [round(float(value), 4) for value in expected[number]]
            effects.append(GroupEffect(name, int(member.sum()), difference, difference / sd, told))
        return tuple(effects)


def join_categories(answers: Integers, group: Integers, size: int) -> Integers:
    """Answers (N) as categories 0, 1, ... that FEWEST_IN_CATEGORY of every group chose; neighbours join from above."""
    counts = np.stack([np.bincount(answers[group == number], minlength=size) for number in np.unique(group)])
    starts, gathered = [], np.zeros(len(counts))
    for category in range(size - 1, -1, -1):
        gathered += counts[:, category]
        if gathered.min() >= FEWEST_IN_CATEGORY:
            starts.append(category)
            gathered[:] = 0
    if not starts:
        return np.zeros(len(answers), dtype=np.int64)
    # What is left below joins the lowest category that is frequent enough.
    return np.searchsorted(np.array(starts[::-1][1:], dtype=np.int64), answers, side="right")


@dataclass(frozen=True)
class Regression:
    """p of group and group x trait together, of the latter alone, McFadden's R2 change, and the design's df."""

    p: float
    p_slope: float
    r2_change: float
    df: int


def regress_answers(answers: Integers, matched: Floats, group: Integers, design: Design) -> Regression:
    """Answers (N) by the trait (N), the group and their product; the first group is the reference. Raises NoFit."""
    weights = design.weights / design.weights.mean()
    centred = matched - np.average(matched, weights=weights)
    own = (group[:, None] == np.arange(1, int(group.max()) + 1)).astype(np.float64)
    covariates = np.column_stack([centred, own, own * centred[:, None]])
    plain = fit_proportional_odds(answers, covariates[:, :1], weights)
    zeros = np.zeros(covariates.shape[1] - 1)
    full = fit_proportional_odds(answers, covariates, weights, np.insert(plain.parameters, 1, zeros))
    null = np.bincount(answers, weights) / weights.sum()
    change = (full.log_likelihood - plain.log_likelihood) / -float(weights @ np.log(null)[answers])
    df, groups = design.count_df(np.ones(len(answers), dtype=bool)), own.shape[1]
    covariance = full.working @ design.spread(full.scores) @ full.working
    p, p_slope = (
        judge_working_wald(full.parameters[part], covariance[part, part], full.working[part, part], df)
        for part in (slice(1, 1 + 2 * groups), slice(1 + groups, 1 + 2 * groups))
    )
    return Regression(p, p_slope, change, df)
