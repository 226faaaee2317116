"""Open Parquet files through Petastorm, with every check that Petastorm leaves out."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from model.errors import ModelError
from model.petastorm_adapter import ParquetDataset, load, read_footers, real_seed

WORKERS = 2


@dataclass(frozen=True)
class Source:
    """Checked files: `group_rows` are the rows of each row group that is not empty, in reading order."""

    filesystem: Any
    urls: list[str]
    group_rows: list[int]


def check_files(
    paths: Sequence[str], columns: Sequence[str], *, storage_options: dict[str, Any] | None = None
) -> Source:
    """Read the footers and check that the files are one table that has these columns, without nulls.

    Raises ModelError naming the file and the columns at fault.
    """
    if not paths:
        raise ModelError("No Parquet files to read: pass the list of files.")
    if not columns:
        raise ModelError("No columns to read: name them.")
    filesystem, files, urls = _resolve_files(paths, storage_options or {})
    if repeated := [file for file, next_file in pairwise(files) if file == next_file]:
        raise ModelError(f"{repeated[0]}: is listed twice; its rows would count twice.")
    dataset = ParquetDataset(files, filesystem)
    footers = read_footers(dataset)
    schemas = [footer.schema.to_arrow_schema() for footer in footers]
    for piece, schema in zip(dataset.pieces, schemas, strict=True):
        if differences := _compare_schemas(schemas[0], schema):
            raise ModelError(
                f"{piece.path}: its columns differ from those of {dataset.pieces[0].path}: "
                f"{'; '.join(differences)}. Read files of one schema only."
            )
    keys = dataset.partitions.partition_names if dataset.partitions else set()
    if missing := [name for name in columns if name not in schemas[0].names and name not in keys]:
        raise ModelError(f"{dataset.pieces[0].path}: has no columns {missing}.")
    for piece, footer in zip(dataset.pieces, footers, strict=True):
        if nullable := sorted(set(columns) & _find_nulls(footer)):
            raise ModelError(f"{piece.path}: columns {nullable} hold nulls: write a code for missing instead.")
    rows = [footer.row_group(i).num_rows for footer in footers for i in range(footer.num_row_groups)]
    return Source(filesystem, urls, [count for count in rows if count])


@contextmanager
def open_reader(
    paths: Sequence[str],
    columns: Sequence[str],
    *,
    seed: int,
    shuffle: bool = True,
    shard: tuple[int, int] | None = None,
    num_epochs: int | None = 1,
    workers: int = WORKERS,
    pool: str = "thread",
    storage_options: dict[str, Any] | None = None,
) -> Iterator[Any]:
    """Open a Petastorm reader over Parquet files; it yields one named tuple of NumPy arrays for each row group.

    `paths` are local files or fsspec URLs of one filesystem; their order does not matter. `shard` (k, n) reads every
    n-th row group from the k-th on. The same seed gives the same order; `num_epochs` None reads without end. The
    reader's threads and files are gone when the block is left.

    Raises ModelError for files that are not one table, columns that are missing, dropped by Petastorm or hold nulls,
    a shard without rows, and the process pool.
    """
    source = check_files(paths, columns, storage_options=storage_options)
    with start_reader(source, columns, seed, shuffle, shard, num_epochs, workers, pool) as reader:
        yield reader


@contextmanager
def start_reader(
    source: Source,
    columns: Sequence[str],
    seed: int,
    shuffle: bool,
    shard: tuple[int, int] | None,
    num_epochs: int | None,
    workers: int,
    pool: str,
) -> Iterator[Any]:
    index, count = shard or (0, 1)
    if not 0 <= index < count <= max(1, len(source.group_rows)):
        raise ModelError(
            f"Shard {index} of {count} has no rows: the files hold {len(source.group_rows)} row groups. "
            "Number the shards from 0, and write at least one row group for each."
        )
    petastorm = load("petastorm")
    # One pattern that matches whole names: Petastorm takes names for regular expressions.
    pattern = "(?:" + "|".join(re.escape(name) for name in columns) + r")\Z"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"petastorm\.")  # columns that nobody asked for
        try:
            reader = petastorm.make_batch_reader(
                source.urls,
                schema_fields=[pattern],
                reader_pool_type=pool,
                workers_count=workers,
                seed=real_seed(seed),
                shuffle_row_groups=shuffle,
                num_epochs=num_epochs,
                cur_shard=index if shard else None,
                shard_count=count if shard else None,
                filesystem=source.filesystem,
                convert_early_to_numpy=True,
            )
        except RuntimeError as error:
            if "No fields matching" in str(error):  # Petastorm dropped every one of them
                raise _name_dropped(list(columns)) from None
            raise
    try:
        if dropped := [name for name in columns if name not in reader.schema.fields]:
            raise _name_dropped(dropped)
        yield reader
    finally:
        reader.stop()
        reader.join()


def _name_dropped(columns: list[str]) -> ModelError:
    return ModelError(
        f"Petastorm cannot read the types of columns {columns}: write them as int8 to int64, float, double, "
        "bool, string, or a list of those."
    )


def _resolve_files(paths: Sequence[str], storage_options: dict[str, Any]) -> tuple[Any, list[str], list[str]]:
    """Find the filesystem of all paths, and each file's path on it and the name that Petastorm takes, sorted."""
    try:
        filesystems, stripped = zip(*(fsspec.core.url_to_fs(path, **storage_options) for path in paths), strict=True)
    except (ValueError, ImportError) as error:
        raise ModelError(f"{paths[0]}: no filesystem for it ({error}).") from error
    if len(set(filesystems)) > 1:
        raise ModelError("The files lie on several filesystems: read them from one.")
    files, urls = zip(*sorted(zip(stripped, paths, strict=True)), strict=True)
    # Petastorm takes a bare path for a local one and any other file by its URL.
    if isinstance(filesystems[0], LocalFileSystem):
        return filesystems[0], list(files), list(files)
    # It loses the empty host of scheme:///path, save for HDFS, which it knows by name.
    urls = tuple(url if url.startswith("hdfs:") else url.replace(":///", "://", 1) for url in urls)
    return filesystems[0], list(files), list(urls)


def _compare_schemas(first: pa.Schema, other: pa.Schema) -> list[str]:
    ours, theirs = ({field.name: field.type for field in schema} for schema in (first, other))
    missing = sorted(set(ours) - set(theirs))
    added = sorted(set(theirs) - set(ours))
    both = [name for name in ours if name in theirs]
    retyped = [f"{name} is {theirs[name]}, not {ours[name]}" for name in both if theirs[name] != ours[name]]
    return [f"without {missing}"] * bool(missing) + [f"with {added} besides"] * bool(added) + retyped


def _find_nulls(footer: Any) -> set[str]:
    """Columns of which the footer's statistics count nulls (a file without statistics is judged as it is read)."""
    found = set()
    for group in (footer.row_group(i) for i in range(footer.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            statistics = column.statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count:
                found.add(column.path_in_schema.split(".list.")[0])
    return found
