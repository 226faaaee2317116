"""Feed a training from Parquet through Petastorm: batches of tensors, shuffled, exact epochs, one reader throughout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow  # noqa: F401 - before torch: loading them the other way round is a known cause of crashes
import torch

from model.errors import ModelError
from model.parquet_reader import WORKERS, check_files, start_reader
from model.petastorm_adapter import load, real_seed, restart_reader

Batch = dict[str, torch.Tensor]

# Rows that wait in the shuffling queue, besides the row group that came last: a batch mixes several row groups.
SHUFFLE_ROWS = 65_536


@dataclass(frozen=True)
class _BlockReader:
    """A reader as the loader sees it, with the columns of one type side by side in one matrix.

    The loader's queue gathers each array for itself: over sixty narrow columns that costs ten times the reading.
    """

    reader: Any
    blocks: dict[str, list[str]]
    batched_output = True

    def __iter__(self) -> Iterator[Any]:
        for row in self.reader:
            arrays = {
                key: np.stack([getattr(row, name) for name in names], axis=1) for key, names in self.blocks.items()
            }
            yield SimpleNamespace(_asdict=lambda arrays=arrays: arrays)


def _group_columns(fields: dict[str, Any], columns: Sequence[str]) -> dict[str, list[str]]:
    """Group scalar columns by type; a list column stays by itself."""
    blocks: dict[str, list[str]] = {}
    for name in columns:
        key = f"list {name}" if fields[name].shape else np.dtype(fields[name].numpy_dtype).name
        blocks.setdefault(key, []).append(name)
    return blocks


class TrainingFeed:
    """Batches for a training; each `for batch in feed` is one epoch: every row once, in a new order.

    `rows` are the rows of an epoch. A batch maps each column to a tensor of `batch_size` rows (the last one fewer).
    """

    def __init__(self, reader: Any, columns: Sequence[str], batch_size: int, seed: int, epoch: int, rows: int) -> None:
        self.rows = rows
        self._reader = reader
        self._columns = columns
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._started = False

    def __iter__(self) -> Iterator[Batch]:
        if self._started:
            self._restart()
        self._started = True
        blocks = _group_columns(self._reader.schema.fields, self._columns)
        loader = load("petastorm.pytorch").BatchedDataLoader(
            _BlockReader(self._reader, blocks), batch_size=self._batch_size, shuffling_queue_capacity=SHUFFLE_ROWS
        )
        random_state = torch.Generator().manual_seed(_derive_seed(self._seed, self._epoch)).get_state()
        batches = iter(loader)
        while True:
            # The queue draws from torch's global generator: lend it one of its own, so that feed and model
            # never disturb each other's numbers.
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(random_state)
                batch = next(batches, None)
                random_state = torch.get_rng_state()
            if batch is None:
                return
            # Columns out of a block lie one after the other, so each is contiguous.
            tensors = {
                name: column
                for key, names in blocks.items()
                for name, column in zip(names, batch[key].transpose(0, 1).contiguous().unbind(), strict=True)
            }
            yield {name: tensors[name] for name in self._columns}

    def _restart(self) -> None:
        if not self._reader.last_row_consumed:
            for _ in self._reader:  # an epoch that was left early: Petastorm starts anew only from the end
                pass
        self._epoch += 1
        restart_reader(self._reader, _derive_seed(self._seed, self._epoch))


@contextmanager
def training_batches(
    paths: Sequence[str],
    columns: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    shard: tuple[int, int] | None = None,
    first_epoch: int = 0,
    storage_options: dict[str, Any] | None = None,
) -> Iterator[TrainingFeed]:
    """Open one reader for a whole training; iterate over the feed once for each epoch.

    An epoch's order depends on `seed` and its number alone: a training that resumes passes its `first_epoch` and gets
    the batches that it would have had. Row groups are shuffled, then rows within a queue of SHUFFLE_ROWS and more.

    Raises ModelError as `open_reader` does, and for columns that are not numbers.
    """
    if batch_size < 1:
        raise ModelError(f"batch_size is {batch_size}: it must be 1 or more.")
    source = check_files(paths, columns, storage_options=storage_options)
    first_seed = _derive_seed(seed, first_epoch)
    with start_reader(source, columns, first_seed, True, shard, 1, WORKERS, "thread") as reader:
        if texts := [name for name in columns if not _is_number(reader.schema.fields[name].numpy_dtype)]:
            raise ModelError(f"Columns {texts} are not numbers: a training is fed with numbers alone.")
        index, count = shard or (0, 1)
        yield TrainingFeed(reader, columns, batch_size, seed, first_epoch, sum(source.group_rows[index::count]))


def _is_number(numpy_type: Any) -> bool:
    return issubclass(numpy_type, np.number | np.bool_)


def _derive_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([real_seed(seed), epoch]).generate_state(1, np.uint32)[0])
