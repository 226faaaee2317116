"""The model card's sections on measurement: item parameters, curves and information, trait correlations."""

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from jobs.card_charts import draw_correlations, draw_information, draw_item
from jobs.card_parts import Measurements, Picture, Pictures, Section, Table, Words, number, percent, say
from jobs.report_charts import Mark, Span, draw_forest
from model.describe import ItemParameters, TraitCurves

Floats = npt.NDArray[np.float64]

MOST_DRAWN = 60  # items: a page of more pictures is slow, and nobody looks at them all
FEW_TRAITS = 5  # whose correlations a narrow picture holds
BEYOND = "beyond ±8"
LEVELS = (-2, -1, 0, 1, 2, 3)  # trait sds that tables show


def show_items(m: Measurements) -> Section:
    blocks: list[Words | Table | Pictures] = [
        say(
            "A threshold is the trait level at which an answer at or above the category becomes as likely as one "
            "below. The discrimination a is the slope of that probability's logit there, per sd of the trait, "
            "averaged over the item's thresholds. Both are averages over the residual latents. The loading is the "
            "correlation of the trait with the response that underlies the item (a / √(a² + π²/3) where there are no "
            "residuals); the residual share is that part of the underlying variance which belongs to what items "
            "share beyond the trait."
        )
    ]
    for trait in m.spec.traits:
        items = [item for item in m.items if item.trait == trait.key]
        most = max(len(item.thresholds) for item in items)
        head = ["Item", "a", *(f"Threshold {k}" for k in range(1, most + 1)), "Loading", "Residual share", "Unanswered"]
        label = m.label_trait(trait.key)
        blocks += [
            *([Pictures([_draw_loadings(m, label, items)])] if len(items) <= MOST_DRAWN else []),
            Table(f"{label}: item parameters.", head, [_list_item(m, item, most) for item in items]),
        ]
    if flipped := [item.key for item in m.items if item.flipped]:
        names = ", ".join(flipped)
        blocks.append(
            say(f"Turned round, so that higher means more distress (first category: highest score): {names}.")
        )
    if loose := [item.key for item in m.items if item.trait is None]:
        blocks.append(say(f"Without a named trait, and so without these figures: {', '.join(loose)}."))
    return Section("items", "Items and loadings", blocks)


def _draw_loadings(m: Measurements, label: str, items: list[ItemParameters]) -> Picture:
    marks = [
        Mark(m.label_item(item.key).split(": ", 1)[-1], None, item.loading, None, number(item.loading))
        for item in items
    ]
    drawn = draw_forest(_part_labels(marks), Span(0.0, 1.0, ".1f"), f"loadings-{items[0].trait}")
    alt = "; ".join(f"{mark.label} {mark.text}" for mark in marks)
    return Picture(f"{label}: standardised loadings", drawn.svg, f"{alt}.")


def _part_labels(marks: list[Mark]) -> list[Mark]:
    """Two items may bear one label: a row each all the same."""
    seen: dict[str, int] = {}
    parted = []
    for mark in marks:
        seen[mark.label] = seen.get(mark.label, 0) + 1
        name = mark.label if seen[mark.label] == 1 else f"{mark.label} ({seen[mark.label]})"
        parted.append(Mark(name, mark.low, mark.estimate, mark.high, mark.text))
    return parted


def _list_item(m: Measurements, item: ItemParameters, most: int) -> list[str]:
    thresholds = [BEYOND if threshold is None else number(threshold) for threshold in item.thresholds]
    return [
        m.label_item(item.key), number(item.discrimination), *thresholds, *[""] * (most - len(thresholds)),
        number(item.loading), percent(item.residual_share), percent(m.data.unanswered[item.key]),
    ]  # fmt: skip


def show_curves(m: Measurements) -> Section:
    blocks: list[Words | Table | Pictures] = [
        say(
            "Each item's picture has the probability of every answer by trait level above, named by the answer's "
            "score, and the item's information below. All are averages over the residual latents: what holds for "
            "somebody of whom the trait alone is known. Test information adds the items up as if they were "
            "independent given the trait, so it is a little too high where residuals matter. The standard error is "
            "one over its square root; the grey shape is the population."
        )
    ]
    drawn = 0
    for curves in m.curves:
        label = m.label_trait(curves.trait)
        blocks.append(Pictures([_draw_test(label, curves)], wide=True))
        blocks.append(_tabulate(m, label, curves))
        room = range(min(len(curves.items), MOST_DRAWN - drawn))
        drawn += len(room)
        if room:
            blocks.append(Pictures([_draw_item(m, curves, item) for item in room]))
        if len(room) < len(curves.items):
            blocks.append(say(f"{len(curves.items) - len(room)} more items of {label} stand in the tables alone."))
    return Section("curves", "Characteristic and information curves", blocks)


def _draw_test(label: str, curves: TraitCurves) -> Picture:
    information = curves.test_information
    best = int(information.argmax())
    highest, level = number(float(information[best]), 1), number(float(curves.theta[best]), 1)
    alt = f"Test information is highest, {highest}, at {level} sd."
    svg = draw_information(curves, f"information-{curves.trait}")
    return Picture(f"{label}: test information (above) and its standard error in sd (below)", Markup(svg), alt)


def _draw_item(m: Measurements, curves: TraitCurves, item: int) -> Picture:
    key, theta = curves.items[item], curves.theta
    best = float(theta[int(curves.information[item].argmax())])
    alt = f"The item informs most at {number(best, 1)} sd, with {number(float(curves.information[item].max()))}."
    return Picture(m.label_item(key), Markup(draw_item(curves, item, f"item-{key}")), alt)


def _tabulate(m: Measurements, label: str, curves: TraitCurves) -> Table:
    """Information of items and test, its standard error and the expected sum at whole sds."""

    def read(values: Floats, digits: int = 2) -> list[str]:
        return [number(float(np.interp(level, curves.theta, values)), digits) for level in LEVELS]

    step = curves.theta[1] - curves.theta[0]
    mass = curves.density * step
    below = np.cumsum(mass) - mass / 2 + max(0.0, 1 - float(mass.sum())) / 2
    rows = [[m.label_item(key), *read(curves.information[i])] for i, key in enumerate(curves.items)]
    rows += [
        ["Test information", *read(curves.test_information)],
        ["Standard error, sd", *read(1 / np.sqrt(np.maximum(curves.test_information, 1e-9)))],
        ["Expected total", *read(curves.expected, 1)],
        ["Population below, %", *read(100 * below, 1)],
    ]
    head = ["Trait level, sd", *(number(level, 0) for level in LEVELS)]
    return Table(f"{label}: information of each item, and of the whole scale, by level of the trait.", head, rows)


def show_correlations(m: Measurements) -> Section | None:
    """None where there is one trait only."""
    if len(m.spec.traits) < 2:
        return None
    labels = [m.label_trait(trait.key) for trait in m.spec.traits]
    rows = [[label, *(number(float(value)) for value in m.correlations[i])] for i, label in enumerate(labels)]
    pairs = [
        f"{labels[i]} and {labels[j]} {number(float(m.correlations[i, j]))}"
        for i in range(len(labels))
        for j in range(i)
    ]
    svg = Markup(draw_correlations(labels, m.correlations, "correlations"))
    return Section("correlations", "Trait correlations", [
        say("Correlations of the traits themselves in the population, freed of measurement error. Sum scores and "
            "posterior means correlate differently."),
        Pictures([Picture("Trait correlations", svg, f"{'; '.join(pairs)}.")], wide=len(labels) > FEW_TRAITS),
        Table("Correlations of the traits.", ["Trait", *labels], rows),
    ])  # fmt: skip
