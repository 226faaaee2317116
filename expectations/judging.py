"""One Spark pass that reads every delivered row as the codebook says and gives it its broken rules and its fate."""

from collections.abc import Sequence
from datetime import date

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from expectations.rules import DATE, HOME_STRATUM, NUMBER, RAW, SAME, Rule, build_rules, fails_sql, helper

# What becomes of a delivered row; each row has exactly one fate.
ACCEPTED, QUARANTINED, INELIGIBLE, DUPLICATE = "accepted", "quarantined", "ineligible", "duplicate"


def judge_rows(delivered: DataFrame, book: Codebook, run_date: date) -> DataFrame:
    """Adds to every delivered row its typed values, `eligible`, `failed_rules`, `warned_rules` and `fate`.

    `delivered` holds the codebook's columns as text, `person_id`, `source_file`, `malformed` and `unmatched`.
    The typed columns keep the names, the delivered text moves to `<column>__raw`. A person's latest row that breaks
    no rule is accepted, the earlier ones are superseded (`duplicate`).
    """
    # Every window that follows is of one person: cut once by person, the rows are shuffled once, and sorted once.
    marked = _mark_eligible(delivered.repartition("person_id"), book)
    if not book.design.nest:
        marked = _add_home_stratum(marked, _mark_eligible(delivered, book), book)
    rules = build_rules(book, run_date)
    judged = _add_helpers(marked, book).select("*", _name_broken(rules, "row"), _name_broken(rules, "warn"))
    return judged.select("*", _decide_fate(book).alias("fate"))


def _name_broken(rules: Sequence[Rule], severity: str) -> Column:
    """The names of the rules that an eligible row breaks; joined and split, which is faster than filtering an array."""
    names = [F.when(F.expr(fails_sql(rule)), F.lit(rule.name)) for rule in rules if rule.severity == severity]
    joined = F.when(F.col("eligible"), F.concat_ws(",", *names))
    nothing = F.array().cast("array<string>")
    column = "failed_rules" if severity == "row" else "warned_rules"
    return F.when(joined != "", F.split(joined, ",")).otherwise(nothing).alias(column)


def _read_types(delivered: DataFrame, book: Codebook) -> DataFrame:
    columns: list[Column] = [F.col(c) for c in ("person_id", "source_file", "malformed", "unmatched")]
    for name, kind in book.column_types().items():
        if name == book.person_id:
            continue
        raw = F.nullif(F.trim(F.col(name)), F.lit(""))
        readers = {
            "number": F.when(raw.rlike(NUMBER), raw.try_cast("double")),
            "time": F.when(raw.rlike(DATE), F.try_to_timestamp(raw)),
            "text": raw,
        }
        columns += [raw.alias(name + RAW), readers[kind].alias(name)]
    return delivered.select(*columns)


def _mark_eligible(delivered: DataFrame, book: Codebook) -> DataFrame:
    """The rows' values, and `eligible`.

    Unknown means eligible: the rules then name what is missing, and a broken row is never counted out unseen.
    """
    stated = F.expr(book.eligible) if book.eligible else F.lit(True)
    eligible = F.col("malformed") | F.col("unmatched") | F.coalesce(stated, F.lit(True))
    try:
        return _read_types(delivered, book).select("*", eligible.alias("eligible"))
    except AnalysisException as error:
        raise ContractBroken(f"codebook {book.codebook}: eligible: {_first_line(error)}") from None


def _add_helpers(frame: DataFrame, book: Codebook) -> DataFrame:
    columns: list[Column] = []
    keys = ["person_id", *([book.answered_at] if book.answered_at else [])]
    complete = F.lit(True)
    for key in keys:
        complete = complete & F.col(key).isNotNull()
    together = Window.partitionBy(*keys, "eligible")
    columns.append(F.when(complete, F.count(F.lit(1)).over(together)).alias(SAME))
    if book.answered_at:
        raw, typed = F.col(book.answered_at + RAW), F.col(book.answered_at)
        columns.append(F.when(raw.isNotNull(), typed.isNotNull()).alias(helper(f"{book.answered_at}_type")))
    for part in book.covariates:
        if part.kind == "count":
            number = F.col(part.column)
            whole = (number >= 0) & (number == F.rint(number))
            columns.append((whole | number.isin(*part.missing)).alias(helper(f"{part.column}_whole")))
    try:
        for rule in book.rules:
            frame = frame.withColumn(helper(rule.name), F.expr(rule.sql))
    except AnalysisException as error:
        raise ContractBroken(f"codebook {book.codebook}: rules: {rule.name}: {_first_line(error)}") from None
    return frame.select("*", *columns)


def _add_home_stratum(frame: DataFrame, rows: DataFrame, book: Codebook) -> DataFrame:
    """The stratum in which most eligible rows of a PSU lie; empty where two strata hold as many.

    `rows` are those of `frame` as they were read: counted before they are cut by person, no id need be read for them.
    """
    psu, stratum = book.design.psu, book.design.stratum
    # Filtered afterwards: a filter before would be computed from the delivered text, once more for each condition.
    counts = rows.groupBy(psu, stratum).agg(F.count_if("eligible").alias("rows"))
    counts = counts.where((F.col("rows") > 0) & F.col(psu).isNotNull() & F.col(stratum).isNotNull())
    ranked = counts.groupBy(psu).agg(F.sort_array(F.collect_list(F.struct("rows", stratum)), asc=False).alias("strata"))
    tied = (F.size("strata") > 1) & (F.get("strata", F.lit(0))["rows"] == F.get("strata", F.lit(1))["rows"])
    home = F.when(tied, F.lit("")).otherwise(F.get("strata", F.lit(0))[stratum])
    homes = ranked.select(F.col(psu), home.alias(HOME_STRATUM))
    return frame.join(F.broadcast(homes), on=psu, how="left")


def _decide_fate(book: Codebook) -> Column:
    clean = F.col("eligible") & (F.size("failed_rules") == 0)
    fate = F.when(~F.col("eligible"), F.lit(INELIGIBLE)).when(~clean, F.lit(QUARANTINED))
    if book.answered_at:
        # Rows that tie have broken `person_repeated`, so among clean rows there is one latest.
        latest = F.max(F.when(clean, F.col(book.answered_at))).over(Window.partitionBy("person_id"))
        fate = fate.when(F.col(book.answered_at) < latest, F.lit(DUPLICATE))
    return fate.otherwise(F.lit(ACCEPTED))


def _first_line(error: AnalysisException) -> str:
    return next(line for line in str(error).splitlines() if line.strip())
