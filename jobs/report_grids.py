"""The report's pictures of many figures: a heat map, a trend over the releases, a trait's distributions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from jobs.charts import (
    FONT,
    GRID,
    HEAT,
    INK,
    MUTED,
    SERIES,
    Picture,
    draw_picture,
    fix_at,
    hold_values,
    place_at,
    when_current,
)
from jobs.report_charts import LABELS, Mark, Span, draw_labels, wrap_label

GRID_PLOT = 230  # beside the labels, in a panel of 340
SQUARE, HEAD = 34, 34
TREND_LEFT, TREND_PLOT, TREND_HEIGHT = 44, 284, 150
CURVE, CURVE_GAP, CURVE_FOOT = 34, 10, 22


@dataclass(frozen=True)
class Bin:
    """A bin's pixels across, from 0 to 1, and its share of people; None where it is withheld."""

    left: float
    right: float
    share: float | None
    tip: str


def draw_heat(rows: Sequence[str], columns: Sequence[str], marks: Sequence[Mark], span: Span, name: str) -> Picture:
    """A square a figure, `marks` row by row: the higher the stronger its colour; what is not shown has a word only."""
    wide = GRID_PLOT / len(columns)
    cells = []
    for i, mark in enumerate(marks):
        row, column = divmod(i, len(columns))
        cell: dict[str, Any] = {"i": i, "tip": mark.tip, "text": mark.text, "shown": mark.estimate is not None}
        cell |= {"x": round(column * wide + 1, 1), "x2": round((column + 1) * wide - 1, 1)}
        cell |= {"y": HEAD + row * SQUARE + 1, "y2": HEAD + (row + 1) * SQUARE - 1}
        if mark.estimate is not None:
            place = (mark.estimate - span.low) / (span.high - span.low) if span.high > span.low else 0.5
            cell["tint"] = HEAT[min(len(HEAT) - 1, max(0, int(place * len(HEAT))))]
        cells.append(cell)
    layers = []
    for tint in HEAT:
        if chosen := [cell for cell in cells if cell.get("tint") == tint]:
            layers.append(_draw_squares(chosen, color=tint, stroke=INK))
    if hidden := [cell for cell in cells if not cell["shown"]]:
        layers.append(_draw_squares(hidden, color="transparent", stroke=MUTED, strokeDash=[2, 2]))
    for shown in (True, False):
        texts = [
            {"x": (c["x"] + c["x2"]) / 2, "y": (c["y"] + c["y2"]) / 2, "text": c["text"]}
            for c in cells
            if c["shown"] == shown
        ]
        style: dict[str, Any] = {"color": INK, "fontSize": 12} if shown else {
            "color": MUTED, "fontSize": 11, "fontStyle": "italic"}  # fmt: skip
        text = alt.Chart(hold_values(texts)).mark_text(baseline="middle", font=FONT, tooltip=None, **style)
        layers.append(text.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N")))
    heads = [{"x": round((i + 0.5) * wide, 1), "lines": wrap_label(label)} for i, label in enumerate(columns)]
    for head in heads:
        head["y"] = HEAD - 8 - 13 * (len(head["lines"]) - 1)  # type: ignore[arg-type]
    top = alt.Chart(hold_values(heads)).mark_text(
        baseline="bottom", color=INK, fontSize=12, lineHeight=13, font=FONT, lineBreak="\n"
    )
    layers.append(top.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("lines:N")))
    labels = [{"y": HEAD + SQUARE * (i + 0.5), "lines": wrap_label(label)} for i, label in enumerate(rows)]
    layers.append(draw_labels(labels))
    return draw_picture(alt.layer(*layers), GRID_PLOT, HEAD + SQUARE * len(rows), (LABELS, 6, 4), name)


def _draw_squares(cells: list[dict[str, Any]], **style: Any) -> alt.Chart:
    box = alt.Chart(hold_values(cells)).mark_rect(**style)
    edges: Any = {"x": place_at("x"), "x2": alt.X2("x2:Q"), "y": place_at("y"), "y2": alt.Y2("y2:Q")}
    resting = 0 if "strokeDash" not in style else 1
    squares: alt.Chart = box.encode(**edges, **when_current("strokeWidth", 3, resting))
    return squares


def draw_trend(marks: Sequence[Mark], days: Sequence[int], span: Span, name: str) -> Picture:
    """The whole population's figure at each release, `days` since the first one, with its interval."""
    y = alt.Scale(domain=[span.low, span.high], range=[TREND_HEIGHT, 8], nice=False, zero=False)
    axis = alt.Axis(
        format=span.format, tickCount=4, grid=True, gridColor=GRID, domain=False, ticks=False, title=None,
        labelColor=MUTED, labelFontSize=11, labelFont=FONT,
    )  # fmt: skip
    points = [
        {"x": round(16 + (TREND_PLOT - 32) * day / max(days[-1], 1), 1), "i": i, "tip": mark.tip, "label": mark.label,
         "low": mark.low, "estimate": mark.estimate, "high": mark.high}
        for i, (mark, day) in enumerate(zip(marks, days, strict=True))
    ]  # fmt: skip
    shown = [point for point in points if point["estimate"] is not None]
    bounded = [point for point in shown if point["low"] is not None and point["high"] is not None]
    frame = alt.Chart(hold_values([{"low": span.low}])).mark_point(opacity=0)
    line = alt.Chart(hold_values(shown)).mark_line(color=SERIES[0], strokeWidth=1.5)
    rule = alt.Chart(hold_values(bounded)).mark_rule(color=SERIES[0])
    dot = alt.Chart(hold_values(shown)).mark_point(filled=True, color=SERIES[0], opacity=1)
    up = alt.Y("estimate:Q", scale=y)
    layers = [
        frame.encode(x=fix_at("x", 0), y=alt.Y("low:Q", scale=y, axis=axis)),
        line.encode(x=place_at("x"), y=up),
        rule.encode(x=place_at("x"), y=alt.Y("low:Q", scale=y), y2=alt.Y2("high:Q"), **when_current("size", 4, 2)),
        dot.encode(x=place_at("x"), y=up, **when_current("size", 150, 64)),
    ]
    ends: list[tuple[dict[str, Any], Literal["left", "right"], int]] = [
        (points[0], "left", 0),
        (points[-1], "right", TREND_PLOT),
    ]
    for point, align, x in ends:
        text = alt.Chart(hold_values([{"text": point["label"]}])).mark_text(
            align=align, baseline="top", color=MUTED, fontSize=11, font=FONT
        )
        layers.append(text.encode(x=fix_at("x", x), y=fix_at("y", TREND_HEIGHT + 10), text=alt.Text("text:N")))
    return draw_picture(alt.layer(*layers), TREND_PLOT, TREND_HEIGHT, (TREND_LEFT, 12, 28), name)


def draw_distributions(
    groups: Sequence[tuple[str, Sequence[Bin]]], ticks: Sequence[tuple[float, str]], name: str
) -> Picture:
    """A histogram a group, all of one height of bars, above one axis of `ticks` (place from 0 to 1, text)."""
    most = max((bin.share for _, bins in groups for bin in bins if bin.share is not None), default=1.0) or 1.0
    bars: list[dict[str, Any]] = []
    for row, (_, bins) in enumerate(groups):
        foot = (row + 1) * (CURVE + CURVE_GAP)
        for bin in bins:
            bar: dict[str, Any] = {"i": len(bars), "tip": bin.tip, "shown": bin.share is not None, "y2": foot}
            bar |= {"x": round(GRID_PLOT * bin.left + 0.5, 1), "x2": round(GRID_PLOT * bin.right - 0.5, 1)}
            bars.append(bar | {"y": round(foot - CURVE * (bin.share or 0.0) / most, 1)})
    height = len(groups) * (CURVE + CURVE_GAP)
    feet = [{"y": (row + 1) * (CURVE + CURVE_GAP), "x": 0, "x2": GRID_PLOT} for row in range(len(groups))]
    base = alt.Chart(hold_values(feet)).mark_rule(color=GRID)
    edges: Any = {"x": place_at("x"), "x2": alt.X2("x2:Q"), "y": place_at("y"), "y2": alt.Y2("y2:Q")}
    shown = alt.Chart(hold_values([bar for bar in bars if bar["shown"]])).mark_rect(color=SERIES[0], stroke=INK)
    gaps = [bar | {"x": (bar["x"] + bar["x2"]) / 2, "y": bar["y2"] - 6} for bar in bars if not bar["shown"]]
    cross = alt.Chart(hold_values(gaps)).mark_point(shape="cross", angle=45, color=MUTED, filled=True, opacity=1)
    marks = [{"x": round(GRID_PLOT * place, 1), "text": text} for place, text in ticks]
    numbers = alt.Chart(hold_values(marks)).mark_text(baseline="top", color=MUTED, fontSize=11, font=FONT)
    labels = [
        {"y": (row + 1) * (CURVE + CURVE_GAP) - CURVE / 2 + 4, "lines": wrap_label(label)}
        for row, (label, _) in enumerate(groups)
    ]
    layers = [
        base.encode(x=place_at("x"), x2=alt.X2("x2:Q"), y=place_at("y")),
        shown.encode(**edges, **when_current("strokeWidth", 2, 0)),
        cross.encode(x=place_at("x"), y=place_at("y"), **when_current("size", 90, 40)),
        numbers.encode(x=place_at("x"), y=fix_at("y", height + 6), text=alt.Text("text:N")),
        draw_labels(labels),
    ]
    return draw_picture(alt.layer(*layers), GRID_PLOT, height, (LABELS, 6, CURVE_FOOT), name)
