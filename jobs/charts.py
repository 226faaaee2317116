"""What the pictures of report and model card share: colours, and Altair charts drawn to SVG and kept as specifications.

Every size is fixed and no text is measured, so the same figures give the same bytes on any machine. Colours are those
of the light scheme; the page's style swaps each for its dark twin.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

INK, MUTED, GRID, BAND = "#1d2731", "#55616d", "#d5dbe1", "#e9eef3"
SERIES = ("#0b5cad", "#c2500a", "#17795e", "#8a4397")  # told apart with colour blindness too; shapes tell as well
TINTS = ("#dce9f5", "#b3d0ea", "#82b1db", "#4f8dc6", "#24659f")
HEAT = ("#f0f6fb", "#dbe9f6", "#c4dcf1", "#aacceb", "#8fbbe3")  # dark ink can be read on each
FONT = "Helvetica, Arial, sans-serif"
VEGA_LITE = alt.SCHEMA_VERSION.rsplit(".", 1)[0]
# The channels' own classes: of a bare value Altair finds its class by digesting the whole schema.
VALUES: dict[str, Callable[..., Any]] = {
    **{"x": alt.XValue, "y": alt.YValue, "y2": alt.Y2Value},
    **{"size": alt.SizeValue, "strokeWidth": alt.StrokeWidthValue},
}
CURRENT = "current"  # the parameter that names the mark which is pointed at, or reached by the keyboard

# The specifications' shape is ours and tested: judging each part against the whole schema would take most of the time.
alt.utils.schemapi.DEBUG_MODE = False


@dataclass(frozen=True)
class Picture:
    """A chart as SVG, for print and for readers without scripts, and as the specification that makes it interactive."""

    svg: Markup
    spec: Markup | None = None


def place_at(field: str) -> Any:
    """A position in pixels, as it stands."""
    encode = alt.X if field == "x" else alt.Y
    return encode(f"{field}:Q", scale=None, axis=None)


def fix_at(place: str, pixels: float) -> Any:
    """One position for all of a layer's marks."""
    return VALUES[place](pixels)


def hold_values(values: list[dict[str, Any]]) -> alt.Data:
    # A tuple: Altair copies the rows of a list each time that a layer is put upon another.
    return alt.Data(values=tuple(values))  # type: ignore[no-untyped-call]


def when_current(field: str, chosen: Any, otherwise: Any) -> Any:
    """An encoding that changes for the current mark; marks carry their number as `i` and their words as `tip`."""
    condition = {"test": f"datum.i === {CURRENT}", "value": chosen}
    return {field: VALUES[field](otherwise, condition=condition), "tooltip": alt.Tooltip("tip:N")}


def draw_picture(chart: Any, width: int, height: int, margins: tuple[int, int, int], name: str) -> Picture:
    """An interactive chart; its SVG shows the same, at rest."""
    spec = _specify(chart.add_params(alt.param(name=CURRENT, value=-1)), width, height, margins)
    # No tag can end inside the page's script element.
    text = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return Picture(Markup(_render(spec, name)), Markup(text))


def draw_svg(chart: Any, width: int, height: int, margins: tuple[int, int, int], name: str) -> str:
    """The chart as SVG for a page: scaled by its view box, its ids its own, silent, as the page says what it shows."""
    return _render(_specify(chart, width, height, margins), name)


def _specify(chart: Any, width: int, height: int, margins: tuple[int, int, int]) -> dict[str, Any]:
    left, right, bottom = margins
    sized = chart.properties(
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="none"),
        padding={"left": left, "top": 2, "right": right, "bottom": bottom},
    )
    config = {"aria": False, "background": None, "view": {"stroke": None}, "axis": {"domain": True}}
    return {**sized.to_dict(validate=False), "config": config}


def _render(spec: dict[str, Any], name: str) -> str:
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=[])
    svg = re.sub(r'(id="|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg class="chart" viewBox="\1" aria-hidden="true">', svg)
