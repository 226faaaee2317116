"""What a model card is made of: measurements, and sections of words, tables and pictures for both of its forms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from expectations.codebook import Codebook
from jobs.verification import Verification
from model.calibration import Band, Calibration
from model.describe import ItemParameters, TraitCurves
from model.differential import ItemFinding
from model.group_costs import FEWEST_PEOPLE, GroupCost
from model.membership import Attack
from model.reliability import DataSummary, Reliability
from model.spec import FeatureSpec

WITHHELD = "withheld"
NO_INTERVAL = "none"
MINUS = "−"


@dataclass(frozen=True)
class Measurements:
    """All that a card says; lists by trait are in the spec's order."""

    book: Codebook
    spec: FeatureSpec
    version: str
    report: Mapping[str, Any]
    gate: Mapping[str, Any]
    membership: Attack | None
    residuals: int
    data: DataSummary
    costs: list[GroupCost]
    scales_cost: float  # nats per hidden answer, everybody's, of a graded response model of each scale by itself
    reliabilities: list[Reliability]
    calibrations: list[Calibration]
    items: list[ItemParameters]
    curves: list[TraitCurves]
    correlations: npt.NDArray[np.float64]
    findings: list[ItemFinding]
    verification: Verification | None = None

    def label_trait(self, key: str) -> str:
        return next((trait.label for trait in self.book.traits if trait.key == key), "") or key

    def label_covariate(self, key: str) -> str:
        told = self.book.feedback.confirmed if self.book.feedback else None
        if told and told.key == key:
            return f"{self.book.scale(told.scale).label or told.scale}, severity that a clinician found"
        return next((part.label for part in self.book.covariates if part.key == key), "") or key

    def label_cohort(self, key: str) -> str:
        return next((cohort.label for cohort in self.book.cohorts if cohort.key == key), "") or key

    def label_group(self, cohort: str, group: str) -> str:
        found = next((found for found in self.book.cohorts if found.key == cohort), None)
        return found.read_group(group) if found else group

    def label_item(self, key: str) -> str:
        label = next((item.label for item in self.book.items if item.key == key), "")
        return f"{key}: {label}" if label else key


@dataclass(frozen=True)
class Words:
    """A paragraph, or a list of several lines."""

    lines: Sequence[str]
    kind: str = "words"


@dataclass(frozen=True)
class Table:
    """The first column names the rows; the others are numbers unless `text` says so."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """`alt` says what it shows to those who do not see it."""

    title: str
    svg: Markup
    alt: str


@dataclass(frozen=True)
class Pictures:
    pictures: Sequence[Picture]
    wide: bool = False
    kind: str = "pictures"


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    blocks: Sequence[Words | Table | Pictures]


def say(*lines: str) -> Words:
    return Words(lines)


def number(value: float | None, digits: int = 2) -> str:
    """Rounded, with a minus sign that is one; a figure that is not there is withheld."""
    if value is None:
        return WITHHELD
    if not math.isfinite(value):
        return "not defined"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def percent(share: float | None, digits: int = 1) -> str:
    return WITHHELD if share is None else f"{number(100 * share, digits)} %"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """low to high; a figure without bounds has none."""
    return NO_INTERVAL if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def chance(p: float | None) -> str:
    """A p value; one below what three decimals hold says so."""
    return "below 0.001" if p is not None and p < 0.001 else number(p, 3)


def count(people: int | None) -> str:
    return f"fewer than {FEWEST_PEOPLE}" if people is None else f"{people:,}"


def count_enough(people: int) -> str:
    """A number of people that is told only where it is no small one."""
    return count(people if people >= FEWEST_PEOPLE else None)


def name_band(band: Band) -> str:
    """below −1, −1 to 0, above 2."""
    low, high = (f"{end:g}".replace("-", MINUS) for end in (band.low, band.high))
    if math.isinf(band.low):
        return "everybody" if math.isinf(band.high) else f"below {high}"
    return f"above {low}" if math.isinf(band.high) else f"{low} to {high}"
