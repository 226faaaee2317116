"""What Spark reads of every delivered row before it is judged: text, eligibility, and what the codebook's SQL says."""

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from expectations.rules import DATE, HOME_STRATUM, NUMBER, RAW, helper


def prepare_rows(delivered: DataFrame, book: Codebook) -> DataFrame:
    """The columns that `judging.judge_table` takes, a row for each delivered one.

    `delivered` holds the codebook's columns as text, `person_id`, `source_file`, `malformed` and `unmatched`. The text
    is called `<column>__raw` from here on; beside it come the time of the answers, `eligible`, the boolean of each rule
    of the codebook's own, and the PSU's home stratum unless PSUs are nested. The SQL reads a column as its type.
    Raises ContractBroken for SQL that cannot be read.
    """
    marked = _mark_eligible(delivered, book)
    try:
        for rule in book.rules:
            # As a condition, so that a rule that is none is refused.
            marked = marked.withColumn(helper(rule.name), F.expr(f"NOT NOT ({rule.sql})"))
    except AnalysisException as error:
        raise ContractBroken(f"codebook {book.codebook}: rules: {rule.name}: {_first_line(error)}") from None
    if book.design.psus_have_home:
        marked = _add_home_stratum(marked, _mark_eligible(delivered, book), book)
    own = ["person_id", "source_file", "malformed", "unmatched", "eligible"]
    raw = [name + RAW for name in book.column_types() if name != book.person_id]
    answered_at = [book.answered_at] if book.answered_at else []
    home = [HOME_STRATUM] if book.design.psus_have_home else []
    return marked.select(*own, *raw, *answered_at, *[helper(rule.name) for rule in book.rules], *home)


def _read_types(delivered: DataFrame, book: Codebook) -> DataFrame:
    columns: list[Column] = [F.col(c) for c in ("person_id", "source_file", "malformed", "unmatched")]
    for name, kind in book.column_types().items():
        if name == book.person_id:
            continue
        text = F.nullif(F.trim(F.col(name)), F.lit(""))
        readers = {
            "number": F.when(text.rlike(NUMBER), text.try_cast("double")),
            "time": F.when(text.rlike(DATE), F.try_to_timestamp(text)),
            "text": text,
        }
        columns += [F.col(name).alias(name + RAW), readers[kind].alias(name)]
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


def _add_home_stratum(frame: DataFrame, rows: DataFrame, book: Codebook) -> DataFrame:
    """The stratum in which most eligible rows of a PSU lie; empty where two strata hold as many.

    `rows` are those of `frame` once more: counted apart, no id need be read for them.
    """
    psu, stratum = book.design.psu, book.design.stratum
    assert psu and stratum
    # Filtered afterwards: a filter before would be computed from the delivered text, once more for each condition.
    counts = rows.groupBy(psu, stratum).agg(F.count_if("eligible").alias("rows"))
    counts = counts.where((F.col("rows") > 0) & F.col(psu).isNotNull() & F.col(stratum).isNotNull())
    ranked = counts.groupBy(psu).agg(F.sort_array(F.collect_list(F.struct("rows", stratum)), asc=False).alias("strata"))
    tied = (F.size("strata") > 1) & (F.get("strata", F.lit(0))["rows"] == F.get("strata", F.lit(1))["rows"])
    home = F.when(tied, F.lit("")).otherwise(F.get("strata", F.lit(0))[stratum])
    homes = ranked.select(F.col(psu), home.alias(HOME_STRATUM))
    return frame.join(F.broadcast(homes), on=psu, how="left")


def _first_line(error: AnalysisException) -> str:
    return next(line for line in str(error).splitlines() if line.strip())
