"""The care file: whom a deployment names to people, who has read what is advised, and who answers for it."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from expectations.advising import Rule, Said, Sentence, find_advice, read_advice
from expectations.codebook import Codebook
from expectations.codebook_parts import Key, Part
from expectations.documents import read_document
from expectations.errors import ContractBroken

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class HelpLine(Part):
    """Whom people can turn to: `languages` are those that are spoken there."""

    name: Said
    number: Sentence
    hours: Said
    languages: Said


class Review(Part):
    """Who has read which text of a table, and when: a table that has changed since needs to be read again."""

    table: str
    reviewer: Sentence | None = None
    reviewed_on: date | None = None
    sha256: Digest | None = None


class Responsible(Part):
    """Who looks at what is found about people who have not asked, and how soon."""

    clinician: Sentence
    responds_within_hours: int = Field(ge=1, le=24 * 14)


class CareFile(Part):
    help_lines: tuple[HelpLine, ...] = ()
    advice: tuple[Review, ...] = ()
    compare: tuple[Key, ...] = ()
    responsible: Responsible | None = None


@dataclass(frozen=True)
class Advice:
    """A rule, and the table and the person that answer for it."""

    rule: Rule
    table: str
    sha256: str
    reviewer: str
    reviewed_on: date


@dataclass(frozen=True)
class Care:
    help_lines: tuple[HelpLine, ...]
    advice: tuple[Advice, ...]
    compare: tuple[str, ...]
    responsible: Responsible | None


def read_care(path: Path, book: Codebook) -> Care:
    """What a page about one person needs beside the person's results.

    Raises ContractBroken where no help line is named, where a table was not reviewed as it stands, has a rule without
    source or one that names what the codebook does not have, and where `compare` names an unknown cohort.
    """
    if not path.is_file():
        raise ContractBroken(f"there is no care file {path}: it names the help lines that stand on every page")
    file, _ = read_document(path, "care file", CareFile)
    if not file.help_lines:
        raise ContractBroken(f"care file {path.name} names no help line: no page about a person is made without one")
    if not file.advice:
        raise ContractBroken(f"care file {path.name} names no advice table: name those that were reviewed by `advice`")
    cohorts = {cohort.key for cohort in book.cohorts}
    if unknown := [key for key in file.compare if key not in cohorts]:
        raise ContractBroken(f"care file {path.name}: compare: {book.codebook} has no cohort {unknown[0]}")
    advice = tuple(rule for review in file.advice for rule in _read_reviewed(review, path, book))
    return Care(file.help_lines, advice, file.compare, file.responsible)


def _read_reviewed(review: Review, care: Path, book: Codebook) -> list[Advice]:
    path = find_advice(review.table, care.parent)
    table, digest = read_advice(path, book)
    if review.reviewer is None or review.reviewed_on is None or review.sha256 is None:
        raise ContractBroken(
            f"advice table {path.name} has no reviewer yet: have a clinician read {path}, and name them in {care.name} "
            f"by reviewer, reviewed_on and sha256: {digest}"
        )
    if review.sha256 != digest:
        raise ContractBroken(
            f"advice table {path.name} is not the one that was reviewed on {review.reviewed_on}: have it read again, "
            f"and write sha256: {digest} into {care.name}"
        )
    return [Advice(rule, table.advice, digest, review.reviewer, review.reviewed_on) for rule in table.rules]
