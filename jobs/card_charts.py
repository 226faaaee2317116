"""The model card's pictures: curves of items and traits, ranks, correlations; drawn to SVG as the report's are.

Lines are placed in pixels here, rounded, so that the last bit of a float never shows in the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import numpy.typing as npt

from jobs.charts import BAND, FONT, INK, MUTED, SERIES, draw_svg, hold_values, place_at
from jobs.charts import GRID as GRID_LINE
from jobs.report_charts import draw_labels, wrap_label
from model.describe import TraitCurves

WIDTH, LEFT, RIGHT, BOTTOM = 270, 34, 12, 34
HEAD = 16  # room above a pane, for what is written on its edge
CURVES, GAP, INFORMATION = 108, 22, 44  # heights of an item's two panes, and between them
WIDE, TALL = 520, 150
DASHES = ([1, 0], [6, 3], [2, 2])  # a round of colours each
CELL, NAMES = 54, 110
EFFECTS, EFFECT_NAMES, EFFECT_ROW, LEGEND = 200, 112, 26, 16
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

Floats = npt.NDArray[np.float64]
Line = tuple[Floats, Floats]  # pixels across, pixels down


def draw_item(curves: TraitCurves, item: int, name: str) -> str:
    """Category curves above, each named by its answer's score where it is highest; the item's information below."""
    across = _spread(curves.theta, WIDTH)
    layers, names = _draw_pane(across, HEAD, CURVES, ["0", ".5", "1"]), []
    for category in range(curves.sizes[item]):
        probability = curves.probability[item, :, category]
        colour, dash = SERIES[category % len(SERIES)], DASHES[category // len(SERIES) % len(DASHES)]
        layers.append(_draw_line((across, HEAD + CURVES * (1 - probability)), colour, 2, dash))
        names.append(_name_peak(across, probability, f"{curves.scores[item, category]:g}", colour))
    top, most = HEAD + CURVES + GAP, float(curves.information.max())
    layers += _draw_pane(across, top, INFORMATION, ["0", f"{most:.1f}"])
    down = top + INFORMATION * (1 - curves.information[item] / most)
    layers.append(_draw_line((across, down), INK, 2))
    height = top + INFORMATION
    layers += [*_draw_axis(curves.theta, across, height), *names]
    return draw_svg(alt.layer(*layers), WIDTH, height, (LEFT, RIGHT, BOTTOM), name)


def draw_information(curves: TraitCurves, name: str) -> str:
    """Test information above and its standard error below, in front of where people stand."""
    across = _spread(curves.theta, WIDE)
    information = curves.test_information
    most = float(information.max())
    layers = _draw_pane(across, HEAD, TALL, ["0", f"{most / 2:.1f}", f"{most:.1f}"])
    layers.append(_fill(across, HEAD + TALL * (1 - 0.9 * curves.density / curves.density.max()), HEAD + TALL))
    layers.append(_draw_line((across, HEAD + TALL * (1 - information / most)), SERIES[0], 2.5))
    top, tall = HEAD + TALL + GAP, TALL // 2
    layers += _draw_pane(across, top, tall, ["0", ".5", "1"])
    # Beyond one sd of the population an answer sheet says less than knowing nobody: the line ends there.
    errors = 1 / np.sqrt(np.maximum(information, 1.0))
    shown = information >= 1
    layers.append(_draw_line((across[shown], (top + tall * (1 - errors))[shown]), SERIES[1], 2.5))
    layers += _draw_axis(curves.theta, across, top + tall)
    return draw_svg(alt.layer(*layers), WIDE, top + tall, (LEFT, RIGHT, BOTTOM), name)


def draw_ranks(ranks: Sequence[int], name: str) -> str:
    """Counts by place in the posterior; the strip is where 99 % of bars would lie if posteriors were exact."""
    total, bins = sum(ranks), len(ranks)
    expected = total / bins
    half = 2.576 * (expected * (1 - 1 / bins)) ** 0.5
    most = max(*ranks, expected + half) * 1.05
    step = WIDTH / bins
    bars = [
        {"x": _round(i * step + 1), "x2": _round((i + 1) * step - 1), "y": _round(CURVES * (1 - count / most))}
        for i, count in enumerate(ranks)
    ]
    rect = alt.Chart(hold_values([{**bar, "y2": CURVES} for bar in bars])).mark_rect(color=SERIES[0], opacity=0.55)
    ends = [_round(CURVES * (1 - (expected + sign * half) / most)) for sign in (1, -1)]
    strip = alt.Chart(hold_values([{"x": 0, "x2": WIDTH, "y": ends[0], "y2": ends[1]}])).mark_rect(
        color=MUTED, opacity=0.35
    )
    layers = [
        rect.encode(x=place_at("x"), x2=alt.X2("x2:Q"), y=place_at("y"), y2=alt.Y2("y2:Q")),
        strip.encode(x=place_at("x"), x2=alt.X2("x2:Q"), y=place_at("y"), y2=alt.Y2("y2:Q")),
        *_write([(0.0, "0"), (WIDTH / 2, ".5"), (float(WIDTH), "1")], CURVES + 6),
        *_write([(WIDTH / 2, "place of the true value in its posterior")], CURVES + 20),
    ]
    return draw_svg(alt.layer(*layers), WIDTH, CURVES, (LEFT, RIGHT, BOTTOM), name)


def draw_correlations(labels: Sequence[str], correlations: Floats, name: str) -> str:
    """A square for each pair of traits, the fuller the closer; blue together, orange against each other."""
    layers = []
    for series in (0, 1):
        pairs = [(i, j) for i in range(len(labels)) for j in range(i) if (correlations[i, j] < 0) == bool(series)]
        boxes = [
            {"x": j * CELL + 1, "x2": (j + 1) * CELL - 1, "y": i * CELL + 1, "y2": (i + 1) * CELL - 1,
             "o": round(0.1 + 0.55 * abs(float(correlations[i, j])), 3)}
            for i, j in pairs
        ]  # fmt: skip
        marks = alt.Chart(hold_values(boxes)).mark_rect(color=SERIES[series])
        edges: Any = {"x": place_at("x"), "x2": alt.X2("x2:Q"), "y": place_at("y"), "y2": alt.Y2("y2:Q")}
        layers.append(marks.encode(**edges, opacity=alt.Opacity("o:Q", scale=None)))
        figures = [
            (CELL * (j + 0.5), CELL * (i + 0.5), f"{correlations[i, j]:.2f}".replace("-", "−")) for i, j in pairs
        ]
        layers.append(_put_texts(figures, "center"))
    # A trait's name stands on the diagonal and runs to the right, where nothing is.
    layers.append(_put_texts([(CELL * i + 6, CELL * (i + 0.5), label) for i, label in enumerate(labels)], "left"))
    return draw_svg(alt.layer(*layers), len(labels) * CELL + NAMES, len(labels) * CELL, (4, 4, 4), name)


def draw_effects(
    rows: Sequence[tuple[str, bool, Mapping[str, float]]],
    groups: Sequence[tuple[str, str]],
    limits: tuple[float, float],
    name: str,
) -> str:
    """A row an item (label, whether flagged, effect by group): a mark for each group's effect, filled where flagged.

    `groups` are keys and labels; the strip is up to the first of `limits` either way, dashed lines stand at the second.
    """
    foot = LEGEND * len(groups)
    height = foot + EFFECT_ROW * len(rows)
    effects = [effect for _, _, found in rows for effect in found.values()]
    reach = np.ceil(max([0.39, *map(abs, effects)]) * 10 + 0.5) / 10

    def across(effect: float) -> float:
        return _round(EFFECTS / 2 * (1 + effect / reach))

    strip = [{"x": across(-limits[0]), "x2": across(limits[0]), "y": foot, "y2": height}]
    box: Any = {"x": place_at("x"), "x2": alt.X2("x2:Q"), "y": place_at("y"), "y2": alt.Y2("y2:Q")}
    layers = [alt.Chart(hold_values(strip)).mark_rect(color=BAND).encode(**box)]
    for places, colour, dash in (((0.0,), MUTED, [1, 0]), ((-limits[1], limits[1]), MUTED, [4, 3])):
        rules = [{"x": across(place), "y": foot, "y2": height} for place in places]
        drawn = alt.Chart(hold_values(rules)).mark_rule(color=colour, strokeDash=dash)
        layers.append(drawn.encode(x=place_at("x"), y=place_at("y"), y2=alt.Y2("y2:Q")))
    middles = [foot + EFFECT_ROW * (place + 0.5) for place in range(len(rows))]
    for place, (key, label) in enumerate(groups):
        colour, shape = SERIES[place % len(SERIES)], SHAPES[place % len(SHAPES)]
        down = LEGEND * (place + 0.5)
        layers.append(_draw_marks([(0.0, down)], colour, shape, filled=True))
        layers.append(_put_texts([(10.0, down, label)], "left"))
        for filled in (False, True):
            points = [
                (across(found[key]), middle)
                for (_, flagged, found), middle in zip(rows, middles, strict=True)
                if key in found and flagged == filled
            ]
            layers.append(_draw_marks(points, colour, shape, filled))
    layers.append(
        draw_labels([{"y": y, "lines": wrap_label(label)} for (label, _, _), y in zip(rows, middles, strict=True)])
    )
    ticks = [(across(value), f"{value:+.1f}".replace("-", "−") if value else "0") for value in (-reach, 0.0, reach)]
    sides = [(0.2 * EFFECTS, "lower score"), (0.8 * EFFECTS, "higher score")]
    layers += [*_write(ticks, height + 6), *_write(sides, height + 20)]
    return draw_svg(alt.layer(*layers), EFFECTS, height, (EFFECT_NAMES, RIGHT + 8, BOTTOM), name)


def draw_expected(theta: Floats, lines: Sequence[tuple[str, Floats]], name: str) -> str:
    """An item's expected score by trait level, a line for each group; the first, the reference, is dark."""
    across, foot = _spread(theta, WIDTH), LEGEND * len(lines)
    values = np.concatenate([line for _, line in lines])
    low, high = np.floor(values.min()), np.ceil(values.max())
    ticks = [f"{low:g}", f"{(low + high) / 2:g}", f"{high:g}"]
    layers = _draw_pane(across, foot, CURVES, ticks)
    for place, (label, line) in enumerate(lines):
        colour = INK if place == 0 else SERIES[(place - 1) % len(SERIES)]
        dash = DASHES[0] if place == 0 else DASHES[(place - 1) // len(SERIES) % len(DASHES)]
        down = LEGEND * (place + 0.5)
        layers.append(_draw_line((across, foot + CURVES * (high - line) / (high - low)), colour, 2, dash))
        layers.append(_draw_line((np.array([0.0, 18.0]), np.array([down, down])), colour, 2, dash))
        layers.append(_put_texts([(26.0, down, label)], "left"))
    height = foot + CURVES
    return draw_svg(alt.layer(*layers, *_draw_axis(theta, across, height)), WIDTH, height, (LEFT, RIGHT, BOTTOM), name)


def _draw_marks(points: Sequence[tuple[float, float]], colour: str, shape: str, filled: bool) -> Any:
    rows = [{"x": _round(x), "y": _round(y)} for x, y in points]
    marks = alt.Chart(hold_values(rows)).mark_point(
        shape=shape, color=colour, filled=filled, fill=colour if filled else "transparent", size=60, opacity=1,
        strokeWidth=1.5,
    )  # fmt: skip
    return marks.encode(x=place_at("x"), y=place_at("y"))


def _put_texts(texts: Sequence[tuple[float, float, str]], align: Literal["left", "center"]) -> Any:
    rows = [{"x": x, "y": y, "text": text} for x, y, text in texts]
    marks = alt.Chart(hold_values(rows)).mark_text(align=align, baseline="middle", color=INK, fontSize=12, font=FONT)
    return marks.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N"))


def _spread(theta: Floats, width: int) -> Floats:
    placed: Floats = width * (theta - theta[0]) / (theta[-1] - theta[0])
    return placed


def _draw_pane(across: Floats, top: int, height: int, ticks: list[str]) -> list[Any]:
    """Horizontal lines from the pane's foot to its top, and what they stand for."""
    places = [top + height * (1 - i / (len(ticks) - 1)) for i in range(len(ticks))]
    rules = alt.Chart(hold_values([{"x": 0, "x2": _round(across[-1]), "y": _round(place)} for place in places]))
    texts = [{"x": -6, "y": _round(place), "text": text} for place, text in zip(places, ticks, strict=True)]
    words = alt.Chart(hold_values(texts)).mark_text(
        align="right", baseline="middle", color=MUTED, fontSize=11, font=FONT
    )
    return [
        rules.mark_rule(color=GRID_LINE).encode(x=place_at("x"), x2=alt.X2("x2:Q"), y=place_at("y")),
        words.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N")),
    ]


def _draw_axis(theta: Floats, across: Floats, height: int) -> list[Any]:
    """Whole sds of the trait, and what the axis is."""
    values = list(range(int(np.ceil(theta[0])), int(np.floor(theta[-1])) + 1))
    places = np.interp(values, theta, across)
    ticks = [(float(place), f"{value:d}".replace("-", "−")) for place, value in zip(places, values, strict=True)]
    return [
        *_write(ticks, height + 6),
        *_write([(float(across[-1]) / 2, "trait, in sds of the reference")], height + 20),
    ]


def _write(texts: Sequence[tuple[float, str]], down: float) -> list[Any]:
    rows = [{"x": _round(place), "y": down, "text": text} for place, text in texts]
    marks = alt.Chart(hold_values(rows)).mark_text(baseline="top", color=MUTED, fontSize=11, font=FONT)
    return [marks.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N"))]


def _draw_line(line: Line, colour: str, width: float, dash: Sequence[int] = (1, 0)) -> Any:
    rows = [{"x": _round(x), "y": _round(y)} for x, y in zip(*line, strict=True)]
    marks = alt.Chart(hold_values(rows)).mark_line(color=colour, strokeWidth=width, strokeDash=list(dash))
    return marks.encode(x=place_at("x"), y=place_at("y"), order=alt.Order("x:Q"))


def _fill(across: Floats, down: Floats, foot: float) -> Any:
    rows = [{"x": _round(x), "y": _round(y), "y2": foot} for x, y in zip(across, down, strict=True)]
    marks = alt.Chart(hold_values(rows)).mark_area(color=BAND, line=False)
    return marks.encode(x=place_at("x"), y=place_at("y"), y2=alt.Y2("y2:Q"))


def _name_peak(across: Floats, probability: Floats, text: str, colour: str) -> Any:
    """The category's name above the highest point of its curve."""
    peak = int(probability.argmax())
    row = {"x": _round(min(max(across[peak], 6.0), across[-1] - 6)), "text": text}
    row["y"] = _round(HEAD + CURVES * (1 - probability[peak]) - 4)
    marks = alt.Chart(hold_values([row])).mark_text(
        baseline="bottom", color=colour, fontSize=12, fontWeight="bold", font=FONT
    )
    return marks.encode(x=place_at("x"), y=place_at("y"), text=alt.Text("text:N"))


def _round(value: float) -> float:
    return round(float(value), 1)
