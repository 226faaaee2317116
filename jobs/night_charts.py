"""The nights' page's pictures: a bar a night, with a limit where there is one; drawn to SVG as the report's are."""

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
from markupsafe import Markup

from jobs.charts import FONT, GRID, MUTED, SERIES, draw_svg, hold_values, place_at

WIDTH, HEIGHT = 280, 84
MARGINS = (48, 10, 20)  # left, right and below: the axis' words
GAP = 0.25  # of a bar's place
LETTERS = ((1e6, "M"), (1e3, "k"), (1.0, ""))
HEAD = 8  # room above, for the topmost word


def draw_nights(values: Sequence[float | None], days: Sequence[str], name: str, limit: float | None = None) -> Markup:
    """Bars from 0 on, by night; one past the limit has another colour. A night without a value has no bar."""
    top = max([value for value in values if value is not None] + ([limit] if limit else []), default=0.0) or 1.0
    step = WIDTH / len(values)
    bars = [
        {
            "x": round(step * (place + GAP / 2), 1),
            "x2": round(step * (place + 1 - GAP / 2), 1),
            "y": round(HEAD + HEIGHT * (1 - value / top), 1),
            "y2": HEAD + HEIGHT,
            "colour": SERIES[1] if limit and value > limit else SERIES[0],
        }
        for place, value in enumerate(values)
        if value is not None
    ]
    marks = alt.Chart(hold_values(bars)).mark_rect()
    layers = [*_draw_lines([(HEAD + HEIGHT, "0"), (HEAD, word_figure(top))])]
    layers.append(
        marks.encode(
            x=place_at("x"),
            x2=alt.X2("x2:Q"),
            y=place_at("y"),
            y2=alt.Y2("y2:Q"),
            fill=alt.Fill("colour:N", scale=None),
        )
    )
    if limit:
        rule = alt.Chart(hold_values([{"x": 0, "x2": WIDTH, "y": round(HEAD + HEIGHT * (1 - limit / top), 1)}]))
        dashed = rule.mark_rule(color=SERIES[1], strokeDash=[4, 3])
        layers.append(dashed.encode(x=place_at("x"), x2=alt.X2("x2:Q"), y=place_at("y")))
    layers.append(_write(0, days[0], "left"))
    if len(days) > 1:
        layers.append(_write(WIDTH, days[-1], "right"))
    return Markup(draw_svg(alt.layer(*layers), WIDTH, HEAD + HEIGHT, MARGINS, name))


def word_figure(value: float) -> str:
    """Three digits, with a letter for thousands and millions."""
    size, letter = next((part for part in LETTERS if value >= part[0]), LETTERS[-1])
    return f"{value / size:.3g}{letter}"


def _write(place: float, day: str, align: Literal["left", "right"]) -> Any:
    word = alt.Chart(hold_values([{"x": place, "y": HEAD + HEIGHT + 6, "text": day}]))
    text = word.mark_text(align=align, baseline="top", color=MUTED, fontSize=11, font=FONT)
    return text.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N"))


def _draw_lines(lines: Sequence[tuple[float, str]]) -> list[Any]:
    """Horizontal ones, each with what it stands for."""
    rules = alt.Chart(hold_values([{"x": 0, "x2": WIDTH, "y": place} for place, _ in lines]))
    words = alt.Chart(hold_values([{"x": -6, "y": place, "text": text} for place, text in lines]))
    text = words.mark_text(align="right", baseline="middle", color=MUTED, fontSize=11, font=FONT)
    return [
        rules.mark_rule(color=GRID).encode(x=place_at("x"), x2=alt.X2("x2:Q"), y=place_at("y")),
        text.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N")),
    ]
