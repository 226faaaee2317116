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
    """Writes one row a person; the same rows give the same files, whatever the number of cores.

    A pseudonym is uniform, so its first 32 bits cut the table into files of about ROWS_PER_FILE rows, in order.
    """
    files = max(1, math.ceil(rows / ROWS_PER_FILE))
    first_bits = F.conv(F.substring("person_id", 1, 8), 16, 10).cast("bigint")
    part = F.shiftright(first_bits * files, 32).cast("int")
    placed = select_columns(frame, columns).repartitionById(files, part).sortWithinPartitions("person_id")
    return write_parquet(placed, folder)


def write_sorted(frame: DataFrame, columns: Sequence[ColumnSpec], folder: Path) -> list[Path]:
    """Writes a small table as one sorted file."""
    chosen = select_columns(frame, columns)
    return write_parquet(chosen.repartition(1).sortWithinPartitions(*chosen.columns), folder)


def write_parquet(frame: DataFrame, folder: Path) -> list[Path]:
    """Writes the frame as it is cut and sorted; returns its files in partition order."""
    options = {"parquet.block.row.count.limit": str(ROWS_PER_GROUP), "compression": "zstd"}
    frame.write.mode("overwrite").options(**options).parquet(str(folder))
    return sorted(folder.glob("part-*.parquet"))
