"""Stage 2: one row a person: item codes, scale totals and bands, covariates, cohorts, design."""

import shutil
from collections.abc import Iterable
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.codebook_parts import Cohort, Covariate, Item, Scale
from jobs.design import name_psu, name_stratum
from jobs.feedback import is_timely
from jobs.job import Job
from jobs.lake import StageRecord
from jobs.layout import write_people
from jobs.nonresponse import classes_from_json
from jobs.spark import spark_session
from jobs.tables import features_columns
from jobs.weighing import weigh_people

FOLDS = 10
# Names on the way, apart from those of the extract's columns.
CODE, TOTAL = "code__", "total__"


def run(job: Job) -> StageRecord:
    """Raises ContractBroken where the codebook has margins that cannot be met."""
    accepted = job.night.read("validate")
    rows = accepted.counts["accepted"]
    scratch = job.night.scratch("preprocess")
    with spark_session(job.lake, "preprocess") as spark:
        frame = spark.read.parquet(*[str(path) for path in job.night.paths("validate", "accepted")])
        if job.book.feedback:
            told = spark.read.parquet(*[str(path) for path in job.night.paths("validate", "feedback")])
            frame = add_confirmed(frame, told, job.book)
        features = derive_features(frame, job.book)
        # Where releases are differentially private, no weight may hang on other people: nobody is stood for.
        classes = classes_from_json(() if job.book.disclosure.dp else accepted.details.get("classes", ()))
        weighed, details = weigh_people(features, classes, job.book.margins, job.book.replicate_columns())
        files = write_people(weighed, features_columns(job.book), rows, scratch / "features")
    tables = {"features": job.night.adopt(files, "features")}
    shutil.rmtree(scratch)
    counts = {"features": sum(file.rows for file in tables["features"])}
    return StageRecord("preprocess", job.night.digests("validate"), tables, counts, details)


def add_confirmed(accepted: DataFrame, told: DataFrame, book: Codebook) -> DataFrame:
    """The accepted rows with the severity that a clinician found; null for who was not looked at soon after.

    Without `answered_at` nobody knows how soon: all that was found counts.
    """
    if book.feedback is None or (confirmed := book.feedback.confirmed) is None:
        return accepted
    found = told.select("person_id", F.col("confirmed").alias(confirmed.key), F.col("confirmed_at").alias("found__at"))
    joined = accepted.join(found, on="person_id", how="left")
    if book.answered_at is None:
        return joined
    soon = is_timely(book.feedback, "found__at", book.answered_at)
    return joined.withColumn(confirmed.key, F.when(soon, F.col(confirmed.key)))


def derive_features(accepted: DataFrame, book: Codebook) -> DataFrame:
    """The features of accepted rows; every column follows from one part of the codebook.

    Items, totals and bands come one after another: repeated in one expression, they outgrow what Java compiles.
    """
    coded = accepted.select("*", *[code_item(item).alias(CODE + item.key) for item in book.items])
    totalled = coded.select("*", *[total_scale(book, scale).alias(TOTAL + scale.key) for scale in book.scales])
    columns: list[Column] = [F.col("person_id"), *[F.col(CODE + item.key).alias(item.key) for item in book.items]]
    for scale in book.scales:
        total = F.col(TOTAL + scale.key)
        columns += [total.alias(f"{scale.key}_total"), name_band(scale, total).alias(f"{scale.key}_band")]
    cohorts = {cohort.key for cohort in book.cohorts}
    columns += [read_covariate(book, part).alias(part.key) for part in book.covariates if part.key not in cohorts]
    if book.feedback and book.feedback.confirmed:
        columns.append(F.col(book.feedback.confirmed.key))
    columns += [name_cohort(book, cohort).alias(cohort.key) for cohort in book.cohorts]
    if book.design.replicates:
        columns.append(F.array(*book.replicate_columns()).alias("replicate_weights"))
    columns += [
        F.col(book.design.weight).alias("weight"),
        name_stratum(book).alias("stratum"),
        name_psu(book).alias("psu"),
        # Sixteen hexadecimal digits far from those that cut the files.
        F.expr(f"pmod(conv(substring(person_id, 25, 15), 16, 10)::bigint, {FOLDS})").alias("fold"),
    ]
    return totalled.select(*columns)


def code_item(item: Item) -> Column:
    """Position of the answer among the levels (counted from the top where reversed); -1 = no answer."""
    levels = [float(level) for level in (reversed(item.levels) if item.reversed else item.levels)]
    return F.coalesce(F.array_position(F.lit(levels), F.col(item.column)) - 1, F.lit(-1)).cast("tinyint")


def choose_first(cases: Iterable[tuple[Column, Column]]) -> Column:
    """The value of the first condition that holds, else null."""
    (condition, value), *others = cases
    return reduce(lambda chain, case: chain.when(*case), others, F.when(condition, value))


def total_scale(book: Codebook, scale: Scale) -> Column:
    """Sum of the items, prorated (mean times items) where few enough are missing, times the scale's factor.

    Reads the item codes; `get` gives null for the code -1.
    """
    scores = [F.get(F.lit([float(score) for score in book.item(key).scores]), F.col(CODE + key)) for key in scale.items]
    answered = reduce(lambda left, right: left + right, [(F.col(CODE + key) >= 0).cast("int") for key in scale.items])
    total = reduce(lambda left, right: left + right, [F.coalesce(score, F.lit(0.0)) for score in scores])
    enough = answered >= len(scores) - scale.prorate_up_to
    return F.when(enough, total * len(scores) / answered * scale.multiply)


def name_band(scale: Scale, total: Column) -> Column:
    """The band with the highest lower bound that the total (prorated, unrounded) reaches, as for the cut."""
    if not scale.bands:
        return F.lit(None).cast("string")
    highest_first = sorted(scale.bands.items(), key=lambda band: -band[1])
    return choose_first((total >= low, F.lit(name)) for name, low in highest_first)


def read_covariate(book: Codebook, part: Covariate) -> Column:
    """The value, null for a missing code."""
    column = F.col(part.column)
    codes = [str(code) for code in part.missing] if book.column_types()[part.column] == "text" else list(part.missing)
    known = F.when(~column.isin(*codes), column) if codes else column
    if part.is_number or book.column_types()[part.column] == "text":
        return known
    return known.cast("bigint").cast("string")


def name_cohort(book: Codebook, cohort: Cohort) -> Column:
    """The label of the person's group; null outside all groups."""
    column = F.col(cohort.column)
    if cohort.map is not None:
        as_text = book.column_types()[cohort.column] == "text"
        codes = {str(code) if as_text else code: label for code, label in cohort.map.items()}
        return choose_first((column == code, F.lit(label)) for code, label in codes.items())
    assert cohort.breaks is not None
    known = F.when(~column.isin(*cohort.missing), column) if cohort.missing else column
    highest_first = sorted(zip(cohort.breaks, cohort.labels, strict=True), reverse=True)
    return choose_first((known >= low, F.lit(label)) for low, label in highest_first)
