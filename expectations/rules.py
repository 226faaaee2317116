"""The codebook's row rules, each stated once and judged twice: by the row pass and by Great Expectations.

A rule about a value says nothing of a missing value: rules of kind `present` do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Literal

from expectations.codebook import Codebook
from expectations.codebook_parts import Cohort, Covariate
from expectations.errors import ContractBroken

RAW = "__raw"
LARGEST = 1.7976931348623157e308
# \z and not $, which would let a line separator follow: Spark could not read that as a number.
NUMBER = r"^[+-]?(([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?|[iI]nf(inity)?)\z"
# Spark reads a time alone as one of today, and a year alone as its first day: neither says when somebody answered.
DATE = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T]|\z)"
HOME_STRATUM = "_home_stratum"
REPLICATES = "replicate_weights"  # the rule about all of them together
# Names of verdicts that are not about single rows.
TAKEN = ("rows", "row_count", "answer_shares", "lonely_psu")

Kind = Literal["present", "in_set", "between", "unique", "equal", "true"]
Value = int | float | str | datetime | bool


@dataclass(frozen=True)
class Rule:
    """What must hold of `column` (and, for `unique` and `equal`, of `other`)."""

    name: str
    kind: Kind
    column: str
    meaning: str
    severity: Literal["row", "warn"] = "row"
    values: tuple[Value, ...] = ()
    low: float | None = None
    above: bool = False
    high: float | datetime | None = None
    other: str | None = None


def build_rules(book: Codebook, run_date: date) -> tuple[Rule, ...]:
    """The row rules of a codebook, in the order in which a row's broken rules are named."""
    rules: dict[str, Rule] = {}
    for rule in (*_rule_delivery(book), *_rule_time(book, run_date), *_rule_design(book), *_rule_answers(book)):
        rules[rule.name] = _merge(rules[rule.name], rule) if rule.name in rules else rule
    for custom in book.rules:
        if custom.name in (*rules, *TAKEN) or custom.name.endswith("_null_share"):
            raise ContractBroken(
                f"codebook {book.codebook}: rules: {custom.name} is the name of a rule that is made here"
            )
        rules[custom.name] = Rule(custom.name, "true", helper(custom.name), custom.sql, custom.severity)
    return tuple(rules.values())


def _merge(first: Rule, second: Rule) -> Rule:
    """One rule for a column that serves twice: the codes of either, the range that both allow."""
    if first.kind == "in_set":
        return replace(first, values=tuple(dict.fromkeys((*first.values, *second.values))))
    if first.name.endswith("_range"):
        low, high = max(first.low or 0.0, second.low or 0.0), min(first.high or 0.0, second.high or 0.0)
        return replace(first, low=low, high=high)
    return first


def helper(name: str) -> str:
    """The boolean column that holds what no single expectation can say; null is good."""
    return f"ok__{name}"


def _rule_delivery(book: Codebook) -> Iterator[Rule]:
    yield Rule("row_shape", "in_set", "malformed", "the row has as many fields as the header", values=(False,))
    if book.source.join:
        yield Rule("join_partner", "in_set", "unmatched", "the row has a partner in the first file", values=(False,))
    yield Rule("person_id_missing", "present", "person_id", "the person has an id")
    meaning = f"the person comes once{' for each ' + book.answered_at if book.answered_at else ''}"
    yield Rule("person_repeated", "unique", "person_id", meaning, other=book.answered_at)


def _rule_time(book: Codebook, run_date: date) -> Iterator[Rule]:
    if book.answered_at:
        column = book.answered_at
        end = datetime.combine(run_date, time.max, tzinfo=UTC)
        yield Rule(f"{column}_missing", "present", column + RAW, "the answers have a date")
        yield Rule(f"{column}_type", "true", helper(f"{column}_type"), "the date can be read (ISO 8601)")
        yield Rule(f"{column}_future", "between", column, "the date is not after the run date", high=end)


def _rule_design(book: Codebook) -> Iterator[Rule]:
    design = book.design
    yield Rule(f"{design.weight}_missing", "present", design.weight + RAW, "the row has a weight")
    yield _rule_number(design.weight)
    meaning = "the weight is positive and finite"
    yield Rule(f"{design.weight}_positive", "between", design.weight, meaning, low=0, above=True, high=LARGEST)
    if design.replicates:
        meaning = "every replicate weight is a finite number, not negative"
        yield Rule(REPLICATES, "true", helper(REPLICATES), meaning)
    if design.stratum and design.psu:
        yield Rule(f"{design.stratum}_missing", "present", design.stratum, "the row has a stratum")
        yield Rule(f"{design.psu}_missing", "present", design.psu, "the row has a PSU")
    if design.fpc:
        yield Rule(f"{design.fpc}_missing", "present", design.fpc + RAW, "the row has a population of PSUs")
        yield _rule_number(design.fpc)
    if design.stratum and design.psus_have_home:
        meaning = "the row's stratum is the one in which most rows of its PSU lie"
        yield Rule(f"{design.psu}_in_one_stratum", "equal", design.stratum, meaning, other=HOME_STRATUM)


def _rule_number(column: str) -> Rule:
    return Rule(f"{column}_type", "true", helper(f"{column}_type"), f"{column} is a number")


def _rule_answers(book: Codebook) -> Iterator[Rule]:
    types = book.column_types()
    for item in book.items:
        yield _rule_number(item.column)
        codes = (*item.levels, *item.missing)
        yield Rule(f"{item.column}_values", "in_set", item.column, "the answer is a code of the codebook", values=codes)
    parts: tuple[Covariate | Cohort, ...] = (*book.covariates, *book.cohorts)
    for part in parts:
        if isinstance(part, Covariate) and part.required:
            yield Rule(f"{part.column}_missing", "present", part.column + RAW, f"{part.key} is known")
        if types[part.column] == "number":
            yield _rule_number(part.column)
        if isinstance(part, Covariate) and part.kind == "count":
            name = f"{part.column}_whole"
            yield Rule(name, "true", helper(name), f"{part.key} is a whole number, not negative")
        yield from _rule_range(part, is_text=types[part.column] == "text")


def _rule_range(part: Covariate | Cohort, is_text: bool) -> Iterator[Rule]:
    codes = (*(part.levels if isinstance(part, Covariate) else part.map or ()), *part.missing)
    if (isinstance(part, Covariate) and part.levels) or (isinstance(part, Cohort) and part.map):
        values = tuple(str(code) for code in codes) if is_text else codes
        meaning = f"{part.key} is a code of the codebook"
        yield Rule(f"{part.column}_values", "in_set", part.column, meaning, values=values)
    elif isinstance(part, Covariate):
        high = LARGEST if part.max is None else part.max
        low = -LARGEST if part.min is None else part.min
        yield Rule(f"{part.column}_range", "between", part.column, f"{part.key} is in its range", low=low, high=high)
