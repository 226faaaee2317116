"""What people and clinicians say of an analysis: whether it helped, and which severity a clinician found."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from expectations.codebook_parts import Column, FileName, Key, Part
from expectations.purpose import Code


class Helpful(Part):
    """A column with what the person thought of the analysis, and its codes."""

    column: Column
    helped: tuple[Code, ...] = Field(min_length=1)
    not_helped: tuple[Code, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def check_codes(self) -> Self:
        if both := sorted({str(code) for code in self.helped} & {str(code) for code in self.not_helped}):
            raise ValueError(f"the code {both[0]} stands in both `helped` and `not_helped`")
        return self

    @property
    def flags(self) -> dict[str, bool]:
        return {str(code): True for code in self.helped} | {str(code): False for code in self.not_helped}


class Confirmed(Part):
    """A column with the severity that a clinician found; `map` says which band of the scale each code stands for.

    It is compared with answers that were given up to `within_days` before: people get better, and worse.
    """

    column: Column
    scale: Key
    map: dict[Code, str] = Field(min_length=1)
    within_days: int = Field(default=28, ge=1)

    @model_validator(mode="after")
    def check_codes(self) -> Self:
        if len(self.bands) < len(self.map):
            raise ValueError("a code stands in `map` as a number and as text: write it once")
        return self

    @property
    def bands(self) -> dict[str, str]:
        return {str(code): band for code, band in self.map.items()}

    @property
    def key(self) -> str:
        """The column of the features."""
        return f"{self.scale}_confirmed"


class Feedback(Part):
    """A file of the extract with the id, when it was said or found, and one or both of the columns."""

    file: FileName
    given_at: Column
    helpful: Helpful | None = None
    confirmed: Confirmed | None = None

    @model_validator(mode="after")
    def check_content(self) -> Self:
        if ".." in Path(self.file).parts:
            raise ValueError("`file` must lie in the extract's folder")
        if self.helpful is None and self.confirmed is None:
            raise ValueError("name `helpful`, `confirmed`, or both: there is nothing to be read")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("a column is named twice")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        told = (part.column for part in (self.helpful, self.confirmed) if part)
        return (self.given_at, *told)
