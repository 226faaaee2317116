"""Make one Parquet file of people from row groups of others: bounded memory, and there whole or not at all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.batches import gather_rows
from model.errors import ModelError
from model.inputs import open_parquet
from model.spec import FeatureSpec

BATCH_ROWS = 32_768  # read at once, however large a row group is


@dataclass(frozen=True)
class Piece:
    """Row groups of one features file; None for all of them."""

    path: Path
    row_groups: tuple[int, ...] | None = None


def rewrite_people(
    pieces: Sequence[Piece],
    spec: FeatureSpec | None,
    others: Sequence[str],
    rows: int,
    make: Callable[[pa.Table], pa.Table],
    target: Path,
    schema: pa.Schema,
    dictionary: Sequence[str],
) -> int:
    """Write what `make` makes of every `rows` people as a row group of `schema`; returns the rows written.

    `make` gets the model's item columns, or none where there is no `spec`, and `others`. `dictionary` are the columns
    that are written with one: of floats and of what differs from person to person it is slow, and saves nothing.
    Raises ModelError for columns that do not fit, naming the file.
    """
    temporary = target.with_name(target.name + ".tmp")
    written = 0
    try:
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", compression_level=1, use_dictionary=list(dictionary)
        ) as writer:
            for table in read_people(pieces, spec, others, rows):
                made = make(table).select(schema.names).cast(schema)
                writer.write_table(made, row_group_size=max(1, made.num_rows))
                written += made.num_rows
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def read_people(
    pieces: Sequence[Piece], spec: FeatureSpec | None, others: Sequence[str], rows: int
) -> Iterator[pa.Table]:
    """The people of the pieces in order, `rows` at a time: the model's item columns, where asked, and `others`.

    Raises ModelError for columns that do not fit, naming the file.
    """
    return gather_rows(_read(pieces, spec, others), rows)


def _read(pieces: Sequence[Piece], spec: FeatureSpec | None, others: Sequence[str]) -> Iterator[pa.RecordBatch]:
    columns = [*(spec.columns if spec else ()), *others]
    for piece in pieces:
        with open_parquet(piece.path) as file:
            if spec:
                spec.check_columns(file.schema_arrow)
            if missing := [name for name in others if name not in file.schema_arrow.names]:
                raise ModelError(f"{piece.path.name} has no columns {', '.join(missing)}: make the features again.")
            groups = range(file.num_row_groups) if piece.row_groups is None else piece.row_groups
            yield from file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=columns, use_threads=False)
