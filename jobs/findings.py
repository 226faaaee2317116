"""What the report says of each outcome: labels, words and rounded numbers made of public rows, in one language."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from expectations.codebook import Codebook
from expectations.outcomes import Outcome
from jobs.provenance import name_figure
from jobs.words import Words

Status = Literal["suppressed", "unreliable", "absent"]
Row = Mapping[str, Any]
Keys = tuple[str, ...]

HIDDEN = ("suppressed", "complementary")
FLAG = "†"
FLAGGED = ("review", "footnote")
MAIN_KINDS = ("mean", "proportion", "ratio")
QUANTILE = re.compile(r"(?P<key>.+)_p(?P<percent>\d+)")


def find_status(row: Row | None) -> Status | None:
    """Why a figure is not shown; one word for both kinds of suppression, which must not be told apart."""
    if row is None:
        return "absent"
    if row["disclosure"] in HIDDEN:
        return "suppressed"
    if row["presentation"] == "suppress":
        return "unreliable"
    return None if row["estimate"] is not None else "absent"


@dataclass(frozen=True)
class Cell:
    """One figure: the labels of its groups, its public row or None, what else the tables have of the cell, its `name`.

    `beside` holds the rows of kind `total`, `standardised` and `change` under these names, and quantiles by their
    whole percent.
    """

    levels: tuple[str, ...]
    row: Row | None
    beside: Mapping[str, Row]
    name: str = ""

    @property
    def status(self) -> Status | None:
        return find_status(self.row)

    @property
    def shown(self) -> Row | None:
        """The row where its figure is shown."""
        return self.row if self.status is None else None

    def also(self, name: str) -> Row | None:
        """Another figure of the cell, where it is shown."""
        row = self.beside.get(name)
        return row if find_status(row) is None else None

    @property
    def flag(self) -> str:
        return FLAG if self.shown and self.shown["presentation"] in FLAGGED else ""


@dataclass(frozen=True)
class Findings:
    """An outcome's cells by breakdown, in the codebook's order."""

    words: Words
    outcome: Outcome
    title: str
    unit: str
    ceiling: float
    by_breakdown: Mapping[Keys, tuple[Cell, ...]]

    @property
    def percent(self) -> bool:
        return self.outcome.kind == "proportion"

    @property
    def decimals(self) -> int:
        """Percent to 0.1 points, means to 0.01 (0.1 on scales of 50 and more)."""
        return 1 if self.percent or self.ceiling >= 50 else 2

    @property
    def whole(self) -> Cell:
        return self.by_breakdown.get((), (Cell((), None, {}),))[0]

    def cells(self) -> Iterator[Cell]:
        return (cell for cells in self.by_breakdown.values() for cell in cells)

    def quantiles(self) -> list[str]:
        """The whole percents of which the tables have quantiles."""
        return sorted({name for cell in self.cells() for name in cell.beside if name.isdigit()}, key=int)

    def number(self, value: float | None, signed: bool = False) -> str:
        if value is None or not math.isfinite(value):
            return ""
        return self.words.number(100 * value if self.percent else value, self.decimals, signed)

    def quantity(self, value: float | None) -> str:
        """The number with its percent sign, where it has one."""
        text = self.number(value)
        return self.words.say("percent", value=text) if self.percent and text else text

    def error(self, value: float | None) -> str:
        if value is None:
            return ""
        shown = 100 * value if self.percent else value
        return self.words.number(shown, max(0, 1 - math.floor(math.log10(shown)))) if shown else "0"

    def bounds(self, row: Row | None, join: str = "to") -> str:
        if row is None or row["ci_low"] is None or row["ci_high"] is None:
            return ""
        low, high = self.number(row["ci_low"]), self.number(row["ci_high"])
        # A dash between negative numbers reads as one more minus.
        return self.words.say("comma" if join == "dash" and row["ci_low"] < 0 else join, low=low, high=high)

    def short(self, cell: Cell) -> str:
        """`8.5 (7.5–9.7)`, or the word that stands in its place."""
        if cell.status or cell.row is None:
            return self.words.say(cell.status or "absent")
        bounds = self.bounds(cell.row, "dash")
        return self.number(cell.row["estimate"]) + (f" ({bounds})" if bounds else "") + cell.flag

    def label(self, cell: Cell) -> str:
        return self.words.say("list_comma").join(cell.levels) or self.words.say("everybody")

    def note(self, cell: Cell) -> str:
        if cell.status == "suppressed":
            return self.words.say("note_suppressed")
        if cell.row is None:
            return self.words.say("note_absent")
        return self.words.translate(str(cell.row["reason"] or ""))


def find_findings(book: Codebook, words: Words, rows: Iterable[Row]) -> list[Findings]:
    """The public outcomes of the codebook with their cells; groups that have no row are there without one."""
    placed: dict[tuple[str, str, frozenset[tuple[str, Any]]], Row] = {
        (row["outcome"], row["kind"], _place_row(row)): row for row in rows
    }
    quantiles = {outcome for outcome, kind, _ in placed if kind == "quantile"}
    cohorts = {cohort.key: cohort for cohort in book.cohorts}

    def find_cell(outcome: Outcome, keys: Keys, levels: Keys) -> Cell:
        place = frozenset(zip(keys, levels, strict=True))
        beside = {kind: placed.get((outcome.name, kind, place)) for kind in ("total", "standardised", "change")}
        for name in quantiles:
            match = QUANTILE.fullmatch(name)
            if match and outcome.name == f"{match['key']}_total":
                beside[match["percent"]] = placed.get((name, "quantile", place))
        labels = tuple(words.name(cohorts[key].read_group(level)) for key, level in zip(keys, levels, strict=True))
        found = {name: row for name, row in beside.items() if row is not None}
        name = name_figure(outcome.name, outcome.kind, dict(zip(keys, levels, strict=True)))
        return Cell(labels, placed.get((outcome.name, outcome.kind, place)), found, name)

    found = []
    for outcome in book.parsed_outcomes():
        if outcome.kind not in MAIN_KINDS:
            continue
        by_breakdown = {
            keys: tuple(find_cell(outcome, keys, levels) for levels in product(*(cohorts[key].groups for key in keys)))
            for keys in sorted(book.breakdowns, key=len)
        }
        found.append(Findings(words, outcome, *_word_outcome(book, words, outcome), by_breakdown))
    return found


def _place_row(row: Row) -> frozenset[tuple[str, Any]]:
    keys = () if row["breakdown"] == "all" else str(row["breakdown"]).split("*")
    return frozenset((key, row[key]) for key in keys)


def _word_outcome(book: Codebook, words: Words, outcome: Outcome) -> tuple[str, str, float]:
    """Title, unit, and the highest value that a scale can take (0 where there is none)."""
    trait = find_trait(book, outcome)
    if trait is not None:
        return words.say("title_mean", name=words.name(trait)), words.say("sds"), 0.0
    if outcome.kind == "ratio":
        above, below = (_word_outcome(book, words, part)[0] for part in outcome.split_ratio())
        return words.say("title_ratio", above=above, below=below), "", 0.0
    scale = book.scale(outcome.source.removesuffix("_total"))
    ceiling = book.span_total(scale)[1]
    label = words.name(scale.label or scale.key)
    if outcome.kind == "proportion":
        side = "title_ge" if outcome.side == ">=" else "title_le"
        return words.say(side, name=label, cut=outcome.cut), words.say("per_cent"), ceiling
    return words.say("title_mean", name=label), words.say("points_of", ceiling=f"{ceiling:g}"), ceiling


def find_trait(book: Codebook, outcome: Outcome) -> str | None:
    """The label of the trait that the outcome is the mean of."""
    labels = {f"{trait.key}_mean": trait.label or trait.key for trait in book.traits}
    return labels.get(outcome.name)


def find_bands(book: Codebook, outcome: Outcome) -> list[tuple[float, float, str]]:
    """A scale's bands as start, end and name, the ends shared; one nameless band where it has none."""
    scale = book.scale(outcome.source.removesuffix("_total"))
    low, high = book.span_total(scale)
    starts = [float(start) for start in scale.bands.values()] or [low]
    return list(zip(starts, [*starts[1:], high], scale.bands or [""], strict=True))


def label_breakdown(book: Codebook, words: Words, keys: Keys) -> str:
    cohorts = {cohort.key: cohort for cohort in book.cohorts}
    labels = [words.name(cohorts[key].label or key.replace("_", " ").capitalize()) for key in keys]
    if not labels:
        return words.say("everybody")
    while len(labels) > 1:
        labels[:2] = [words.say("and", first=labels[0], second=labels[1][:1].lower() + labels[1][1:])]
    return labels[0]
