"""Parquet files: the footers checked here, the rows read by Spark, every value turned into text."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from expectations.errors import ContractBroken
from jobs.pseudonym import pseudonymise
from jobs.source_files import escape_path, file_name_column

EXACT = float(2**53)  # below it every integral double is one integer
NANOSECONDS = "spark.sql.legacy.parquet.nanosAsLong"


def read_parquet_header(path: Path) -> tuple[pa.Schema, int]:
    """The columns and the number of rows. Raises ContractBroken where the file is damaged."""
    try:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ContractBroken(f"{path.name} is not a whole Parquet file: ask for it again") from None
    return schema.remove_metadata(), footer.num_rows


def read_parquet_rows(
    spark: SparkSession,
    files: Sequence[Path],
    schemas: Sequence[pa.Schema],
    person_id: str,
    columns: Sequence[str],
    key_path: Path,
) -> DataFrame:
    """`person_id` (pseudonym), the columns as text, `source_file`, `malformed` (false); one row for each row delivered.

    Raises ContractBroken where a column holds lists or other nested values.
    """
    alike: dict[tuple[pa.Field, ...], list[Path]] = {}
    for file, schema in zip(files, schemas, strict=True):
        # Types may differ between parts: whole numbers become doubles in a part with gaps.
        alike.setdefault(tuple(schema.field(name) for name in (person_id, *columns)), []).append(file)
    parts = [_read_alike(spark, part, person_id, columns, key_path) for part in alike.values()]
    return reduce(DataFrame.unionByName, parts)


def _read_alike(
    spark: SparkSession, files: Sequence[Path], person_id: str, columns: Sequence[str], key_path: Path
) -> DataFrame:
    schema = pq.read_schema(files[0])
    nanoseconds = {f.name for f in schema if pa.types.is_timestamp(f.type) and f.type.unit == "ns"}
    if nanoseconds.intersection((person_id, *columns)):
        # Spark has no such type; there is no read option for it.
        spark.conf.set(NANOSECONDS, "true")
    reader = spark.read.option("recursiveFileLookup", True).option("datetimeRebaseMode", "CORRECTED")
    raw = reader.parquet(*[escape_path(file) for file in files])
    types = {field.name: field.dataType for field in raw.schema}
    texts = {}
    for name in (person_id, *columns):
        unit = "ns" if name in nanoseconds and isinstance(types[name], T.LongType) else None
        texts[name] = _to_text(files[0].name, name, types[name], unit)
    person = pseudonymise(texts[person_id], key_path).alias("person_id")
    kept = [texts[name].alias(name) for name in columns]
    return raw.select(person, *kept, file_name_column(files).alias("source_file"), F.lit(False).alias("malformed"))


def _to_text(file: str, name: str, kind: T.DataType, unit: str | None) -> Column:
    """The same text that the same value has in the other formats."""
    column = F.col(f"`{name}`")
    match kind:
        case _ if unit == "ns":
            return _to_iso(F.floor(column / 1000).cast("bigint"))
        case T.StringType() | T.BinaryType():
            text = F.make_valid_utf8(column.cast("string"))
            return F.when(F.trim(text) != "", text)
        case T.BooleanType():
            return column.cast("int").cast("string")
        case T.ByteType() | T.ShortType() | T.IntegerType() | T.LongType() | T.DateType():
            return column.cast("string")
        case T.FloatType() | T.DoubleType():
            number = column.cast("double")
            whole = (number == F.floor(number)) & (F.abs(number) < EXACT)
            text = F.when(whole, number.cast("bigint").cast("string")).otherwise(number.cast("string"))
            return F.when(~F.isnan(number), text)
        case T.DecimalType():
            text = column.cast("string")
            return F.regexp_replace(F.when(text.contains("."), F.rtrim(text, F.lit("0"))).otherwise(text), r"\.$", "")
        case T.TimestampType():
            return _to_iso(F.unix_micros(column))
        case T.TimestampNTZType():
            return F.replace(column.cast("string"), F.lit(" "), F.lit("T"))
        case T.NullType():
            return F.lit(None).cast("string")
        case _:
            said = kind.simpleString()
            raise ContractBroken(f"{file}: column {name} holds {said}: deliver a number, text or date")


def _to_iso(micros: Column) -> Column:
    """ISO 8601 in UTC, whatever the session's time zone."""
    seconds = (micros.cast("decimal(20,0)") / F.lit(1_000_000).cast("decimal(7,0)")).cast("decimal(18,6)")
    moment = F.expr("TIMESTAMP_NTZ '1970-01-01 00:00:00'") + F.make_dt_interval(secs=seconds)
    return F.concat(F.replace(moment.cast("string"), F.lit(" "), F.lit("T")), F.lit("Z"))
