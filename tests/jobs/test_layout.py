"""Tables that Spark makes: the same rows give the same files, whatever their order and cut; none gives an empty one."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from jobs.layout import write_people, write_sorted
from jobs.tables import ColumnSpec
from model.batches import gather_rows

COLUMNS = (
    ColumnSpec("person_id", "string", "who", nullable=False),
    ColumnSpec("phq9_1", "tinyint", "an answer"),
    ColumnSpec("weight", "double", "a weight", nullable=False),
    ColumnSpec("weights", "array<double>", "weights"),
)


def make_rows(spark, people, parts):
    row = F.expr("sha2(cast(id as string), 256) as person_id")
    ids = spark.range(people).orderBy(F.rand(parts)).repartition(parts)
    answer = F.when(F.col("id") % 7 > 0, F.col("id") % 4).alias("phq9_1")
    return ids.select(row, answer, (F.col("id") + 0.5).alias("weight"), F.expr("array(id / 2, null)").alias("weights"))


@pytest.mark.parametrize("write", [write_people, write_sorted])
def test_the_same_rows_give_the_same_bytes(spark, tmp_path, write):
    digests = []
    for parts in (1, 3):
        more = (2_000,) if write is write_people else ()
        (file,) = write(make_rows(spark, 2_000, parts), COLUMNS, *more, tmp_path / f"{parts}")
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    table = pq.read_table(file)
    assert table.schema.field("phq9_1").type == pa.int8() and not table.schema.field("weight").nullable
    assert table["person_id"].to_pylist() == sorted(hashlib.sha256(b"%d" % i).hexdigest() for i in range(2_000))
    assert table["weight"].to_pylist() != sorted(table["weight"].to_pylist())
    assert sum(value is None for value in table["phq9_1"].to_pylist()) == 286


def test_no_row_gives_an_empty_file(spark, tmp_path):
    for nobody, name in ((make_rows(spark, 9, 1).where("false"), "none"), (make_rows(spark, 0, 1), "empty")):
        (file,) = write_sorted(nobody, COLUMNS, tmp_path / name)
        assert pq.read_table(file).num_rows == 0 and pq.read_schema(file).names == [c.name for c in COLUMNS]


@pytest.mark.parametrize("sizes", [[], [3], [10], [4, 6, 25, 0, 1], [100]])
def test_batches_are_gathered_in_order(sizes):
    batches = [pa.record_batch({"at": pa.array(range(size), pa.int64())}) for size in sizes]
    tables = list(gather_rows(iter(batches), 10))
    assert [len(table) for table in tables[:-1]] == [10] * (len(tables) - 1)
    told = [value for table in tables for value in table["at"].to_pylist()]
    assert told == [value for batch in batches for value in batch["at"].to_pylist()]
