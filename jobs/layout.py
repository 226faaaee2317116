"""How person tables lie in Parquet: sorted by pseudonym, cut by the pseudonym's first digits, equal row groups."""

import math
from collections.abc import Sequence
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.tables import ColumnSpec, select_columns

ROWS_PER_FILE = 1_000_000
ROWS_PER_GROUP = 131_072


def write_people(frame: DataFrame, columns: Sequence[ColumnSpec], rows: int, folder: Path) -> list[Path]:
    """Writes one row a person; the same rows give the same files, whatever the number of cores."""
    files = max(1, math.ceil(rows / ROWS_PER_FILE))
    placed = cut_by_person(select_columns(frame, columns), files).sortWithinPartitions("person_id")
    return write_parquet(placed, folder)


def cut_by_person(frame: DataFrame, parts: int) -> DataFrame:
    """All rows of a person in one part, the parts in the pseudonyms' order; rows without one anywhere.

    A pseudonym is uniform, so its first 32 bits cut the table into equal parts.
    """
    first_bits = F.conv(F.substring("person_id", 1, 8), 16, 10).cast("bigint")
    part = F.coalesce(F.shiftright(first_bits * parts, 32).cast("int"), F.spark_partition_id() % parts)
    return frame.repartitionById(parts, part)


def write_sorted(frame: DataFrame, columns: Sequence[ColumnSpec], folder: Path) -> list[Path]:
    """Writes a small table as one sorted file."""
    chosen = select_columns(frame, columns)
    return write_parquet(chosen.repartition(1).sortWithinPartitions(*chosen.columns), folder)


def write_parquet(frame: DataFrame, folder: Path) -> list[Path]:
    """Writes the frame as it is cut and sorted; returns its files in partition order."""
    options = {"parquet.block.row.count.limit": str(ROWS_PER_GROUP), "compression": "zstd"}
    frame.write.mode("overwrite").options(**options).parquet(str(folder))
    return sorted(folder.glob("part-*.parquet"))
