"""How person tables lie in Parquet: sorted by pseudonym, cut by the pseudonym's first digits, equal row groups."""

import math
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.tables import ColumnSpec, arrow_schema, select_columns
from model.batches import gather_rows

ROWS_PER_FILE = 1_000_000
ROWS_PER_GROUP = 131_072


def write_people(frame: DataFrame, columns: Sequence[ColumnSpec], rows: int, folder: Path) -> list[Path]:
    """Writes one row a person; the same rows give the same files, whatever the number of cores."""
    files = max(1, math.ceil(rows / ROWS_PER_FILE))
    placed = cut_by_person(select_columns(frame, columns), files).sortWithinPartitions("person_id")
    return write_parquet(placed, columns, folder)


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
    return write_parquet(chosen.repartition(1).sortWithinPartitions(*chosen.columns), columns, folder)


def write_parquet(frame: DataFrame, columns: Sequence[ColumnSpec], folder: Path) -> list[Path]:
    """Writes the frame as it is cut and sorted; returns its files in partition order, of successful attempts alone.

    By Arrow: the same rows give the same bytes. Java's writer lists a column's encodings in an order that hangs on
    where the objects of the process happen to lie.
    """
    folder.mkdir(parents=True)
    schema = arrow_schema(columns)
    make = partial(_write_part, folder=folder, schema=schema)
    files = sorted(Path(row["file"]) for row in frame.mapInArrow(make, "file string").collect())
    if not files:  # where Spark sees that there is no row, it makes no task
        files = [folder / "part-000000-empty.parquet"]
        pq.write_table(schema.empty_table(), files[0], compression="zstd")
    return files


def name_part() -> str:
    """A file name for this attempt at a part alone; names sort as the parts do."""
    task = TaskContext.get()
    assert task
    return f"part-{task.partitionId():06d}-{uuid.uuid4().hex}.parquet"


def _write_part(batches: Iterator[pa.RecordBatch], folder: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    file = folder / name_part()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in gather_rows(batches, ROWS_PER_GROUP):
            writer.write_table(table.select(schema.names).cast(schema), row_group_size=ROWS_PER_GROUP)
    yield pa.record_batch({"file": [str(file)]})
