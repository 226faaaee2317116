"""The model card's section on fairness: how predictions serve each cohort, and items that cohorts answer otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from markupsafe import Markup

from jobs.card_charts import draw_effects, draw_expected
from jobs.card_parts import (
    Measurements,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
    chance,
    interval,
    number,
    percent,
    say,
)
from jobs.report_charts import Mark, Span, draw_forest
from model.describe import MATCHING
from model.differential import FEWEST_IN_GROUP, LARGE, MODERATE, ItemFinding
from model.fairness import FEWEST_IN_COHORT
from model.multiplicity import SIGNIFICANCE
from model.predicting import COVERAGE

MOST_DRAWN = 12  # items with curves: the largest differences
SHOWN = (-3.0, 4.0)  # levels of the trait that curves are drawn at, in sds


def show_fairness(m: Measurements) -> Section | None:
    """None for a codebook without cohorts."""
    if not m.book.cohorts:
        return None
    figures = m.gate["measures"].get("fairness", []) if m.gate else []
    return Section("fairness", "Fairness between cohorts", [
        say("No profile is made from a person's cohort: the model sees answers alone. Whether it serves every cohort "
            "alike is therefore measured from outside. All intervals and tests are design-based (strata, PSUs and "
            "weights)."),
        *(_show_predictions(m, figures) if figures else []),
        *_show_items(m),
    ])  # fmt: skip


def _show_predictions(m: Measurements, figures: Sequence[Mapping[str, Any]]) -> list[Words | Table | Pictures]:
    pictures, tables = [], []
    for measure, found in groupby(figures, key=lambda figure: figure["measure"]):
        group = list(found)
        pictures.append(_draw_measure(m, measure, group))
        head = ["Group", "People", "Percent" if measure == "coverage" else "Points", "95 % interval"]
        tables.append(Table(f"{_label_measure(m, measure)}.", head, [_list_figure(m, figure) for figure in group]))
    return [
        say("A fifth of the answers of held-out people were hidden and foretold from those that were left. The first "
            f"picture has the share of them in the middle {percent(COVERAGE, 0)} of what was foretold, which should be "
            "that share in every cohort. The others have how much the expected total of a scale was too high (right) "
            "or too low (left) on average, in points of the scale: 0 in every cohort is fair. Bars are 95 % "
            f"intervals. Groups of fewer than {FEWEST_IN_COHORT} held-out people are left out."),
        Pictures(pictures),
        *tables,
    ]  # fmt: skip


def _label_measure(m: Measurements, measure: str) -> str:
    if measure == "coverage":
        return "Hidden answers covered"
    key = measure.removesuffix("_expected")
    label = next((scale.label for scale in m.book.scales if scale.key == key), "") or key
    return f"{label}: bias of the expected total, in points"


def _label_group(m: Measurements, name: str) -> str:
    cohort, _, group = name.partition("=")
    return m.label_group(cohort, group) if group else "Everybody"


def _draw_measure(m: Measurements, measure: str, figures: list[Mapping[str, Any]]) -> Picture:
    """Everybody, then each cohort's groups under its name."""
    marks: list[Mark] = []
    share = measure == "coverage"
    for cohort, found in groupby(figures, key=lambda figure: figure["group"].partition("=")[0]):
        if cohort != "all":
            marks.append(Mark(m.label_cohort(cohort)))
        for figure in found:
            text = percent(figure["figure"]) if share else number(figure["figure"])
            marks.append(Mark(_label_group(m, figure["group"]), figure["low"], figure["figure"], figure["high"], text))
    target = COVERAGE if share else 0.0
    ends = [value for f in figures for value in (f["low"], f["figure"], f["high"]) if value is not None] + [target]
    room = max(0.05 * (max(ends) - min(ends)), 1e-6)
    high = min(1.0, max(ends) + room) if share else max(ends) + room
    span = Span(min(ends) - room, high, ".0%" if share else ".2f", (target, target, target))
    title = _label_measure(m, measure)
    alt = "; ".join(f"{mark.label} {mark.text}" for mark in marks if mark.text is not None)
    return Picture(title, draw_forest(marks, span, f"fair-{measure}").svg, f"{alt}.")


def _list_figure(m: Measurements, figure: Mapping[str, Any]) -> list[str]:
    cohort, _, group = figure["group"].partition("=")
    label = f"{m.label_cohort(cohort)}: {m.label_group(cohort, group)}" if group else "Everybody"
    unit, digits = (100, 1) if figure["measure"] == "coverage" else (1, 2)
    value, low, high = (None if figure[name] is None else unit * figure[name] for name in ("figure", "low", "high"))
    return [label, f"{figure['people']:,}", number(value, digits), interval(low, high, digits)]


def _show_items(m: Measurements) -> Iterator[Words | Table | Pictures]:
    tested = [finding for finding in m.findings if finding.p is not None]
    flagged = sorted((f for f in tested if f.verdict), key=lambda f: -abs(f.effect))
    yield say(
        "Differential item functioning: do people of the same trait answer an item alike, whatever their cohort? Each "
        "item is regressed on the trait, as the person's other answers tell it, on the group and on both together "
        "(ordinal logistic regression: Zumbo 1999; Choi, Gibbons and Crane 2011). Each group has a distribution of the "
        "trait of its own, so that a true difference between groups is not taken for one of the item. Items that "
        "differ are left out of the matching of the others, until no more do. An item is flagged where the test is "
        f"sure (p below {SIGNIFICANCE:g} after Benjamini and Hochberg's adjustment over all items and cohorts) and the "
        f"difference matters: above {MODERATE:g} sds of the item it is moderate, above {LARGE:g} large (Zwick, Thayer "
        "and Mazzeo 1997). This is a property of the questionnaire and the population, not of the model alone: it is "
        "shown and refuses no model. A flag asks for a look at the item's wording; it is no proof of bias."
    )
    if not tested:
        yield say(
            f"No item could be tested: a cohort needs two groups of {FEWEST_IN_GROUP} people or more who answered."
        )
        return
    yield say(
        f"{len(flagged)} of {len(tested)} pairs of an item and a cohort are flagged."
        + ("" if flagged else " No item differs by more than chance and by enough to matter.")
    )
    yield Pictures([_draw_cohort(m, key, found) for key, found in _gather_cohorts(m, tested)])
    if flagged:
        yield Pictures([_draw_finding(m, finding) for finding in flagged[:MOST_DRAWN]])
    shown = sorted(tested, key=lambda f: (f.verdict is None, -abs(f.effect)))
    likely = [finding for finding in shown if abs(finding.effect) > MODERATE or (finding.adjusted or 1) < SIGNIFICANCE]
    if likely:
        yield Table(
            "Items and cohorts with a difference that is sure, or large enough to matter: expected score less that of "
            "the reference, averaged over the group's own people. Both p of a difference are adjusted; non-uniform is "
            "whether it hangs on the trait (not adjusted).",
            ["Item, and group beside the reference", "Points", "Sds", "p", "p, non-uniform", "p, likelihood ratio",
             "R² change", "Verdict"],
            [_list_finding(m, finding) for finding in likely],
        )  # fmt: skip
    untested = len(m.findings) - len(tested)
    yield say(
        "All figures stand in fairness.json beside this card."
        + (
            f" {untested} pairs could not be tested: too few people, or answers that vary too little."
            if untested
            else ""
        )
        + " R² change is McFadden's, which lordif flags from 0.02."
    )


def _gather_cohorts(m: Measurements, tested: Sequence[ItemFinding]) -> Iterator[tuple[str, list[ItemFinding]]]:
    for cohort in m.book.cohorts:
        if found := [finding for finding in tested if finding.cohort == cohort.key]:
            yield cohort.key, found


def _draw_cohort(m: Measurements, key: str, found: list[ItemFinding]) -> Picture:
    """A row an item, a mark a group: how far from the reference it answers."""
    reference = m.label_group(key, found[0].groups[0].group)
    names = sorted({group.group for finding in found for group in finding.groups[1:]})
    order = [group for cohort in m.book.cohorts if cohort.key == key for group in cohort.groups if group in names]
    rows = [
        (m.label_item(f.item).split(": ", 1)[-1], f.verdict is not None, {g.group: g.effect for g in f.groups[1:]})
        for f in found
    ]
    svg = draw_effects(rows, [(name, m.label_group(key, name)) for name in order], (MODERATE, LARGE), f"dif-{key}")
    most = max(found, key=lambda finding: abs(finding.effect))
    alt = f"The largest difference is {number(most.effect)} sds, of {m.label_item(most.item)}."
    return Picture(f"{m.label_cohort(key)}: difference from {reference} at the same trait, in sds of the item",
                   Markup(svg), alt)  # fmt: skip


def _draw_finding(m: Measurements, finding: ItemFinding) -> Picture:
    theta = np.linspace(*MATCHING)
    shown = (theta >= SHOWN[0]) & (theta <= SHOWN[1])
    lines = [(m.label_group(finding.cohort, group.group), np.array(group.expected)[shown]) for group in finding.groups]
    svg = draw_expected(theta[shown], lines, f"dif-{finding.cohort}-{finding.item}")
    title = f"{m.label_item(finding.item)}, by {m.label_cohort(finding.cohort)}: expected score"
    group = max(finding.groups, key=lambda group: abs(group.effect))
    alt = f"{m.label_group(finding.cohort, group.group)}: {number(group.difference)} points from the reference."
    return Picture(title, Markup(svg), alt)


def _list_finding(m: Measurements, finding: ItemFinding) -> list[str]:
    group = max(finding.groups, key=lambda group: abs(group.effect))
    names = [m.label_group(finding.cohort, part.group) for part in (group, finding.groups[0])]
    return [
        f"{m.label_item(finding.item)} ({m.label_cohort(finding.cohort)}: {names[0]} beside {names[1]})",
        number(group.difference), number(group.effect), chance(finding.adjusted), chance(finding.p_slope),
        chance(finding.model_adjusted), number(finding.r2_change, 3), finding.verdict or "none",
    ]  # fmt: skip
