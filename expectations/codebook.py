"""The codebook: what an extract's columns mean, as frozen models read from YAML."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from expectations.codebook_checks import find_problems
from expectations.codebook_parts import (
    Cohort,
    Column,
    ColumnType,
    Covariate,
    CustomRule,
    Design,
    Disclosure,
    Drift,
    Item,
    Key,
    Margins,
    Part,
    Scale,
    Source,
    Sql,
    Standard,
    Training,
    Trait,
)
from expectations.documents import read_document
from expectations.errors import ContractBroken
from expectations.feedback import Feedback
from expectations.outcomes import Outcome, parse_outcome
from expectations.purpose import Consent, Purpose

SHIPPED = Path(__file__).parent / "codebooks"


class Codebook(Part):
    codebook: Key
    version: int = Field(ge=1)
    title: str
    purpose: Purpose = Purpose()
    source: Source
    person_id: Column
    consent: Consent | None = None
    feedback: Feedback | None = None
    answered_at: Column | None = None
    design: Design
    eligible: Sql | None = None
    max_quarantine_share: float = Field(default=0.05, ge=0, le=1)
    retrain_days: int = Field(default=30, ge=1)
    items: tuple[Item, ...] = Field(min_length=1)
    scales: tuple[Scale, ...] = Field(min_length=1)
    traits: tuple[Trait, ...] = Field(min_length=1)
    covariates: tuple[Covariate, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    breakdowns: tuple[tuple[Key, ...], ...] = ((),)
    outcomes: tuple[str, ...] = Field(min_length=1)
    margins: Margins | None = None
    standard: Standard | None = None
    rules: tuple[CustomRule, ...] = ()
    drift: Drift = Drift()
    disclosure: Disclosure = Disclosure()
    training: Training = Training()
    # For readers of other languages: the codebook's own words (title, labels, groups, bands) and what they are there.
    translations: dict[Literal["zh"], dict[str, str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def check_references(self) -> Self:
        problems = list(find_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def item(self, key: str) -> Item:
        return next(item for item in self.items if item.key == key)

    def scale(self, key: str) -> Scale:
        return next(scale for scale in self.scales if scale.key == key)

    def parsed_outcomes(self) -> tuple[Outcome, ...]:
        scales, traits = {s.key for s in self.scales}, {t.key for t in self.traits}
        parsed = [parse_outcome(name, scales, traits) for name in self.outcomes]
        spans = {f"{scale.key}_total": self.span_total(scale) for scale in self.scales}
        return tuple(one._replace(span=spans.get(one.source, one.span)) for one in parsed)

    def span_total(self, scale: Scale) -> tuple[float, float]:
        """The least and the highest total of a scale."""
        levels = [self.item(key).levels for key in scale.items]
        low, high = (float(sum(item[end] for item in levels) * scale.multiply) for end in (0, -1))
        return low, high

    def list_cases(self, scale: Scale) -> tuple[str, ...]:
        """The bands of a scale with a cut whose lowest total passes it."""
        assert scale.cut
        bound, upwards = int(scale.cut[2:]), scale.cut.startswith(">=")
        return tuple(band for band, low in scale.bands.items() if (low >= bound if upwards else low <= bound))

    def replicate_columns(self) -> tuple[str, ...]:
        return self.design.replicates.names if self.design.replicates else ()

    def column_types(self) -> dict[str, ColumnType]:
        """The extract's columns that the codebook speaks of, in its order, and what each must be read as."""
        types: dict[str, ColumnType] = {self.person_id: "text"}
        if self.consent:
            types[self.consent.column] = "text"
        if self.answered_at:
            types[self.answered_at] = "time"
        types[self.design.weight] = "number"
        types |= {name: "text" for name in (self.design.stratum, self.design.psu) if name}
        if self.design.fpc:
            types[self.design.fpc] = "number"
        types |= dict.fromkeys(self.replicate_columns(), "number")
        types |= {item.column: "number" for item in self.items}
        parts: tuple[Covariate | Cohort, ...] = (*self.covariates, *self.cohorts)
        for part in parts:
            types.setdefault(part.column, "number" if _holds_numbers(part) else "text")
        return types


def _holds_numbers(part: Covariate | Cohort) -> bool:
    codes: Iterable[int | str]
    codes = (*(part.levels if isinstance(part, Covariate) else part.map or ()), *part.missing)
    return all(isinstance(code, int) for code in codes)


def find_codebook(name_or_file: str) -> Path:
    """The file of a shipped codebook's name, or the file itself."""
    shipped = SHIPPED / f"{name_or_file}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_file)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ContractBroken(f"there is no codebook {name_or_file}: give a file, or one of {names}")
    return path


def read_codebook(name_or_file: str) -> tuple[Codebook, str]:
    """Reads and checks a codebook; returns it with the sha256 of its file.

    Raises ContractBroken, which names the file, each wrong key and why it is wrong.
    """
    return read_document(find_codebook(name_or_file), "codebook", Codebook)
