"""The design of the sample: its strata and PSUs, which every variance is estimated from."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from expectations.rules import HOME_STRATUM
from jobs.nonresponse import WHOLE

HIGHEST = "highest_fpc"


def find_design(judged: DataFrame, book: Codebook) -> DataFrame:
    """The strata and PSUs of the whole sample: ineligible rows and rows with a bad answer define it too."""
    stratum, psu = name_stratum(book), name_psu(book)
    sound = stratum.isNotNull() & psu.isNotNull() & ~F.col("malformed") & ~F.col("unmatched")
    if book.design.psus_have_home:
        sound = sound & (F.coalesce(F.col(HOME_STRATUM), stratum) == stratum)
    fpc = F.col(book.design.fpc) if book.design.fpc else F.lit(None).cast("double")
    rows = judged.where(sound).select(stratum.alias("stratum"), psu.alias("psu"), fpc.alias("fpc"))
    counted = F.count(F.lit(1)).alias("rows")
    return rows.groupBy("stratum", "psu").agg(counted, F.min("fpc").alias("fpc"), F.max("fpc").alias(HIGHEST)).cache()


def name_stratum(book: Codebook) -> Column:
    return F.col(book.design.stratum) if book.design.stratum else F.lit(WHOLE)


def name_psu(book: Codebook) -> Column:
    """The PSU's identity: with `nest`, stratum and label together; null where one of them is."""
    psu = F.col(book.design.psu) if book.design.psu else F.lit(WHOLE)
    return F.concat(name_stratum(book), F.lit(":"), psu) if book.design.nest else psu


def check_design(book: Codebook, design: DataFrame) -> None:
    """Raises ContractBroken for a stratum with one PSU under `fail`, and for an fpc that cannot be."""
    if book.design.fpc:
        rows = design.groupBy("stratum").agg(F.count(F.lit(1)), F.min("fpc"), F.max(HIGHEST)).collect()
        check_fpc(book.design.fpc, sorted(tuple(row) for row in rows))
    if book.design.lonely_psu != "fail" or book.design.replicates:
        return
    lonely = sorted(row["stratum"] for row in design.groupBy("stratum").count().where("count < 2").collect())
    if lonely:
        raise ContractBroken(
            f"stratum {', '.join(lonely[:5])}{' …' if len(lonely) > 5 else ''} has one PSU, so that no variance can be "
            "estimated: have the design corrected, or choose another `design.lonely_psu` in the codebook"
        )


def check_fpc(column: str, strata: Sequence[tuple[str, int, float | None, float | None]]) -> None:
    """Of each stratum its PSUs, its least and its highest fpc. Raises ContractBroken that names the stratum."""
    are_shares = all(high is None or high <= 1 for _, _, _, high in strata)
    for stratum, psus, low, high in strata:
        if low is None or high is None:
            raise ContractBroken(f"column {column}: stratum {stratum} has no population of PSUs: have it delivered")
        if low != high:
            raise ContractBroken(f"column {column}: stratum {stratum} has both {low:g} and {high:g}: it must have one")
        if low <= 0 or (not are_shares and low < psus):
            raise ContractBroken(
                f"column {column}: stratum {stratum} has {psus} PSUs in the sample but {low:g} in the population: "
                "give the population's PSUs, or for every stratum the share of them that was sampled"
            )


def read_sampled(paths: Sequence[Path]) -> dict[str, float]:
    """The share of its PSUs that the sample holds, of each stratum with an fpc: 1 at most, as R reads it."""
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    if "fpc" not in table.column_names:  # of a night before there was one
        return {}
    strata, fpc = table["stratum"].to_pylist(), table["fpc"].to_pylist()
    psus = Counter(strata)
    known = {stratum: value for stratum, value in zip(strata, fpc, strict=True) if value is not None}
    are_shares = all(value <= 1 for value in known.values())
    return {stratum: value if are_shares else psus[stratum] / value for stratum, value in known.items()}


def read_design(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """The (stratum, psu) pairs of the full design."""
    table = pa.concat_tables([pq.read_table(path, columns=["stratum", "psu"]) for path in paths])
    return list(zip(table["stratum"].to_pylist(), table["psu"].to_pylist(), strict=True))
