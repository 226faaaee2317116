"""Feedback is judged with the extract: rows are accepted, set aside with reasons, superseded, or counted out.

Counted out are rows that cannot be read (`malformed`), what was said after the night (`later`), and what speaks of
nobody whose answers were accepted tonight (`unknown`): whoever has withdrawn or never agreed is not known here, so
nothing of these rows is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import TooMuchQuarantined
from expectations.feedback import Feedback
from expectations.rules import DATE, RAW
from jobs.errors import StageError
from jobs.job import Job
from jobs.lake import DataFile
from jobs.layout import write_people, write_sorted
from jobs.sources import Told
from jobs.tables import feedback_columns, feedback_quarantine_columns

FATES = ("accepted", "quarantined", "superseded", "later", "unknown", "malformed")
FEWEST_BROKEN = 20  # rows: fewer stop no night


@dataclass(frozen=True)
class Written:
    """The tables, the counts of rows by fate, and what somebody should look at, by rule."""

    tables: dict[str, tuple[DataFile, ...]]
    counts: dict[str, int]
    warnings: list[dict[str, str]]


def write_feedback(job: Job, told: Told, people: DataFrame) -> Written:
    """`people` are who is accepted: see `judge_feedback`.

    Raises TooMuchQuarantined where more is broken than the codebook allows.
    """
    assert job.book.feedback
    judged = judge_feedback(told.frame, job.book.feedback, people, job.run_date).persist(StorageLevel.DISK_ONLY)
    found = {row["fate"]: row["count"] for row in judged.groupBy("fate").count().collect()}
    counts = {"delivered": told.rows, **{fate: found.get(fate, 0) for fate in FATES}}
    if sum(found.values()) != told.rows:
        raise StageError(
            f"the files of feedback hold {told.rows:,} rows, but {sum(found.values()):,} were read: report this fault"
        )
    _check_broken(job.book, counts)
    scratch = job.night.scratch("feedback")
    raw = {name: F.col(name + RAW) for name in list_columns(job.book.feedback)}
    broken = judged.where(F.col("fate") == "quarantined").withColumns(raw)
    kept = keep_latest(judged.where(F.col("fate") == "accepted"))
    files = {
        "feedback": write_people(kept, feedback_columns(job.book), counts["accepted"], scratch / "feedback"),
        "feedback_quarantine": write_sorted(broken, feedback_quarantine_columns(job.book), scratch / "quarantine"),
    }
    tables = {table: job.night.adopt(some, table) for table, some in files.items()}
    return Written(tables, counts, _warn(job.book, counts))


def judge_feedback(told: DataFrame, feedback: Feedback, people: DataFrame, run_date: date) -> DataFrame:
    """Every row with its `fate` and `failed_rules`; what it says in columns of the tables' names, and RAW as delivered.

    Of what rows that break no rule say of a person, the latest counts, of helpfulness and severity each, a finding of
    the time of the answers before others; what does not count is null. `people` have a `person_id` each, and
    `answered_at`, null where nobody knows.
    """
    # A line that cannot be read may keep its fields: nothing of it is looked at.
    texts = {
        name: F.when(~F.col("malformed"), F.nullif(F.trim(F.col(column)), F.lit("")))
        for name, column in list_columns(feedback).items()
    }
    flags = feedback.helpful.flags if feedback.helpful else {}
    bands = feedback.confirmed.bands if feedback.confirmed else {}
    read = told.select(
        F.col("person_id"),
        F.col("source_file"),
        F.col("malformed"),
        *[text.alias(name + RAW) for name, text in texts.items()],
        F.when(texts["given_at"].rlike(DATE), F.try_to_timestamp(texts["given_at"])).alias("given_at"),
        _look_up(texts.get("helpful"), flags).cast("boolean").alias("helpful"),
        _look_up(texts.get("confirmed"), bands).cast("string").alias("confirmed"),
    )
    known = people.select("person_id", "answered_at").withColumn("known", F.lit(True))
    said = [name for name in texts if name != "given_at"]
    rules = {"given_at": F.col("given_at").isNull()}
    rules |= {f"{name}_values": F.col(name + RAW).isNotNull() & F.col(name).isNull() for name in said}
    rules["empty"] = F.coalesce(*[F.col(name + RAW) for name in said]).isNull()
    moment = Window.partitionBy("person_id", "given_at")
    rules["contradicted"] = F.greatest(*[F.size(F.collect_set(name).over(moment)) for name in said], F.lit(0)) > 1
    failed = F.array_compact(F.array(*[F.when(broken, F.lit(f"feedback_{name}")) for name, broken in rules.items()]))
    judged = read.join(known, on="person_id", how="left").withColumn("failed_rules", failed)
    tomorrow = F.lit((run_date + timedelta(days=1)).isoformat()).cast("timestamp")
    out = (
        F.when(F.col("malformed"), F.lit("malformed"))
        .when(F.col("known").isNull(), F.lit("unknown"))
        .when(F.col("given_at") >= tomorrow, F.lit("later"))
        .when(F.size("failed_rules") > 0, F.lit("quarantined"))
    )
    sorted_out = judged.withColumn("out", out).withColumn("timely", is_timely(feedback, "given_at", "answered_at"))
    equals = [F.desc_nulls_last(name) for name in (*said, "source_file")]
    counting = {}
    for name in said:
        telling = F.col("out").isNull() & F.col(name).isNotNull()
        first = [F.desc("timely"), F.desc("given_at")] if name == "confirmed" else [F.desc("given_at")]
        latest = Window.partitionBy("person_id", telling).orderBy(*first, *equals)
        counting[name] = telling & (F.row_number().over(latest) == 1)
    fate = F.coalesce(
        F.col("out"), F.when(F.greatest(*counting.values(), F.lit(False)), F.lit("accepted")), F.lit("superseded")
    )
    counted = {name: F.when(counts, F.col(name)) for name, counts in counting.items()}
    fated: DataFrame = sorted_out.withColumns({**counted, "fate": fate})
    return fated


def is_timely(feedback: Feedback, found_at: str, answered_at: str) -> Column:
    """Whether a finding is of the time of the answers; where nobody knows when they were given, all are."""
    days = F.date_diff(F.col(found_at), F.col(answered_at))
    return F.coalesce(days.between(0, feedback.confirmed.within_days if feedback.confirmed else 0), F.lit(True))


def keep_latest(accepted: DataFrame) -> DataFrame:
    """One row a person: of each thing that was said what counts, which one of the rows has."""
    return accepted.groupBy("person_id").agg(
        F.max("given_at").alias("given_at"),
        F.max("helpful").alias("helpful"),
        F.max("confirmed").alias("confirmed"),
        F.max(F.when(F.col("confirmed").isNotNull(), F.col("given_at"))).alias("confirmed_at"),
    )


def list_columns(feedback: Feedback) -> dict[str, str]:
    """For each column of the tables that of the file."""
    parts = {"helpful": feedback.helpful, "confirmed": feedback.confirmed}
    return {"given_at": feedback.given_at, **{name: part.column for name, part in parts.items() if part}}


def _look_up(text: Column | None, values: Mapping[str, str | bool]) -> Column:
    """The value of a code; null for an unknown one. Programs write a whole number beside blanks as 1.0."""
    if text is None:
        return F.lit(None)
    whole = F.regexp_replace(text, r"^(-?[0-9]+)\.0+$", "$1")
    return F.coalesce(*[F.when((text == code) | (whole == code), F.lit(value)) for code, value in values.items()])


def _check_broken(book: Codebook, counts: Mapping[str, int]) -> None:
    judged = sum(counts[fate] for fate in ("accepted", "quarantined", "superseded"))
    broken = counts["quarantined"]
    if broken >= FEWEST_BROKEN and broken / judged > book.max_quarantine_share:
        raise TooMuchQuarantined(
            f"{broken:,} of {judged:,} rows of feedback break a rule, the codebook allows "
            f"{book.max_quarantine_share:.1%}: have it delivered again, or correct the codes of `feedback`"
        )


def _warn(book: Codebook, counts: Mapping[str, int]) -> list[dict[str, str]]:
    """Rows that nobody can be found for are no fault of a person's, but many are one of the file."""
    lost = counts["unknown"] + counts["malformed"]
    if lost <= counts["delivered"] * book.max_quarantine_share:
        return []
    told = f"{counts['unknown']:,} are about nobody who is accepted, {counts['malformed']:,} cannot be read"
    return [{"rule": "feedback", "message": f"of {counts['delivered']:,} rows of feedback {told}"}]
