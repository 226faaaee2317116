"""The Great Expectations suites of a codebook, and their run: counts alone come back, never a value."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.core.expectation_suite import ExpectationSuite
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from pyspark.sql import DataFrame

from expectations.codebook import Codebook
from expectations.rules import RAW, Rule, build_rules

# Counts only: the lists of unexpected values, which hold answers, stay empty.
COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0, "include_unexpected_rows": False}
SITE = "night"


@dataclass(frozen=True)
class Verdict:
    """What an expectation found: how many rows break it, and whether that passes."""

    rule: str
    severity: str
    success: bool
    unexpected: int


@dataclass(frozen=True)
class Past:
    """The last accepted extract before the run date, in shares: the yardstick of drift."""

    rows: int
    null_shares: Mapping[str, float]
    answer_shares: Mapping[str, Mapping[str, float]]


def to_expectation(rule: Rule) -> Expectation:
    """A row rule as an expectation on a column of the judged rows."""
    severity = FailureSeverity.WARNING if rule.severity == "row" else FailureSeverity.INFO
    common: dict[str, Any] = {"meta": {"rule": rule.name}, "notes": rule.meaning, "severity": severity}
    column = rule.column
    match rule.kind:
        case "present":
            return gxe.ExpectColumnValuesToNotBeNull(column=column, **common)
        case "in_set":
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(rule.values), **common)
        case "between":
            bounds = {"min_value": rule.low, "max_value": rule.high, "strict_min": rule.above}
            return gxe.ExpectColumnValuesToBeBetween(column=column, **bounds, **common)
        case "unique" if rule.other:
            columns = [column, rule.other]
            ignore = "any_value_is_missing"
            return gxe.ExpectCompoundColumnsToBeUnique(column_list=columns, ignore_row_if=ignore, **common)
        case "unique":
            return gxe.ExpectColumnValuesToBeUnique(column=column, **common)
        case "equal":
            pair = {"column_A": column, "column_B": rule.other}
            ignore = "either_value_is_missing"
            return gxe.ExpectColumnPairValuesToBeEqual(**pair, ignore_row_if=ignore, **common)
        case "true":
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[True], **common)


def build_row_suite(book: Codebook, run_date: date, past: Past | None) -> ExpectationSuite:
    """Every row rule, and null shares against the last accepted extract; for the eligible rows."""
    expectations = [to_expectation(rule) for rule in build_rules(book, run_date)]
    if past:
        for item in book.items:
            allowed = min(1.0, past.null_shares.get(item.column, 1.0) + book.drift.null_share)
            expectations.append(
                gxe.ExpectColumnValuesToNotBeNull(
                    column=item.column + RAW,
                    mostly=round(1 - allowed, 6),
                    meta={"rule": f"{item.column}_null_share"},
                    notes=f"the share of empty answers has not risen by more than {book.drift.null_share}",
                    severity=FailureSeverity.INFO,
                )
            )
    return ExpectationSuite(name=f"{book.codebook} rows", expectations=expectations)


def build_extract_suite(book: Codebook, past: Past | None) -> ExpectationSuite:
    """The schema, that there are rows, and how many there were the last time; for the delivered rows."""
    expectations: list[Expectation] = [
        gxe.ExpectColumnToExist(
            column=name if name == "person_id" else name + RAW,
            meta={"rule": f"{name}_delivered"},
            severity=FailureSeverity.CRITICAL,
        )
        for name in ("person_id", *(c for c in book.column_types() if c != book.person_id))
    ]
    expectations.append(
        gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"rule": "rows"}, severity=FailureSeverity.CRITICAL)
    )
    if past:
        low, high = (round(past.rows * (1 + sign * book.drift.row_count)) for sign in (-1, 1))
        expectations.append(
            gxe.ExpectTableRowCountToBeBetween(
                min_value=low, max_value=high, meta={"rule": "row_count"}, severity=FailureSeverity.INFO
            )
        )
    return ExpectationSuite(name=f"{book.codebook} extract", expectations=expectations)


def build_summary_suite(book: Codebook) -> ExpectationSuite:
    """Drift of each item's answers and the PSUs of each stratum; for one-row-a-subject summaries."""
    expectations = [
        gxe.ExpectColumnValuesToBeBetween(
            column="answer_share_shift",
            max_value=book.drift.answer_share,
            meta={"rule": "answer_shares"},
            notes="total variation between an item's answers and those of the last accepted extract",
            severity=FailureSeverity.INFO,
        )
    ]
    if not book.design.replicates:  # they make every variance
        lonely = FailureSeverity.CRITICAL if book.design.lonely_psu == "fail" else FailureSeverity.INFO
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="psus_in_stratum", min_value=2, meta={"rule": "lonely_psu"}, severity=lonely
            )
        )
    return ExpectationSuite(name=f"{book.codebook} summary", expectations=expectations)


def run_suites(batches: Sequence[tuple[DataFrame, ExpectationSuite]], docs: Path) -> list[Verdict]:
    """Judges each frame by its suite and writes the Data Docs of all of them to the folder `docs`."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
    for name in context.get_site_names():
        context.delete_data_docs_site(name)
    context.add_data_docs_site(
        SITE,
        {
            "class_name": "SiteBuilder",
            "store_backend": backend,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "show_how_to_buttons": False,
        },
    )
    source = context.data_sources.add_spark("survey", persist=False)
    verdicts: list[Verdict] = []
    for frame, suite in batches:
        suite = context.suites.add(suite)
        asset = source.add_dataframe_asset(suite.name)
        batch = asset.add_batch_definition_whole_dataframe("whole")
        definition = gx.ValidationDefinition(name=suite.name, data=batch, suite=suite)
        context.validation_definitions.add(definition)
        result = definition.run(batch_parameters={"dataframe": frame}, result_format=COUNTS_ONLY)
        verdicts += _read_verdicts(result)
    context.build_data_docs(site_names=[SITE])
    return verdicts


def _read_verdicts(result: Any) -> Iterator[Verdict]:
    for one in result.results:
        config = one.expectation_config
        if one.exception_info and one.exception_info.get("raised_exception"):
            # The library's own message may quote a value, so only the rule is named.
            raise RuntimeError(f"Great Expectations could not judge the rule {config.meta['rule']}")
        severity = FailureSeverity(config.severity).value
        unexpected = int(one.result.get("unexpected_count") or 0)
        yield Verdict(config.meta["rule"], severity, bool(one.success), unexpected)
