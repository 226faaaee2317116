"""Stage 5: design-based estimates for every breakdown and outcome, and what of them may be published."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expectations.codebook import Codebook
from jobs.design import read_design, read_sampled
from jobs.disclosure import protect_rows
from jobs.disclosure_profiles import PROFILES, Profile, redact_count
from jobs.domain_sums import domain_sums
from jobs.job import Job
from jobs.lake import StageRecord
from jobs.nonresponse import classes_from_json
from jobs.response import count_answers, rate_response
from jobs.spark import spark_session
from jobs.survey import CohortRow, estimate_rows
from jobs.tables import ColumnSpec, arrow_schema, estimates_columns, quality_columns


def run(job: Job) -> StageRecord:
    """Raises ContractBroken where a stratum has one PSU and the codebook says `fail`."""
    outcomes = job.book.parsed_outcomes()
    with spark_session(job.lake, "aggregate") as spark:
        sums = domain_sums(spark.sparkContext, job.night.paths("score", "profiles"), outcomes, job.book.breakdowns)
    rows = estimate_rows(
        sums,
        read_design(job.night.paths("validate", "design")),
        {outcome.name: outcome.kind for outcome in outcomes},
        job.book.breakdowns,
        job.book.design.lonely_psu,
        signed={outcome.name for outcome in outcomes if not outcome.public},
        sampled=read_sampled(job.night.paths("validate", "design")),
    )
    open_to_all = {outcome.name for outcome in outcomes if outcome.public}
    profile = PROFILES[job.book.disclosure.profile]
    public = protect_rows([row for row in rows if row.outcome in open_to_all], profile)
    scratch = job.night.scratch("aggregate")
    # Outcomes made of a trait have the unit of the model's series.
    series = dict.fromkeys({o.name for o in outcomes} - open_to_all, job.night.read("train").details["series"])
    internal_columns, public_columns = (estimates_columns(job.book, internal) for internal in (True, False))
    written = {
        "cohorts_internal": _write(rows, job.book, internal_columns, scratch / "internal", series),
        "cohorts": _write(public, job.book, public_columns, scratch / "public", series),
        "quality": _write_table(_measure_quality(job, profile), quality_columns(), scratch / "quality"),
    }
    tables = {table: job.night.adopt([file], table) for table, file in written.items()}
    shutil.rmtree(scratch)
    shown = sum(row.disclosure == "shown" for row in public)
    counts = {"estimates": len(rows), "public_estimates": len(public), "public_estimates_shown": shown}
    return StageRecord("aggregate", job.night.digests("validate", "train", "score"), tables, counts)


def _write(
    rows: Sequence[CohortRow], book: Codebook, columns: Sequence[ColumnSpec], file: Path, series: Mapping[str, str]
) -> Path:
    cohorts = [cohort.key for cohort in book.cohorts]
    records = [{**row.to_record(cohorts), "model_series": series.get(row.outcome)} for row in rows]
    return _write_table(records, columns, file)


def _write_table(records: Sequence[Mapping[str, Any]], columns: Sequence[ColumnSpec], file: Path) -> Path:
    names = [column.name for column in columns]
    chosen = [{name: record[name] for name in names} for record in records]
    pq.write_table(pa.Table.from_pylist(chosen, arrow_schema(columns)), file, compression="zstd")
    return file


def _measure_quality(job: Job, profile: Profile) -> list[dict[str, Any]]:
    """Where the delivered rows went. A row may break several rules, so the rules do not add up to a total."""
    validated, features = job.night.read("validate"), job.night.read("preprocess").counts["features"]
    counts = validated.counts
    where: list[tuple[str, str | None, int]] = [
        (stage, None, counts[stage]) for stage in ("delivered", "ineligible", "duplicates", "quarantined")
    ]
    where += [("withdrawn", None, 0), ("features", None, features)]
    where += [("quarantined", rule, rows) for rule, rows in sorted(validated.details["failed_rules"].items())]
    shown = [
        {
            "stage": stage,
            "reason": reason,
            "rows": redact_count(rows, profile),
            "rate": None,
            "rate_weighted": None,
            "disclosure": "shown" if redact_count(rows, profile) is not None else "suppressed",
        }
        for stage, reason, rows in where
    ]
    totals = {scale.key: f"{scale.key}_total" for scale in job.book.scales}
    answered = count_answers(job.night.paths("preprocess", "features"), totals)
    return shown + rate_response(classes_from_json(validated.details.get("classes", ())), answered, features, profile)
