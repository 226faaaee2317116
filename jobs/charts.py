"""The report's pictures: small Altair charts, drawn to SVG here so that the page needs nothing else to show them.

Every size is fixed and no text is measured, so the same figures give the same bytes on any machine. Colours are those
of the light scheme; the page's style swaps each for its dark twin.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

INK, MUTED, GRID, BAND = "#1d2731", "#55616d", "#d5dbe1", "#e9eef3"
SERIES = ("#0b5cad", "#c2500a", "#17795e", "#8a4397")  # told apart with colour blindness too; shapes tell as well
SHAPES = ("circle", "square", "triangle-up", "diamond")
TINTS = ("#dce9f5", "#b3d0ea", "#82b1db", "#4f8dc6", "#24659f")

LABELS, PLOT, FIGURES = 110, 134, 96  # a panel is 340 wide: a telephone's width, less its margins
TWO_WAY_PLOT = PLOT + FIGURES - 12
ROW, TWO_WAY_ROW, TOP, AXIS = 28, 38, 6, 26
DODGE = 12
LABEL_LETTERS = 17
FONT = "Helvetica, Arial, sans-serif"
VEGA_LITE = alt.SCHEMA_VERSION.rsplit(".", 1)[0]


@dataclass(frozen=True)
class Mark:
    """One estimate: its row's label, its figures, their text (or the word in their place), and its series."""

    label: str
    low: float | None
    estimate: float | None
    high: float | None
    text: str
    series: int = 0


@dataclass(frozen=True)
class Span:
    """What the horizontal axis shows: its ends, its number format, and the whole population's interval."""

    low: float
    high: float
    format: str
    whole: tuple[float, float, float] | None = None


def draw_forest(marks: Sequence[Mark], span: Span, name: str) -> str:
    """Dots and intervals, a row for each label; what is not shown is a hollow mark with its word."""
    rows = list(dict.fromkeys(mark.label for mark in marks))
    series = max((mark.series for mark in marks), default=0) + 1
    row = ROW if series == 1 else max(TWO_WAY_ROW, DODGE * (series + 1))
    height = TOP + row * len(rows)
    plot = PLOT if series == 1 else TWO_WAY_PLOT
    x = alt.Scale(domain=[span.low, span.high], range=[0, plot], nice=False, zero=False)
    values = [_place(mark, rows.index(mark.label), row, series) for mark in marks]
    labels = [
        {"y": TOP + row * (i + 0.5), "lines": textwrap.wrap(label, LABEL_LETTERS, max_lines=2, placeholder="…")}
        for i, label in enumerate(rows)
    ]
    layers = [*_draw_frame(span, x, height), _draw_labels(labels), *_draw_intervals(values, x, series)]
    layers += _draw_words(values, series)
    return draw_svg(alt.layer(*layers), plot, height, (LABELS, PLOT + FIGURES - plot, AXIS), name)


def _place(mark: Mark, index: int, row: int, series: int) -> dict[str, Any]:
    y = TOP + row * (index + 0.5) + DODGE * (mark.series - (series - 1) / 2)
    return {"y": y, "low": mark.low, "estimate": mark.estimate, "high": mark.high, "text": mark.text, "s": mark.series}


def _draw_frame(span: Span, x: alt.Scale, height: int) -> list[alt.Chart]:
    axis = alt.Axis(
        format=span.format, tickCount=4, grid=True, gridColor=GRID, domainColor=MUTED, tickColor=MUTED, title=None,
        labelColor=MUTED, labelFontSize=11, labelFont=FONT, labelFlush=False, labelOverlap=False, labelBound=False,
    )  # fmt: skip
    ends = hold_values([{"low": span.low}])
    frame = [alt.Chart(ends).mark_point(opacity=0).encode(x=alt.X("low:Q", scale=x, axis=axis), y=alt.value(height))]
    if span.whole:
        whole = hold_values([dict(zip(("low", "estimate", "high"), span.whole, strict=True))])
        base = alt.Chart(whole)
        edges: Any = {"y": alt.value(0), "y2": alt.value(height)}
        frame.append(base.mark_rect(color=BAND).encode(x=alt.X("low:Q", scale=x), x2=alt.X2("high:Q"), **edges))
        line = base.mark_rule(color=MUTED, strokeDash=[4, 3])
        frame.append(line.encode(x=alt.X("estimate:Q", scale=x), **edges))
    return frame


def _draw_labels(labels: list[dict[str, Any]]) -> alt.Chart:
    # Two lines are drawn around the row's middle, which Vega does not do by itself.
    for label in labels:
        label["y"] -= 6.5 * (len(label["lines"]) - 1)
    text = alt.Chart(hold_values(labels)).mark_text(
        align="right", baseline="middle", dx=-10, color=INK, fontSize=12, lineHeight=13, font=FONT
    )
    labelled: alt.Chart = text.encode(x=alt.value(0), y=place_at("y"), text=alt.Text("lines:N"))
    return labelled


def _draw_intervals(values: list[dict[str, Any]], x: alt.Scale, series: int) -> list[alt.Chart]:
    layers = []
    for s in range(series):
        shown = [v for v in values if v["s"] == s and v["estimate"] is not None]
        hidden = [v for v in values if v["s"] == s and v["estimate"] is None]
        bounded = [v for v in shown if v["low"] is not None and v["high"] is not None]
        colour, shape = SERIES[s], SHAPES[s]
        if bounded:
            rule = alt.Chart(hold_values(bounded)).mark_rule(color=colour, strokeWidth=2, strokeCap="round")
            layers.append(rule.encode(x=alt.X("low:Q", scale=x), x2=alt.X2("high:Q"), y=place_at("y")))
        if shown:
            dot = alt.Chart(hold_values(shown)).mark_point(shape=shape, filled=True, size=64, color=colour, opacity=1)
            layers.append(dot.encode(x=alt.X("estimate:Q", scale=x), y=place_at("y")))
        if hidden:
            ring = alt.Chart(hold_values(hidden)).mark_point(
                shape=shape, filled=False, size=46, color=colour, opacity=1
            )
            layers.append(ring.encode(x=alt.value(8), y=place_at("y")))
    return layers


def _draw_words(values: list[dict[str, Any]], series: int) -> list[alt.Chart]:
    """The figures at the right where there is one series; the word of what is not shown at its mark."""
    hidden = [v for v in values if v["estimate"] is None]
    words = alt.Chart(hold_values(hidden)).mark_text(
        align="left", baseline="middle", color=MUTED, fontSize=11, fontStyle="italic", font=FONT
    )
    layers = [words.encode(x=alt.value(18), y=place_at("y"), text=alt.Text("text:N"))]
    if series == 1:
        shown = [v for v in values if v["estimate"] is not None]
        figures = alt.Chart(hold_values(shown)).mark_text(
            align="right", baseline="middle", color=INK, fontSize=11, font=FONT
        )
        layers.append(figures.encode(x=alt.value(PLOT + FIGURES), y=place_at("y"), text=alt.Text("text:N")))
    return layers


def draw_ruler(bands: Sequence[tuple[float, float]], mark: Mark, worse_up: bool, name: str) -> str:
    """A score's whole range, its bands from better (pale) to worse (dark), and the population's mean upon it."""
    width, top, bottom = 280, 18, 34
    low, high = bands[0][0], bands[-1][1]
    x = alt.Scale(domain=[low, high], range=[0, width], nice=False, zero=False)
    pale_to_dark = [TINTS[round(i * (len(TINTS) - 1) / max(1, len(bands) - 1))] for i in range(len(bands))]
    tints = pale_to_dark if worse_up else pale_to_dark[::-1]
    layers = []
    for (start, end), tint in zip(bands, tints if len(bands) > 1 else [TINTS[1]], strict=True):
        box = alt.Chart(hold_values([{"a": start, "b": end}])).mark_rect(color=tint)
        edges: Any = {"y": alt.value(top), "y2": alt.value(bottom)}
        layers.append(box.encode(x=alt.X("a:Q", scale=x, axis=None), x2=alt.X2("b:Q"), **edges))
    ticks = [{"x": start, "text": f"{start:g}"} for start, _ in bands] + [{"x": high, "text": f"{high:g}"}]
    text = alt.Chart(hold_values(ticks)).mark_text(baseline="top", color=MUTED, fontSize=11, font=FONT)
    layers.append(text.encode(x=alt.X("x:Q", scale=x), y=alt.value(bottom + 5), text=alt.Text("text:N")))
    if mark.estimate is not None:
        point = hold_values([{"x": mark.estimate, "a": mark.low, "b": mark.high}])
        line = alt.Chart(point).mark_rule(color=INK, strokeWidth=2)
        layers.append(line.encode(x=alt.X("x:Q", scale=x), y=alt.value(top - 4), y2=alt.value(bottom)))
        head = alt.Chart(point).mark_point(shape="triangle-down", filled=True, color=INK, size=90, opacity=1)
        layers.append(head.encode(x=alt.X("x:Q", scale=x), y=alt.value(top - 9)))
        if mark.low is not None and mark.high is not None:
            bar = alt.Chart(point).mark_rule(color=INK, strokeWidth=4)
            layers.append(bar.encode(x=alt.X("a:Q", scale=x), x2=alt.X2("b:Q"), y=alt.value((top + bottom) / 2)))
    return draw_svg(alt.layer(*layers), width, bottom, (8, 12, 20), name)


def draw_hundred(share: float | None, name: str) -> str:
    """A hundred people, as many of them filled as the share says; all hollow where it is not shown."""
    per_row, step = 20, 15
    filled = 0 if share is None else round(100 * share)
    people = [{"x": step * (i % per_row + 0.5), "y": step * (i // per_row + 0.5), "in": i < filled} for i in range(100)]
    layers = []
    for inside, colour in ((True, SERIES[0]), (False, GRID)):
        chosen = hold_values([p for p in people if p["in"] == inside])
        dot = alt.Chart(chosen).mark_point(shape="circle", filled=share is not None, size=110, color=colour, opacity=1)
        layers.append(dot.encode(x=place_at("x"), y=place_at("y")))
    return draw_svg(alt.layer(*layers), per_row * step, step * 100 // per_row, (0, 0, 0), name)


def place_at(field: str) -> Any:
    """A position in pixels, as it stands."""
    encode = alt.X if field == "x" else alt.Y
    return encode(f"{field}:Q", scale=None, axis=None)


def hold_values(values: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


def draw_svg(chart: Any, width: int, height: int, margins: tuple[int, int, int], name: str) -> str:
    """The chart as SVG for a page: scaled by its view box, its ids its own, silent, as the page says what it shows."""
    left, right, bottom = margins
    sized = chart.properties(
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="none"),
        padding={"left": left, "top": 2, "right": right, "bottom": bottom},
    )
    config = {"aria": False, "background": None, "view": {"stroke": None}, "axis": {"domain": True}}
    # The specifications' shape is ours and tested: judging each against the whole schema would take most of the time.
    spec = {**sized.to_dict(validate=False), "config": config}
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=[])
    svg = re.sub(r'(id="|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg class="chart" viewBox="\1" aria-hidden="true">', svg)
