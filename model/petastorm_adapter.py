"""Petastorm 0.13.1 on a current Arrow and NumPy.

The only module that knows that Petastorm is old, and the only one that replaces names in other packages. Petastorm
still asks for pyarrow's `ParquetDataset` with pieces (gone since pyarrow 15), `pyarrow.filesystem` (16) and
`np.unicode_` (NumPy 2). `install()` hands it stand-ins, in Petastorm's own modules wherever that is enough.
Call `load(name)` to get a Petastorm module that works.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from queue import Empty
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem

from model.errors import ModelError

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
HOLDERS_OF_PQ = (
    "reader",
    "arrow_reader_worker",
    "py_dict_reader_worker",
    "etl.dataset_metadata",
    "etl.metadata_util",
    "etl.rowgroup_indexing",
)
FOOTER_THREADS = 8
WAIT_SECONDS = 0.1
ANY_ROW_GROUP = 2**30  # rows: the queue grows as it must
INTEGER_KEY = re.compile(r"-?[0-9]{1,18}")


class PartitionLevel:
    """One Hive key: its name and its sorted values (int64 if all are whole numbers, else text; null sorts last)."""

    def __init__(self, name: str, values: Iterable[str | None]) -> None:
        distinct = set(values)
        texts = sorted(value for value in distinct if value is not None)
        whole = bool(texts) and all(INTEGER_KEY.fullmatch(text) for text in texts)
        self.name = name
        self.keys: list[str | int | None] = [*(sorted({int(text) for text in texts}) if whole else texts)]
        self.keys += [None] if None in distinct else []
        self.dictionary = pa.array(self.keys, pa.int64() if whole else pa.string())

    def get_index(self, value: str | None) -> int:
        is_whole = value is not None and pa.types.is_int64(self.dictionary.type)
        return self.keys.index(int(value) if is_whole and value is not None else value)


class Partitions(list[PartitionLevel]):
    """The levels of a Hive-partitioned table, outermost first."""

    @property
    def partition_names(self) -> set[str]:
        return {level.name for level in self}


@dataclass(frozen=True)
class ParquetPiece:
    """One file, or one row group of it. `partition_keys` are pairs of key name and index into that level's keys."""

    path: str
    open_file_func: Callable[..., Any]
    row_group: int | None = None
    partition_keys: Sequence[tuple[str, int]] = ()
    footer: pq.FileMetaData | None = None

    def get_metadata(self) -> pq.FileMetaData:
        if self.footer is not None:
            return self.footer
        with self.open_file_func(self.path) as source:
            return pq.read_metadata(source)

    def read(self, columns: Iterable[str] | None = None, partitions: Partitions | None = None) -> pa.Table:
        """Read the columns (all if None), add the partition columns, and close the file."""
        names = None if columns is None else sorted(columns)
        with (
            self.open_file_func(self.path) as source,
            pq.ParquetFile(source, metadata=self.footer, pre_buffer=True) as file,
        ):
            table = file.read(names) if self.row_group is None else file.read_row_group(self.row_group, names)
        levels = {level.name: level for level in partitions or ()}
        for name, index in self.partition_keys:
            table = table.append_column(name, pa.repeat(levels[name].dictionary[index], table.num_rows))
        return table


class ParquetDataset:
    """A folder, a file or a list of files, as pyarrow's legacy dataset showed it.

    Hive keys of a folder are the `key=value` folders below it; those of a file or a list are the unbroken run of
    such folders right above each file. Names that begin with `_` or `.`, and `.crc` files, are left alone in a folder.
    """

    def __init__(self, path_or_paths: str | list[str], filesystem: Any = None, filters: Any = None, **_: Any) -> None:
        if filters:
            raise ModelError("Parquet filters are not supported here: choose the files, or filter the batches.")
        self.fs = filesystem or LocalFileSystem()
        self.paths = path_or_paths
        self.metadata_path: str | None = None
        self.metadata = self.common_metadata = None
        if isinstance(path_or_paths, str) and self.fs.isdir(path_or_paths):
            root = path_or_paths.rstrip("/")
            files = [path for path in sorted(self.fs.find(root)) if _is_data(path[len(root) + 1 :])]
            keys = [_parse_hive_keys(path[len(root) + 1 :]) for path in files]
            self.metadata_path, self.metadata = self._read_summary(f"{root}/_metadata")
            self.common_metadata = self._read_summary(f"{root}/_common_metadata")[1]
        else:
            files = [path_or_paths] if isinstance(path_or_paths, str) else list(path_or_paths)
            keys = [_parse_hive_keys(path) for path in files]
        self.partitions = _find_levels(files, keys)
        levels = {level.name: level for level in self.partitions or ()}
        self.pieces = [
            ParquetPiece(path, self.fs.open, None, [(name, levels[name].get_index(text)) for name, text in pairs])
            for path, pairs in zip(files, keys, strict=True)
        ]

    def _read_summary(self, path: str) -> tuple[str | None, pq.FileMetaData | None]:
        if not self.fs.exists(path):
            return None, None
        with self.fs.open(path) as source:
            return path, pq.read_metadata(source)


def _is_data(relative: str) -> bool:
    private = (part.startswith(("_", ".")) and "=" not in part for part in relative.split("/"))
    return not any(private) and not relative.endswith((".crc", "_$folder$"))


def _parse_hive_keys(path: str) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for folder in reversed(path.split("/")[:-1]):
        name, equals, text = folder.partition("=")
        if not (name and equals):
            break
        pairs.insert(0, (unquote(name), None if text == HIVE_NULL else unquote(text)))
    return pairs


def _find_levels(files: list[str], keys: list[list[tuple[str, str | None]]]) -> Partitions | None:
    names = [name for name, _ in keys[0]] if keys else []
    for path, pairs in zip(files, keys, strict=True):
        if [name for name, _ in pairs] != names:
            raise ModelError(f"{path}: is not partitioned by {names} as {files[0]} is; read one table at a time.")
    values = (PartitionLevel(name, [pairs[i][1] for pairs in keys]) for i, name in enumerate(names))
    return Partitions(values) or None


def read_footers(dataset: ParquetDataset) -> list[pq.FileMetaData]:
    """Read the footer of every file of the dataset, several at once. Raises ModelError naming an unreadable file."""

    def read(piece: ParquetPiece) -> pq.FileMetaData:
        try:
            return piece.get_metadata()
        except (OSError, pa.ArrowException) as error:
            raise ModelError(f"{piece.path}: cannot be read as Parquet ({type(error).__name__}).") from error

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(read, dataset.pieces))


def split_row_groups(dataset: ParquetDataset) -> list[ParquetPiece]:
    """List the row groups that hold rows, in the order of the files. An empty one breaks list columns and shards."""
    return [
        ParquetPiece(piece.path, piece.open_file_func, group, piece.partition_keys, footer)
        for piece, footer in zip(dataset.pieces, read_footers(dataset), strict=True)
        for group in range(footer.num_row_groups)
        if footer.row_group(group).num_rows
    ]


def real_seed(seed: int) -> int:
    """Petastorm takes seed 0 for no seed at all, so seeds count from 1. Raises ModelError for a negative one."""
    if seed < 0:
        raise ModelError(f"seed is {seed}: it must be 0 or more.")
    return seed + 1


def restart_reader(reader: Any, seed: int) -> None:
    """Begin another epoch of a reader that was read to its end, in the order that `seed` gives."""
    reader.ventilator._ventilation_thread.join()  # it may not have seen yet that its epoch is over
    reader.ventilator._rng = np.random.default_rng(real_seed(seed))
    reader.reset()


def make_shuffling_queue(rows: int, batch_size: int, generator: torch.Generator) -> Any:
    """Petastorm's queue, with random numbers of its own: it would draw from torch's global generator.

    It holds `rows` and what is added last, and gives lists of tensors of `batch_size` rows.
    """
    queues = load("petastorm.reader_impl.pytorch_shuffling_buffer")

    class SeededQueue(queues.BatchedRandomShufflingBuffer):  # type: ignore[misc, name-defined]
        _random_indices: Any

        def retrieve(self) -> Any:
            if self._random_indices is None:
                self.next_sample_head = 0
                self._random_indices = torch.randperm(self._size, generator=generator)
            return super().retrieve()

    return SeededQueue(rows - 1 + batch_size, rows - 1, extra_capacity=ANY_ROW_GROUP, batch_size=batch_size)


def to_tensors(group: Any) -> dict[str, torch.Tensor]:
    """A row group as Petastorm gives it, in types that torch has."""
    columns = group._asdict()
    load("petastorm.pytorch")._sanitize_pytorch_types(columns)
    return {name: torch.as_tensor(column) for name, column in columns.items()}


def _count_nulls(column: pa.ChunkedArray) -> int:
    inside = _count_nulls(pc.list_flatten(column)) if pa.types.is_list(column.type) else 0
    return int(column.null_count + inside)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _convert_strictly(convert: Callable[[pa.Table, Any], dict[str, Any]]) -> Callable[[pa.Table, Any], dict[str, Any]]:
    """Nulls would silently become NaN, 0 or the text 'None', second chunks be lost; and torch wants to write.

    Petastorm makes a pandas series of every column; of plain numbers Arrow makes the same array in a tenth of the time.
    """

    def convert_table(table: pa.Table, schema: Any) -> dict[str, Any]:
        nullable = sorted(name for name in table.column_names if _count_nulls(table.column(name)))
        if nullable:
            raise ModelError(f"Columns {nullable} hold nulls: write a code for missing, or do not read them.")
        numbers = [field.name for field in table.schema if _is_number(field.type)]
        arrays = convert(table.drop_columns(numbers).combine_chunks(), schema)
        arrays |= {name: table.column(name).to_numpy() for name in numbers}
        return {name: np.require(array, requirements="W") for name, array in arrays.items()}

    return convert_table


def _get_results_in_order(pool: Any) -> Any:
    """Take results strictly in the order in which work was handed out.

    Petastorm's own loop skips a worker that has nothing to do yet, so two workers may swap, and it looks at the
    workers before the ventilator, so a last row group handed out in between is lost.
    """
    workers_pool = import_module("petastorm.workers_pool")
    while True:
        all_handed_out = pool._ventilator is None or pool._ventilator.completed()
        if all_handed_out and pool.all_workers_done():
            raise workers_pool.EmptyResultError
        worker = sum(pool._ventilated_items_processed_by_worker) % pool.workers_count
        try:
            result = pool._results_queues[worker].get(timeout=WAIT_SECONDS)
        except Empty:
            continue
        if isinstance(result, Exception):
            pool.stop()
            pool.join()
            raise result
        if not isinstance(result, workers_pool.VentilatedItemProcessedMessage):
            return result
        pool._ventilated_items_processed_by_worker[worker] += 1
        if pool._ventilator:
            pool._ventilator.processed_item()


def _ventilate_from_sorted(ventilate: Callable[[Any], None]) -> Callable[[Any], None]:
    """An epoch's order shall depend on its seed alone, not on the order of the epoch before."""

    def ventilate_sorted(ventilator: Any) -> None:
        # Not sorted in place: a list looks empty while it sorts, and the reader would take that for the end.
        items = ventilator._items_to_ventilate
        ventilator._items_to_ventilate = sorted(items, key=lambda item: item.get("piece_index", 0))
        ventilate(ventilator)

    return ventilate_sorted


def _refuse_processes(*_: Any, **__: Any) -> None:
    raise ModelError(
        "Petastorm's process pool does not work here: its workers start without these stand-ins. "
        "Use the thread pool; Arrow decodes outside Python's lock, so threads are enough."
    )


@cache
def install() -> None:
    """Make Petastorm importable and right. Safe to call again."""
    np.unicode_, np.string_ = np.str_, np.bytes_  # type: ignore[attr-defined]
    gone = {"pyarrow.filesystem": {"LocalFileSystem": LocalFileSystem}, "pyarrow.hdfs": {"HadoopFileSystem": object}}
    for name, content in gone.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    try:
        module = {name: import_module(f"petastorm.{name}") for name in HOLDERS_OF_PQ}
    finally:
        for name in gone:  # needed by Petastorm's imports alone: others must not take them for the real ones
            del sys.modules[name]
    stand_in = SimpleNamespace(**vars(pq) | {"ParquetDataset": ParquetDataset, "ParquetDatasetPiece": ParquetPiece})
    for holder in module.values():
        vars(holder)["pq"] = stand_in
    for worker in ("arrow_reader_worker", "py_dict_reader_worker"):
        # It opens every file once more, never uses it and never closes it.
        vars(module[worker])["ParquetFile"] = lambda source: source.close()
    vars(import_module("petastorm.fs_utils"))["pyarrow"] = SimpleNamespace(localfs=LocalFileSystem())
    vars(module["etl.dataset_metadata"])["_split_row_groups_from_footers"] = split_row_groups
    convert = module["arrow_reader_worker"].convert_arrow_table_to_numpy_dict
    vars(module["arrow_reader_worker"])["convert_arrow_table_to_numpy_dict"] = _convert_strictly(convert)
    vars(module["reader"])["ProcessPool"] = _refuse_processes
    module["reader"].ThreadPool.get_results = _get_results_in_order
    ventilator = module["reader"].ConcurrentVentilator
    ventilator._ventilate = _ventilate_from_sorted(ventilator._ventilate)


def load(name: str) -> Any:
    """Import a module of Petastorm, such as "petastorm.pytorch", with the stand-ins in place."""
    install()
    return import_module(name)
