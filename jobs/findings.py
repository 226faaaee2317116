"""What the report says of each outcome: labels, words and rounded numbers made of public rows."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from expectations.codebook import Codebook, Outcome
from jobs.charts import SHAPES, Mark, Span

SUPPRESSED = "suppressed"
UNRELIABLE = "not reliable"
NO_FIGURE = "no figure"
HIDDEN = ("suppressed", "complementary")
FLAG = "†"
FLAGGED = ("review", "footnote")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One figure: `levels` are the labels of its groups, `row` is the public row or None where there is none."""

    levels: tuple[str, ...]
    row: Row | None

    @property
    def label(self) -> str:
        return ", ".join(self.levels) or "Everybody"

    @property
    def word(self) -> str | None:
        """What stands in place of the figure; one word for both kinds of suppression, which must not be told apart."""
        if self.row is None:
            return NO_FIGURE
        if self.row["disclosure"] in HIDDEN:
            return SUPPRESSED
        if self.row["presentation"] == "suppress":
            return UNRELIABLE
        return None if self.row["estimate"] is not None else NO_FIGURE

    @property
    def flag(self) -> str:
        return FLAG if self.word is None and self.row and self.row["presentation"] in FLAGGED else ""

    @property
    def note(self) -> str:
        if self.row is None:
            return "nobody in the sample"
        if self.word == SUPPRESSED:
            return "withheld to protect people"
        return str(self.row["reason"] or "")


@dataclass(frozen=True)
class Findings:
    """An outcome's cells by breakdown, in the codebook's order."""

    outcome: Outcome
    title: str
    unit: str
    ceiling: float
    by_breakdown: Mapping[tuple[str, ...], tuple[Cell, ...]]

    @property
    def whole(self) -> Cell:
        return self.by_breakdown.get((), (Cell((), None),))[0]

    def cells(self) -> Iterable[Cell]:
        return (cell for cells in self.by_breakdown.values() for cell in cells)

    def number(self, value: float | None) -> str:
        """Percent to 0.1 points, means to 0.01 (0.1 on scales of 50 and more)."""
        if value is None or not math.isfinite(value):
            return ""
        if self.outcome.kind == "proportion":
            return f"{100 * value:.1f}"
        return f"{value:.1f}" if self.ceiling >= 50 else f"{value:.2f}"

    def error(self, value: float | None) -> str:
        return "" if value is None else f"{100 * value if self.outcome.kind == 'proportion' else value:.2g}"

    def interval(self, cell: Cell, between: str = " to ") -> str:
        if cell.word or cell.row is None or cell.row["ci_low"] is None or cell.row["ci_high"] is None:
            return ""
        return self.number(cell.row["ci_low"]) + between + self.number(cell.row["ci_high"])

    def short(self, cell: Cell) -> str:
        """`8.5 (7.5–9.7)`, or the word that stands in its place."""
        if cell.word or cell.row is None:
            return cell.word or ""
        interval = self.interval(cell, "–")
        return self.number(cell.row["estimate"]) + (f" ({interval})" if interval else "") + cell.flag


def find_findings(book: Codebook, rows: Iterable[Row]) -> list[Findings]:
    """The public outcomes of the codebook with their cells; groups that have no row are there without one."""
    placed = {(row["outcome"], *_place_row(row)): row for row in rows}
    cohorts = {cohort.key: cohort for cohort in book.cohorts}
    found = []
    for outcome in book.parsed_outcomes():
        if outcome.latent:
            continue
        by_breakdown = {
            keys: tuple(
                Cell(
                    tuple(cohorts[key].read_group(level) for key, level in zip(keys, levels, strict=True)),
                    placed.get((outcome.name, frozenset(zip(keys, levels, strict=True)))),
                )
                for levels in product(*(cohorts[key].groups for key in keys))
            )
            for keys in sorted(book.breakdowns, key=len)
        }
        found.append(Findings(outcome, *_word_outcome(book, outcome), by_breakdown))
    return found


def _place_row(row: Row) -> tuple[frozenset[tuple[str, Any]]]:
    keys = () if row["breakdown"] == "all" else str(row["breakdown"]).split("*")
    return (frozenset((key, row[key]) for key in keys),)


def _word_outcome(book: Codebook, outcome: Outcome) -> tuple[str, str, float]:
    scale = book.scale(outcome.source.removesuffix("_total"))
    ceiling = float(sum(_span_item(book, key)[1] for key in scale.items) * scale.multiply)
    label = scale.label or scale.key
    if outcome.kind == "proportion":
        return f"{label} of {outcome.cut} or {'more' if outcome.side == '>=' else 'less'}", "% of people", ceiling
    return f"{label}, mean", f"points of {ceiling:g}", ceiling


def _span_item(book: Codebook, key: str) -> tuple[int, int]:
    levels = book.item(key).levels
    return levels[0], levels[-1]


def find_bands(book: Codebook, outcome: Outcome) -> list[tuple[float, float, str]]:
    """A scale's bands as start, end and name, the ends shared; one nameless band where it has none."""
    scale = book.scale(outcome.source.removesuffix("_total"))
    spans = [_span_item(book, key) for key in scale.items]
    low, high = (float(sum(span[i] for span in spans) * scale.multiply) for i in (0, 1))
    starts = [float(start) for start in scale.bands.values()] or [low]
    return list(zip(starts, [*starts[1:], high], scale.bands or [""], strict=True))


def label_breakdown(book: Codebook, keys: tuple[str, ...]) -> str:
    labels = {cohort.key: cohort.label or cohort.key.replace("_", " ").capitalize() for cohort in book.cohorts}
    return " and ".join(labels[key] if i == 0 else labels[key].lower() for i, key in enumerate(keys)) or "Everybody"


def find_span(findings: Findings) -> Span:
    """One axis for all of an outcome's pictures, so that they can be compared: round ends, from 0 for proportions."""
    seen = [
        value
        for cell in findings.cells()
        if cell.word is None and cell.row
        for value in (cell.row["ci_low"], cell.row["estimate"], cell.row["ci_high"])
        if value is not None
    ]
    percent = findings.outcome.kind == "proportion"
    low, high = (min(seen), max(seen)) if seen else (0.0, 0.1 if percent else findings.ceiling)
    low = 0.0 if percent else low
    rough = max(high - low, 1e-3) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    whole = findings.whole.row if findings.whole.word is None else None
    band = None
    if whole and whole["ci_low"] is not None and whole["ci_high"] is not None:
        band = (whole["ci_low"], whole["estimate"], whole["ci_high"])
    number_format = (".0%" if step >= 0.01 else ".1%") if percent else ".2~f"
    return Span(round(low, 9), round(max(high, low + step), 9), number_format, band)


def find_series(book: Codebook, keys: tuple[str, ...]) -> tuple[int, tuple[str, ...]] | None:
    """For a breakdown by two cohorts: which of them is told by shape and colour, and its groups."""
    if len(keys) != 2:
        return None
    cohorts = {cohort.key: cohort for cohort in book.cohorts}
    cohort = min((cohorts[key] for key in keys), key=lambda cohort: len(cohort.groups))
    place, chosen = keys.index(cohort.key), tuple(cohort.read_group(group) for group in cohort.groups)
    return (place, chosen) if len(chosen) <= len(SHAPES) else None


def mark_cells(findings: Findings, cells: Iterable[Cell], series: tuple[int, tuple[str, ...]] | None) -> list[Mark]:
    marks = []
    for cell in cells:
        label, order = cell.label, 0
        if series is not None:
            place, names = series
            label, order = cell.levels[1 - place], names.index(cell.levels[place])
        row = cell.row if cell.row and cell.word is None else dict.fromkeys(("ci_low", "estimate", "ci_high"))
        marks.append(Mark(label, row["ci_low"], row["estimate"], row["ci_high"], findings.short(cell), order))
    return marks


def describe_cells(findings: Findings, cells: tuple[Cell, ...], by: str) -> str:
    """A picture in words: what it shows, its lowest and highest figure, and how many are not shown."""
    shown = sorted((cell for cell in cells if not cell.word and cell.row), key=lambda cell: cell.row["estimate"])  # type: ignore[index]
    words = [f"{findings.title}, {findings.unit}, by {by[:1].lower() + by[1:]}: dots with 95 % intervals."]
    if len(shown) > 1:
        words.append(f"Lowest: {shown[0].label}, {findings.short(shown[0])}.")
        words.append(f"Highest: {shown[-1].label}, {findings.short(shown[-1])}.")
    if len(shown) < len(cells):
        words.append(f"{len(cells) - len(shown)} of {len(cells)} figures are not shown.")
    return " ".join([*words, "Every figure is in the table after the pictures."])
