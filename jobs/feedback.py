"""Feedback is judged like any extract: rows are accepted, set aside with reasons, superseded, or counted out.

Counted out is what speaks of nobody whose answers were accepted tonight, ids that are blank among them: whoever has
withdrawn or never agreed is not known here, so nothing of such a row is kept.
"""

from collections.abc import Mapping
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

FATES = ("accepted", "quarantined", "superseded", "unknown")

Tables = dict[str, tuple[DataFile, ...]]


def write_feedback(job: Job, told: Told, people: DataFrame) -> tuple[Tables, dict[str, int]]:
    """Writes the tables of feedback; returns them with the counts of its rows. `people` have a `person_id` each.

    Raises TooMuchQuarantined where more rows are broken than the codebook allows.
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
    files = {
        "feedback": write_people(
            judged.where(F.col("fate") == "accepted"),
            feedback_columns(job.book),
            counts["accepted"],
            scratch / "feedback",
        ),
        "feedback_quarantine": write_sorted(broken, feedback_quarantine_columns(job.book), scratch / "quarantine"),
    }
    return {table: job.night.adopt(some, table) for table, some in files.items()}, counts


def judge_feedback(told: DataFrame, feedback: Feedback, people: DataFrame, run_date: date) -> DataFrame:
    """Every row with its `fate` and `failed_rules`; what it says in columns of the tables' names, and RAW as delivered.

    Of several rows of a person that break no rule the latest counts.
    """
    texts = {name: F.nullif(F.trim(F.col(column)), F.lit("")) for name, column in list_columns(feedback).items()}
    flags = feedback.helpful.flags if feedback.helpful else {}
    bands = feedback.confirmed.bands if feedback.confirmed else {}
    read = told.select(
        F.col("person_id"),
        F.col("source_file"),
        *[text.alias(name + RAW) for name, text in texts.items()],
        F.when(texts["given_at"].rlike(DATE), F.try_to_timestamp(texts["given_at"])).alias("given_at"),
        _look_up(texts.get("helpful"), flags).cast("boolean").alias("helpful"),
        _look_up(texts.get("confirmed"), bands).cast("string").alias("confirmed"),
    )
    tomorrow = F.lit((run_date + timedelta(days=1)).isoformat()).cast("timestamp")
    said = [name for name in texts if name != "given_at"]
    rules = {"given_at": F.coalesce(F.col("given_at") >= tomorrow, F.lit(True))}
    rules |= {f"{name}_values": F.col(name + RAW).isNotNull() & F.col(name).isNull() for name in said}
    rules["empty"] = F.coalesce(*[F.col(name + RAW) for name in said]).isNull()
    failed = F.array_compact(F.array(*[F.when(broken, F.lit(f"feedback_{name}")) for name, broken in rules.items()]))
    known = people.select("person_id").distinct().withColumn("known", F.lit(True))
    judged = read.join(known, on="person_id", how="left").withColumn("failed_rules", failed)
    whole = F.col("known").isNotNull() & (F.size("failed_rules") == 0)
    latest = [F.desc(name) for name in ("given_at", "confirmed", "helpful", "source_file")]
    fate = (
        F.when(F.col("known").isNull(), F.lit("unknown"))
        .when(~whole, F.lit("quarantined"))
        .when(F.row_number().over(Window.partitionBy("person_id", whole).orderBy(*latest)) > 1, F.lit("superseded"))
    )
    fated: DataFrame = judged.withColumn("fate", F.coalesce(fate, F.lit("accepted")))
    return fated


def list_columns(feedback: Feedback) -> dict[str, str]:
    """For each column of the tables that of the file."""
    parts = {"helpful": feedback.helpful, "confirmed": feedback.confirmed}
    return {"given_at": feedback.given_at, **{name: part.column for name, part in parts.items() if part}}


def _look_up(text: Column | None, values: Mapping[str, str | bool]) -> Column:
    """The value of a code; null for an unknown one."""
    if text is None:
        return F.lit(None)
    return F.coalesce(*[F.when(text.isin(code), F.lit(value)) for code, value in values.items()])


def _check_broken(book: Codebook, counts: dict[str, int]) -> None:
    judged = sum(counts[fate] for fate in ("accepted", "quarantined", "superseded"))
    if judged and counts["quarantined"] / judged > book.max_quarantine_share:
        raise TooMuchQuarantined(
            f"{counts['quarantined']:,} of {judged:,} rows of feedback break a rule, the codebook allows "
            f"{book.max_quarantine_share:.1%}: have it delivered again, or correct the codes of `feedback`"
        )
