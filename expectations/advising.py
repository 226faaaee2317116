"""Advice tables: which bands, answers and changes call for which advice, each rule with its source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from expectations.codebook import Codebook
from expectations.codebook_parts import Key, Part
from expectations.documents import read_document
from expectations.errors import ContractBroken

SHIPPED = Path(__file__).parent / "advice"
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Said(Part):
    """A text in each language that pages are made in."""

    en: Sentence
    zh: Sentence


class Rule(Part):
    """What is advised when: a `scale` whose total lies in one of `bands`, or whose trait has `risen` or `fallen`
    beyond chance; an `item` answered with the code `at_least` or a higher one; any item of `risk`, present or not told.
    """

    key: Key
    scale: Key | None = None
    bands: tuple[str, ...] = ()
    change: Literal["risen", "fallen"] | None = None
    item: Key | None = None
    at_least: int | None = None
    risk: Literal["present", "unanswered"] | None = None
    say: Said
    source: Sentence

    @model_validator(mode="after")
    def check_condition(self) -> Self:
        named = [bool(self.bands), self.change is not None, self.item is not None, self.risk is not None]
        paired = (self.scale is not None) == bool(self.bands or self.change)
        if sum(named) != 1 or not paired or (self.item is None) != (self.at_least is None):
            raise ValueError(
                "one condition is needed: `scale` with `bands` or `change`, `item` with `at_least`, or `risk`"
            )
        return self


class AdviceTable(Part):
    advice: Key
    rules: tuple[Rule, ...] = Field(min_length=1)


def find_advice(name_or_file: str, folder: Path) -> Path:
    """The file of a shipped table's name, or a file, from `folder` on. Raises ContractBroken where there is none."""
    shipped = SHIPPED / f"{name_or_file}.yaml"
    path = shipped if shipped.is_file() else folder / name_or_file
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ContractBroken(f"there is no advice table {name_or_file}: give a file, or one of {names}")
    return path


def read_advice(path: Path, book: Codebook) -> tuple[AdviceTable, str]:
    """A table that speaks of the codebook's scales, bands and items, and the sha256 of its file.

    Raises ContractBroken, which names the table, each wrong rule and why it is wrong.
    """
    table, digest = read_document(path, "advice table", AdviceTable)
    if problems := [f"  {problem}" for problem in _find_problems(table, book)]:
        raise ContractBroken("\n".join([f"advice table {path.name} does not fit {book.codebook}:", *problems]))
    return table, digest


def _find_problems(table: AdviceTable, book: Codebook) -> Iterator[str]:
    scales, items = {scale.key: scale for scale in book.scales}, {item.key: item for item in book.items}
    measured = {trait.scale for trait in book.traits}
    keys = [rule.key for rule in table.rules]
    yield from (f"rules: {key} stands there twice" for key in sorted({key for key in keys if keys.count(key) > 1}))
    for rule in table.rules:
        if rule.scale is not None and rule.scale not in scales:
            yield f"rule {rule.key}: unknown scale {rule.scale}"
        elif rule.scale is not None:
            unknown = [band for band in rule.bands if band not in scales[rule.scale].bands]
            yield from (f"rule {rule.key}: {rule.scale} has no band {band}" for band in unknown)
            if rule.change and rule.scale not in measured:
                yield f"rule {rule.key}: no trait is measured by {rule.scale}, of which a change could be told"
        if rule.item is not None and rule.item not in items:
            yield f"rule {rule.key}: unknown item {rule.item}"
        elif rule.item is not None and rule.at_least not in items[rule.item].levels:
            yield f"rule {rule.key}: {rule.item} has no answer {rule.at_least}"
        if rule.risk and not any(item.risk for item in book.items):
            yield f"rule {rule.key}: no item of {book.codebook} has `risk: true`"
