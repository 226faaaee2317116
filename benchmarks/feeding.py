"""`python -m benchmarks.feeding`: the training's own steps, fed by Petastorm, from memory, and by torch's DataLoader.

Steps, batch size and torch's threads are the same for all; only where batches come from differs. From memory is the
limit: every column lies there as a tensor, and a batch is so many rows of a permutation.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.night import make_lake
from benchmarks.population import ROWS_PER_FILE, make_population
from model.arithmetic import choose_arithmetic
from model.feed import SHUFFLE_ROWS, Batch, training_batches
from model.fitting import Task, TrainingSettings, make_optimizer, take_step
from model.heap import keep_freed_memory
from model.inputs import survey_inputs
from model.registry import load_model
from model.threads import fix_threads

BATCH = 4096
ITEMS = "items"
MEMORY, PETASTORM, DATALOADER = "memory", "Petastorm", "torch's DataLoader over pyarrow"


def main() -> int:
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        make_lake(Path(name))
        figures = measure_feeding(Path(name) / "first", Path(name), arguments.people, arguments.rounds)
    print(json.dumps(figures, indent=1))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feeding", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=200_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where features are made")
    return parser.parse_args()


def measure_feeding(lake: Path, folder: Path, people: int, rounds: int) -> dict[str, Any]:
    """Rows a second of an epoch of training by each feed, by the median of `rounds` in turn; and of feeding alone."""
    population = make_population(lake, folder / "feed", people, ROWS_PER_FILE)
    model = load_model(population.model)
    settings = TrainingSettings(batch_size=BATCH, residuals=model.network.residuals)
    inputs = survey_inputs(population.features, model.spec, settings.weight_column)
    arithmetic = replace(choose_arithmetic(), device=settings.device)  # the steps stay with the processor
    task = Task(population.features, model.spec, settings, inputs, [])
    columns = [*model.spec.columns, "fold", "weight"]
    feeds: dict[str, Callable[[int], Iterator[Batch]]] = {
        MEMORY: keep_in_memory(population.features, columns),
        PETASTORM: lambda epoch: feed_by_petastorm(population.features, columns, epoch),
        DATALOADER: lambda epoch: feed_by_dataloader(population.features, columns, epoch),
    }
    training: dict[str, list[float]] = {name: [] for name in feeds}
    alone: dict[str, list[float]] = {name: [] for name in feeds}
    keep_freed_memory()  # as a training does
    with fix_threads(settings.threads):
        for number in range(rounds + 1):
            for name, feed in feeds.items():
                network = model.network.copy().requires_grad_(True)
                network.numbers = arithmetic.dtype
                optimizer, generator = make_optimizer(network, settings), torch.Generator().manual_seed(number)
                batches, start, rows = iter(feed(number)), 0.0, 0
                for batch in batches:
                    # A reader's start, and the first row group, are a training's, not an epoch's.
                    start = start or time.perf_counter()
                    take_step(network, optimizer, batch, task, generator)
                    rows += len(batch["fold"])
                training[name].append(rows / (time.perf_counter() - start))
                start, rows = time.perf_counter(), sum(len(batch["fold"]) for batch in feed(number))
                alone[name].append(rows / (time.perf_counter() - start))
                told = f"round {number}: {name}: {training[name][-1]:,.0f} rows/s, alone {alone[name][-1]:,.0f}"
                print(told, file=sys.stderr)
    speed = {name: median(found[1:]) for name, found in training.items()}
    return {
        "people": people,
        "rounds": rounds,
        "batch_size": BATCH,
        "threads": settings.threads,
        "numbers": str(arithmetic),
        "share_of_memory": round(speed[PETASTORM] / speed[MEMORY], 3),
        "over_dataloader": round(speed[PETASTORM] / speed[DATALOADER], 3),
        "rows_a_second": {name: round(found) for name, found in speed.items()},
        "rows_a_second_feeding_alone": {name: round(median(found[1:])) for name, found in alone.items()},
    }


def keep_in_memory(paths: Sequence[Path], columns: Sequence[str]) -> Callable[[int], Iterator[Batch]]:
    table = pq.read_table(list(paths), columns=list(columns))
    held = {name: torch.from_numpy(table[name].to_numpy().copy()) for name in columns}

    def feed(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(table.num_rows, generator=torch.Generator().manual_seed(epoch))
        for rows in torch.split(order, BATCH):
            yield {name: column[rows] for name, column in held.items()}

    return feed


def feed_by_petastorm(paths: Sequence[Path], columns: Sequence[str], epoch: int) -> Iterator[Batch]:
    with training_batches([str(path) for path in paths], columns, batch_size=BATCH, seed=1, first_epoch=epoch) as feed:
        yield from feed


class ShuffledRows(IterableDataset[Batch]):
    """Row groups in a random order, rows mixed within so many as Petastorm's queue holds."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str], seed: int) -> None:
        self.paths, self.columns, self.seed = paths, list(columns), seed

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng(self.seed)
        files = [pq.ParquetFile(path) for path in self.paths]
        groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        for place in random.permutation(len(groups)):
            file, group = groups[place]
            for rows in file.iter_batches(SHUFFLE_ROWS, row_groups=[group], columns=self.columns):
                held = {name: torch.from_numpy(rows.column(name).to_numpy().copy()) for name in self.columns}
                # A matrix of all items: each tensor goes from process to process by itself.
                others = [name for name, column in held.items() if column.dtype != torch.int8]
                blocks = {name: held[name] for name in others}
                blocks[ITEMS] = torch.stack([held[name] for name in self.columns if name not in others], dim=1)
                for chosen in torch.split(torch.from_numpy(random.permutation(rows.num_rows)), BATCH):
                    yield {name: block[chosen] for name, block in blocks.items()}


def feed_by_dataloader(paths: Sequence[Path], columns: Sequence[str], epoch: int) -> Iterator[Batch]:
    """One worker process, which reads on while the step computes."""
    for batch in DataLoader(ShuffledRows(paths, columns, epoch), batch_size=None, num_workers=1, prefetch_factor=4):
        items = iter(batch.pop(ITEMS).T.contiguous())
        yield {name: batch[name] if name in batch else next(items) for name in columns}


if __name__ == "__main__":
    sys.exit(main())
