"""The design of the sample: its strata and PSUs, which every variance is estimated from."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from expectations.rules import HOME_STRATUM


def find_design(judged: DataFrame, book: Codebook) -> DataFrame:
    """The strata and PSUs of the whole sample: ineligible rows and rows with a bad answer define it too."""
    stratum, psu = F.col(book.design.stratum), F.col(book.design.psu)
    sound = stratum.isNotNull() & psu.isNotNull() & ~F.col("malformed") & ~F.col("unmatched")
    if not book.design.nest:
        sound = sound & (F.coalesce(F.col(HOME_STRATUM), stratum) == stratum)
    rows = judged.where(sound).select(stratum.alias("stratum"), name_psu(book).alias("psu"))
    return rows.groupBy("stratum", "psu").agg(F.count(F.lit(1)).alias("rows")).cache()


def name_psu(book: Codebook) -> Column:
    """The PSU's identity: with `nest`, stratum and label together."""
    stratum, psu = F.col(book.design.stratum), F.col(book.design.psu)
    return F.concat_ws(":", stratum, psu) if book.design.nest else psu


def check_design(book: Codebook, design: DataFrame) -> None:
    """Raises ContractBroken for a stratum with one PSU where the codebook says `fail`."""
    if book.design.lonely_psu != "fail":
        return
    lonely = sorted(row["stratum"] for row in design.groupBy("stratum").count().where("count < 2").collect())
    if lonely:
        raise ContractBroken(
            f"stratum {', '.join(lonely[:5])}{' …' if len(lonely) > 5 else ''} has one PSU, so that no variance can be "
            "estimated: have the design corrected, or choose another `design.lonely_psu` in the codebook"
        )


def read_design(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """The (stratum, psu) pairs of the full design."""
    table = pa.concat_tables([pq.read_table(path, columns=["stratum", "psu"]) for path in paths])
    return list(zip(table["stratum"].to_pylist(), table["psu"].to_pylist(), strict=True))
