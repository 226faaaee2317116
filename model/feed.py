"""Feed a training from Parquet through Petastorm: batches of tensors, shuffled, exact epochs, one reader throughout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow  # noqa: F401 - before torch: loading them the other way round is a known cause of crashes
import torch

from model.errors import ModelError
from model.parquet_reader import WORKERS, check_files, start_reader
from model.petastorm_adapter import make_shuffling_queue, real_seed, restart_reader, to_tensors

Batch = dict[str, torch.Tensor]

# Rows that wait in the shuffling queue, besides the row group that came last: a batch mixes several row groups.
SHUFFLE_ROWS = 65_536
BATCHES_AHEAD = 8  # made while a step computes
WAIT_SECONDS = 0.1


def _group_columns(fields: dict[str, Any], columns: Sequence[str]) -> dict[str, list[str]]:
    """Group scalar columns by type; a list column stays by itself.

    The queue gathers each tensor for itself: over sixty narrow columns that costs ten times the reading.
    """
    blocks: dict[str, list[str]] = {}
    for name in columns:
        key = f"list {name}" if fields[name].shape else np.dtype(fields[name].numpy_dtype).name
        blocks.setdefault(key, []).append(name)
    return blocks


class _Ahead:
    """What an iterator gives, taken from it in a thread of its own, some of it before it is asked for."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._made: Queue[Batch | Exception | None] = Queue(BATCHES_AHEAD)
        self._stopped = Event()
        self._thread = Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        while (made := self._made.get()) is not None:
            if isinstance(made, Exception):
                raise made
            yield made

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for batch in self._batches:
                if not self._hand_over(batch):
                    return
            self._hand_over(None)
        except Exception as error:
            self._hand_over(error)

    def _hand_over(self, made: Batch | Exception | None) -> bool:
        """Waits while there is no room; false where nobody takes any more."""
        while not self._stopped.is_set():
            try:
                self._made.put(made, timeout=WAIT_SECONDS)
            except Full:
                continue
            return True
        return False


class TrainingFeed:
    """Batches for a training; each `for batch in feed` is one epoch: every row once, in a new order.

    `rows` are the rows of an epoch. A batch maps each column to a tensor of `batch_size` rows (the last one fewer).
    Batches are read, shuffled and cut in a thread of their own, ahead of the steps that take them. A lone row group
    that the shuffling queue holds whole is read once: small samples need many epochs, and reading is a tenth of each.
    """

    def __init__(
        self, reader: Any, columns: Sequence[str], batch_size: int, seed: int, epoch: int, group_rows: Sequence[int]
    ) -> None:
        self.rows = sum(group_rows)
        self._keeps = len(group_rows) == 1 and self.rows <= SHUFFLE_ROWS
        self._kept: list[torch.Tensor] = []
        self._reader = reader
        self._columns = columns
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._ahead: _Ahead | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._ahead is not None:
            self._restart()
        self._ahead = _Ahead(self._make_batches())
        yield from self._ahead

    def stop(self) -> None:
        """Make no more batches of this epoch."""
        if self._ahead is not None:
            self._ahead.stop()

    def _make_batches(self) -> Iterator[Batch]:
        blocks = _group_columns(self._reader.schema.fields, self._columns)
        generator = torch.Generator().manual_seed(_derive_seed(self._seed, self._epoch))
        queue = make_shuffling_queue(SHUFFLE_ROWS, self._batch_size, generator)
        for stacked in [self._kept] if self._kept else self._read_groups(blocks):
            queue.add_many(stacked)
            yield from self._take(queue, blocks)
        queue.finish()
        yield from self._take(queue, blocks)

    def _read_groups(self, blocks: dict[str, list[str]]) -> Iterator[list[torch.Tensor]]:
        for group in self._reader:
            columns = to_tensors(group)
            stacked = [torch.stack([columns[name] for name in names], dim=1) for names in blocks.values()]
            if self._keeps:
                self._kept = stacked
            yield stacked

    def _take(self, queue: Any, blocks: dict[str, list[str]]) -> Iterator[Batch]:
        while queue.can_retrieve():
            # Columns out of a block lie one after the other, so each is contiguous.
            tensors = {
                name: column
                for names, block in zip(blocks.values(), queue.retrieve(), strict=True)
                for name, column in zip(names, block.transpose(0, 1).contiguous().unbind(), strict=True)
            }
            yield {name: tensors[name] for name in self._columns}

    def _restart(self) -> None:
        self.stop()
        self._epoch += 1
        if self._kept:
            return
        if not self._reader.last_row_consumed:
            for _ in self._reader:  # an epoch that was left early: Petastorm starts anew only from the end
                pass
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
        feed = TrainingFeed(reader, columns, batch_size, seed, first_epoch, source.group_rows[index::count])
        try:
            yield feed
        finally:
            feed.stop()


def count_largest_shard(paths: Sequence[str], columns: Sequence[str], count: int) -> int:
    """Rows of the largest of `count` shards. Raises ModelError as `open_reader` does."""
    rows = check_files(paths, columns).group_rows
    return max(sum(rows[index::count]) for index in range(count))


def _is_number(numpy_type: Any) -> bool:
    return issubclass(numpy_type, np.number | np.bool_)


def _derive_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([real_seed(seed), epoch]).generate_state(1, np.uint32)[0])
