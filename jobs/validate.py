"""Stage 1: judge the extract; accepted rows go on, rows that break a rule go to quarantine, the rest is counted out."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.errors import ArithmeticException, DateTimeException, NumberFormatException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken, TooMuchQuarantined
from expectations.judging import ACCEPTED, DUPLICATE, INELIGIBLE, QUARANTINED, appoint_judge
from expectations.leaving import WITHDRAWN, open_door
from expectations.reading import prepare_rows
from expectations.rules import RAW, build_rules
from expectations.suite import Past, Verdict, build_extract_suite, build_row_suite, build_summary_suite, run_suites
from jobs.design import check_design, find_design
from jobs.errors import StageError
from jobs.feedback import write_feedback
from jobs.job import Job
from jobs.lake import DataFile, StageRecord, check_kept
from jobs.layout import write_sorted
from jobs.nonresponse import add_classes, classes_to_json
from jobs.pseudonym import key_file, name_key
from jobs.replicates import check_totals
from jobs.row_pass import Part, judge_parts
from jobs.sources import Delivered, read_extract
from jobs.spark import SHUFFLE_PARTITIONS, spark_session
from jobs.tables import design_columns, quarantine_columns
from jobs.tally import Tally, add_up
from jobs.withdrawn import check_withdrawn, name_withdrawn, withdrawn_file

REMEDY = "The Data Docs of this night count each rule: have the extract corrected"

BYTES_PER_PART = 64 * 2**20


def run(job: Job) -> StageRecord:
    """Raises ContractBroken for an extract that cannot be judged, TooMuchQuarantined for one with too many bad rows."""
    if job.extract is None:
        return _replay(job)
    with spark_session(job.lake, "validate") as spark:
        key = key_file(job.lake)
        delivered = read_extract(spark, job.book, job.extract, key)
        # By the extract's size alone, so that the cores of a machine change nothing.
        parts = max(SHUFFLE_PARTITIONS, math.ceil(sum(file.size for file in delivered.files) / BYTES_PER_PART))
        spark.conf.set("spark.sql.shuffle.partitions", str(parts))
        scratch = job.night.scratch("validate")
        made = _judge(delivered, job, scratch)
        tally = add_up(part.tally for part in made)
        counts, failed = tally.fates, dict(sorted(tally.failed.items()))
        _check_rows(tally, delivered.rows)
        _check_consent(job.book, tally)
        _check_types(tally.filled, job.book)
        judged = spark.read.parquet(*[part.judged for part in made])
        design = find_design(judged, job.book)
        shares = _share_answers(tally, job.book)
        past = _read_past(job)
        docs, verdicts = _run_expectations(job, spark, judged, design, shares, past)
        _compare_counts(job, tally.failed | tally.warned, verdicts)
        _check_quarantine(job.book, counts, failed)
        check_design(job.book, design)
        _check_replicates(job.book, [part.totals for part in made])
        tables = _write_tables(job, judged, design, scratch)
        tables["accepted"] = job.night.adopt([Path(part.accepted) for part in made], "accepted")
        feedback = None
        if delivered.feedback:
            when = F.col(job.book.answered_at) if job.book.answered_at else F.lit(None).cast("timestamp")
            people = judged.where(F.col("fate") == ACCEPTED).select("person_id", when.alias("answered_at"))
            feedback = write_feedback(job, delivered.feedback, people)
            tables |= feedback.tables
        shutil.rmtree(scratch)
    details: dict[str, Any] = {
        "files": [vars(file) for file in delivered.files],
        "codebook": {"name": job.book.codebook, "version": job.book.version, "sha256": job.codebook_sha256},
        "new_columns": list(delivered.new_columns),
        "failed_rules": failed,
        "warnings": _word_warnings(job.book, delivered.new_columns, verdicts),
        "shares": shares,
        "classes": classes_to_json(add_classes(part.classes for part in made)),
        "key": name_key(key),
        "withdrawals": name_withdrawn(job.lake),
        "data_docs": str(docs.relative_to(job.lake.root)),
    }
    if feedback:
        details["feedback"] = feedback.counts
        details["warnings"] += feedback.warnings
    renamed = {
        "delivered": counts.total(),
        "accepted": counts[ACCEPTED],
        "quarantined": counts[QUARANTINED],
        "withdrawn": counts[WITHDRAWN],
        "ineligible": counts[INELIGIBLE],
        "duplicates": counts[DUPLICATE],
    }
    return StageRecord("validate", tables=tables, counts=renamed, details=details)


def _judge(delivered: Delivered, job: Job, folder: Path) -> list[Part]:
    try:
        prepared = prepare_rows(delivered.frame, job.book)
        judge, door = appoint_judge(job.book, job.run_date), open_door(job.book, withdrawn_file(job.lake))
        return judge_parts(prepared, delivered.rows, judge, door, job.book, folder)
    except (ArithmeticException, DateTimeException, NumberFormatException) as error:
        # Only the codebook's own SQL computes with values as they come. Spark's message quotes the value.
        raise ContractBroken(
            f"codebook {job.book.codebook}: the SQL of `eligible` or of `rules` cannot be computed for every row "
            f"({error.getCondition()}): compare text with text, and use try_cast and try_divide"
        ) from None


def _replay(job: Job) -> StageRecord:
    """Without an extract: the rows that the date's published night accepted, as they lie in the lake."""
    manifest = job.lake.published(job.run_date)
    if manifest is None:
        raise ContractBroken(f"no extract is named, and no night of {job.run_date} is published: name one by --extract")
    check_kept(manifest)
    record = StageRecord.from_json(manifest["stages"]["validate"])
    check_withdrawn(job.lake, record, job.run_date)
    if record.details["codebook"]["sha256"] != job.codebook_sha256:
        raise ContractBroken(
            f"the codebook has changed since {job.run_date} was validated: name the extract, or replay by the codebook "
            f"of then, {job.lake.restricted / 'codebooks'}/{record.details['codebook']['sha256']}.yaml"
        )
    return record


def _check_rows(tally: Tally, delivered: int) -> None:
    """The rows that the files hold, counted apart from Spark, against those that were judged."""
    if not tally.fates.total():
        raise ContractBroken("the extract has no rows: have it delivered again")
    if tally.matched != delivered:
        raise StageError(f"the files hold {delivered:,} rows, but {tally.matched:,} were read: report this fault")


def _check_consent(book: Codebook, tally: Tally) -> None:
    """What a new code means only the deliverer knows, and nothing may be kept of who has not agreed, in quarantine
    neither: so it stops the night."""
    if tally.unknown_consents:
        assert book.consent
        raise ContractBroken(
            f"column {book.consent.column}: {tally.unknown_consents:,} rows have a consent that is neither among the "
            "codebook's `agreed` nor its `refused` codes: ask the deliverer what it means, and add it to one of them"
        )
    if tally.fates.total() == tally.fates[WITHDRAWN]:
        raise ContractBroken(
            f"all {tally.fates.total():,} rows are of people who have not agreed or have withdrawn: check the "
            "codebook's `consent`"
        )


def _check_types(found: Mapping[str, int], book: Codebook) -> None:
    """A column of which no value at all can be read was retyped, and no row is to blame."""
    for name, kind in book.column_types().items():
        if kind != "text" and found[name + RAW] and not found[name]:
            wanted = "a number" if kind == "number" else "a date"
            raise ContractBroken(
                f"column {name}: none of its {found[name + RAW]:,} values is {wanted}: have it delivered as it was, "
                "or correct the codebook"
            )


def _check_quarantine(book: Codebook, counts: Mapping[str, int], failed: Mapping[str, int]) -> None:
    judged = counts[ACCEPTED] + counts[DUPLICATE] + counts[QUARANTINED]
    if judged == 0:
        raise ContractBroken(f"none of the {counts[INELIGIBLE]:,} rows is eligible: check the codebook's `eligible`")
    share = counts[QUARANTINED] / judged
    if share > book.max_quarantine_share:
        worst = sorted(failed, key=lambda rule: -failed[rule])[:5]
        raise TooMuchQuarantined(
            f"{counts[QUARANTINED]:,} of {judged:,} eligible rows ({share:.1%}) break a rule, the codebook allows "
            f"{book.max_quarantine_share:.1%}; most often: {', '.join(f'{r} ({failed[r]:,})' for r in worst)}. "
            f"{REMEDY}, or raise `max_quarantine_share`"
        )
    if counts[ACCEPTED] == 0:
        raise TooMuchQuarantined(f"no row is left: all {judged:,} eligible rows break a rule. {REMEDY}")


def _check_replicates(book: Codebook, totals: Sequence[Mapping[str, float]]) -> None:
    names = book.replicate_columns()
    if names:
        columns = (book.design.weight, *names)
        check_totals(np.array([math.fsum(part[name] for part in totals) for name in columns]), names)


def _share_answers(tally: Tally, book: Codebook) -> dict[str, Any]:
    """Rows and, for each item's column, the share of empty answers and of each code among accepted rows."""
    accepted = tally.fates[ACCEPTED]
    nulls, answers = {}, {}
    for item in book.items:
        given, values = tally.given[item.column], tally.values.get(item.column, Counter())
        nulls[item.column] = 1 - given / accepted if accepted else 1.0
        codes = (*item.levels, *item.missing)
        answers[item.column] = {str(code): values[float(code)] / given if given else 0.0 for code in codes}
    return {"rows": tally.fates.total() - tally.fates[WITHDRAWN], "null_shares": nulls, "answer_shares": answers}


def _read_past(job: Job) -> Past | None:
    manifest = job.lake.last_before(job.run_date)
    if manifest is None or manifest["codebook"]["name"] != job.book.codebook:
        return None
    return Past(**manifest["stages"]["validate"]["details"]["shares"])


def _run_expectations(
    job: Job, spark: SparkSession, judged: DataFrame, design: DataFrame, shares: Mapping[str, Any], past: Past | None
) -> tuple[Path, list[Verdict]]:
    psus = [(row["stratum"], None, row["count"]) for row in design.groupBy("stratum").count().collect()]
    before, now = past.answer_shares if past else {}, shares["answer_shares"]
    shifts = [(column, _total_variation(now[column], before[column]), None) for column in now if column in before]
    schema = "subject string, answer_share_shift double, psus_in_stratum bigint"
    summary = spark.createDataFrame(sorted([*psus, *shifts], key=str), schema)
    docs = job.lake.restricted / "data_docs" / f"run_date={job.run_date.isoformat()}" / f"{job.night.token:08d}"
    shutil.rmtree(docs, ignore_errors=True)
    batches = [
        (judged, build_extract_suite(job.book, past)),
        (judged.where("eligible"), build_row_suite(job.book, job.run_date, past)),
        (summary, build_summary_suite(job.book)),
    ]
    return docs, run_suites(batches, docs)


def _total_variation(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    return sum(abs(left.get(code, 0.0) - right.get(code, 0.0)) for code in {*left, *right}) / 2


def _compare_counts(job: Job, counted: Mapping[str, int], verdicts: list[Verdict]) -> None:
    """The pass and Great Expectations judge by one codebook: where they differ, one of them is wrong."""
    found = {verdict.rule: verdict.unexpected for verdict in verdicts}
    rules = [rule.name for rule in build_rules(job.book, job.run_date)]
    differing = [rule for rule in rules if found.get(rule) != counted.get(rule, 0)]
    if differing:
        raise StageError(f"Great Expectations and the row pass disagree on {', '.join(differing)}: report this fault")


def _word_warnings(book: Codebook, new_columns: tuple[str, ...], verdicts: list[Verdict]) -> list[dict[str, str]]:
    words = {
        "row_count": f"the number of rows has changed by more than {book.drift.row_count:.0%} since the last extract",
        "answer_shares": f"answers of an item have shifted by more than {book.drift.answer_share:.0%} since the last",
        "lonely_psu": f"a stratum has one PSU; variance by `{book.design.lonely_psu}`",
    }
    warnings = []
    if new_columns:
        message = f"{len(new_columns)} delivered columns are not in the codebook and were left out"
        warnings.append({"rule": "new_columns", "message": message})
    for verdict in verdicts:
        if verdict.severity == "info" and not verdict.success:
            message = words.get(verdict.rule, f"{verdict.unexpected:,} rows")
            warnings.append({"rule": verdict.rule, "message": message})
    return warnings


def _write_tables(job: Job, judged: DataFrame, design: DataFrame, scratch: Path) -> dict[str, tuple[DataFile, ...]]:
    raw = {name: F.col(name + RAW) for name in job.book.column_types() if name != job.book.person_id}
    broken = judged.where(F.col("fate") == QUARANTINED).withColumns(raw)
    written = {
        "quarantine": write_sorted(broken, quarantine_columns(job.book), scratch / "quarantine"),
        "design": write_sorted(design, design_columns(), scratch / "design"),
    }
    return {table: job.night.adopt(files, table) for table, files in written.items()}
