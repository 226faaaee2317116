"""The report's pictures of single figures and of groups: a forest of intervals, a ruler, a hundred people."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from jobs.charts import (
    BAND,
    FONT,
    GRID,
    INK,
    MUTED,
    SERIES,
    TINTS,
    Picture,
    draw_picture,
    draw_svg,
    fix_at,
    hold_values,
    place_at,
    when_current,
)

LABELS, PLOT, FIGURES = 104, 122, 114  # a panel is 340 wide: a telephone's width, less its margins
ROW, HEADING, TOP, AXIS = 24, 30, 6, 26
LABEL_LETTERS = 15
TALLER = 0.4  # room of a second line, in rows


@dataclass(frozen=True)
class Mark:
    """One estimate: its row's label, its figures, their text (or the word in their place); a heading has no text."""

    label: str
    low: float | None = None
    estimate: float | None = None
    high: float | None = None
    text: str | None = None
    tip: str = ""


@dataclass(frozen=True)
class Span:
    """What an axis of values shows: its ends, its number format, and the whole population's interval."""

    low: float
    high: float
    format: str
    whole: tuple[float, float, float] | None = None


def wrap_label(label: str) -> list[str]:
    """A label in one line or two; Chinese letters are twice as wide."""
    wide = any(ord(letter) > 0x2E7F for letter in label)
    return textwrap.wrap(label, LABEL_LETTERS // 2 if wide else LABEL_LETTERS, max_lines=2, placeholder="…")


def draw_forest(marks: Sequence[Mark], span: Span, name: str) -> Picture:
    """Dots and intervals, a row each, under their headings; what is not shown is a hollow mark with its word."""
    rows: list[dict[str, Any]] = []
    y = float(TOP)
    for mark in marks:
        lines = wrap_label(mark.label) if mark.text is not None else [mark.label]
        tall = HEADING if mark.text is None else ROW * (1 + TALLER * (len(lines) - 1))
        row: dict[str, Any] = {"y": round(y + tall * (0.65 if mark.text is None else 0.5), 1), "lines": lines}
        rows.append(row | {"text": mark.text, "tip": mark.tip})
        rows[-1] |= {"low": mark.low, "estimate": mark.estimate, "high": mark.high}
        y += tall
    figures = [row | {"i": i} for i, row in enumerate(row for row in rows if row["text"] is not None)]
    headings = [{"y": row["y"], "text": row["lines"][0]} for row in rows if row["text"] is None]
    height = round(y)
    x = alt.Scale(domain=[span.low, span.high], range=[0, PLOT], nice=False, zero=False)
    bold = alt.Chart(hold_values(headings)).mark_text(
        align="left", baseline="middle", color=INK, fontSize=12, fontWeight="bold", font=FONT
    )
    layers = [
        *_draw_frame(span, x, height),
        bold.encode(x=fix_at("x", -LABELS), y=place_at("y"), text=alt.Text("text:N")),
        draw_labels([{"y": row["y"], "lines": row["lines"]} for row in figures]),
        *_draw_intervals(figures, x),
        *_draw_words(figures),
    ]
    return draw_picture(alt.layer(*layers), PLOT, height, (LABELS, FIGURES, AXIS), name)


def _draw_frame(span: Span, x: alt.Scale, height: int) -> list[alt.Chart]:
    axis = alt.Axis(
        format=span.format, tickCount=3, grid=True, gridColor=GRID, domainColor=MUTED, tickColor=MUTED, title=None,
        labelColor=MUTED, labelFontSize=11, labelFont=FONT, labelFlush=False, labelOverlap=False, labelBound=False,
    )  # fmt: skip
    ends = hold_values([{"low": span.low}])
    frame = [alt.Chart(ends).mark_point(opacity=0).encode(x=alt.X("low:Q", scale=x, axis=axis), y=fix_at("y", height))]
    if span.whole:
        whole = hold_values([dict(zip(("low", "estimate", "high"), span.whole, strict=True))])
        base = alt.Chart(whole)
        edges: Any = {"y": fix_at("y", 0), "y2": fix_at("y2", height)}
        frame.append(base.mark_rect(color=BAND).encode(x=alt.X("low:Q", scale=x), x2=alt.X2("high:Q"), **edges))
        line = base.mark_rule(color=MUTED, strokeDash=[4, 3])
        frame.append(line.encode(x=alt.X("estimate:Q", scale=x), **edges))
    return frame


def draw_labels(labels: list[dict[str, Any]], dx: int = -10) -> alt.Chart:
    """Rows' labels at the left of the plot."""
    # Two lines are drawn around the row's middle, which Vega does not do by itself.
    placed = [label | {"y": label["y"] - 6.5 * (len(label["lines"]) - 1)} for label in labels]
    text = alt.Chart(hold_values(placed)).mark_text(
        align="right", baseline="middle", dx=dx, color=INK, fontSize=12, lineHeight=13, font=FONT
    )
    labelled: alt.Chart = text.encode(x=fix_at("x", 0), y=place_at("y"), text=alt.Text("lines:N"))
    return labelled


def _draw_intervals(figures: list[dict[str, Any]], x: alt.Scale) -> list[alt.Chart]:
    shown = [row for row in figures if row["estimate"] is not None]
    hidden = [row for row in figures if row["estimate"] is None]
    bounded = [row for row in shown if row["low"] is not None and row["high"] is not None]
    layers = []
    if bounded:
        rule = alt.Chart(hold_values(bounded)).mark_rule(color=SERIES[0], strokeCap="round")
        encoded = when_current("strokeWidth", 4, 2)
        layers.append(rule.encode(x=alt.X("low:Q", scale=x), x2=alt.X2("high:Q"), y=place_at("y"), **encoded))
    if shown:
        dot = alt.Chart(hold_values(shown)).mark_point(filled=True, color=SERIES[0], opacity=1)
        layers.append(dot.encode(x=alt.X("estimate:Q", scale=x), y=place_at("y"), **when_current("size", 150, 64)))
    if hidden:
        ring = alt.Chart(hold_values(hidden)).mark_point(filled=False, color=SERIES[0], opacity=1)
        layers.append(ring.encode(x=fix_at("x", 8), y=place_at("y"), **when_current("size", 120, 46)))
    return layers


def _draw_words(figures: list[dict[str, Any]]) -> list[alt.Chart]:
    """The figures at the right; the word of what is not shown at its mark."""
    hidden = [row for row in figures if row["estimate"] is None]
    shown = [row for row in figures if row["estimate"] is not None]
    words = alt.Chart(hold_values(hidden)).mark_text(
        align="left", baseline="middle", color=MUTED, fontSize=11, fontStyle="italic", font=FONT
    )
    texts = alt.Chart(hold_values(shown)).mark_text(align="right", baseline="middle", color=INK, fontSize=11, font=FONT)
    placed = {"y": place_at("y"), "text": alt.Text("text:N")}
    return [words.encode(x=fix_at("x", 18), **placed), texts.encode(x=fix_at("x", PLOT + FIGURES), **placed)]


def draw_ruler(bands: Sequence[tuple[float, float]], mark: Mark, worse_up: bool, name: str) -> Picture:
    """A score's whole range, its bands from better (pale) to worse (dark), and the population's mean upon it."""
    width, top, bottom = 280, 18, 34
    low, high = bands[0][0], bands[-1][1]
    x = alt.Scale(domain=[low, high], range=[0, width], nice=False, zero=False)
    pale_to_dark = [TINTS[round(i * (len(TINTS) - 1) / max(1, len(bands) - 1))] for i in range(len(bands))]
    tints = pale_to_dark if worse_up else pale_to_dark[::-1]
    layers = []
    for (start, end), tint in zip(bands, tints if len(bands) > 1 else [TINTS[1]], strict=True):
        box = alt.Chart(hold_values([{"a": start, "b": end}])).mark_rect(color=tint)
        edges: Any = {"y": fix_at("y", top), "y2": fix_at("y2", bottom)}
        layers.append(box.encode(x=alt.X("a:Q", scale=x, axis=None), x2=alt.X2("b:Q"), **edges))
    ticks = [{"x": start, "text": f"{start:g}"} for start, _ in bands] + [{"x": high, "text": f"{high:g}"}]
    text = alt.Chart(hold_values(ticks)).mark_text(baseline="top", color=MUTED, fontSize=11, font=FONT)
    layers.append(text.encode(x=alt.X("x:Q", scale=x), y=fix_at("y", bottom + 5), text=alt.Text("text:N")))
    if mark.estimate is not None:
        point = hold_values([{"x": mark.estimate, "a": mark.low, "b": mark.high}])
        line = alt.Chart(point).mark_rule(color=INK, strokeWidth=2)
        layers.append(line.encode(x=alt.X("x:Q", scale=x), y=fix_at("y", top - 4), y2=fix_at("y2", bottom)))
        head = alt.Chart(point).mark_point(shape="triangle-down", filled=True, color=INK, size=90, opacity=1)
        layers.append(head.encode(x=alt.X("x:Q", scale=x), y=fix_at("y", top - 9)))
        if mark.low is not None and mark.high is not None:
            bar = alt.Chart(point).mark_rule(color=INK, strokeWidth=4)
            layers.append(bar.encode(x=alt.X("a:Q", scale=x), x2=alt.X2("b:Q"), y=fix_at("y", (top + bottom) / 2)))
    return Picture(Markup(draw_svg(alt.layer(*layers), width, bottom, (8, 12, 20), name)))


def draw_hundred(share: float | None, name: str) -> Picture:
    """A hundred people, as many of them filled as the share says; all hollow where it is not shown."""
    per_row, step = 20, 15
    filled = 0 if share is None else round(100 * share)
    people = [{"x": step * (i % per_row + 0.5), "y": step * (i // per_row + 0.5), "in": i < filled} for i in range(100)]
    layers = []
    for inside, colour in ((True, SERIES[0]), (False, GRID)):
        chosen = hold_values([p for p in people if p["in"] == inside])
        dot = alt.Chart(chosen).mark_point(shape="circle", filled=share is not None, size=110, color=colour, opacity=1)
        layers.append(dot.encode(x=place_at("x"), y=place_at("y")))
    return Picture(Markup(draw_svg(alt.layer(*layers), per_row * step, step * 100 // per_row, (0, 0, 0), name)))
