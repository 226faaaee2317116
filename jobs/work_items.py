"""Work items: row groups of features files that Spark deals out. A worker imports this, and the model, and no more."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class WorkItem:
    """Row groups of one features file, and where what is made of them goes."""

    source: str
    row_groups: tuple[int, ...]
    target: str


def deal_work(features: Sequence[Path], scratch: Path, groups_per_task: int) -> list[WorkItem]:
    items: list[WorkItem] = []
    for file in features:
        groups = range(pq.read_metadata(file).num_row_groups)
        for start in range(0, len(groups), groups_per_task):
            target = scratch / f"part-{len(items):06d}.parquet"
            items.append(WorkItem(str(file), tuple(groups[start : start + groups_per_task]), str(target)))
    return items


def score_item(item: WorkItem, model: str, schema: bytes) -> int:
    """Scores one work item in a Spark worker; returns its rows."""
    from model.scoring import score_file

    columns, scorer = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model)
    return write_item(item, lambda file: score_file(scorer, Path(item.source), file, columns, item.row_groups))


def explain_item(item: WorkItem, model: str, schema: bytes) -> int:
    """Explains one work item in a Spark worker; returns its rows."""
    from model.explaining import explain_file

    columns, loaded = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model).model
    return write_item(item, lambda file: explain_file(loaded, Path(item.source), file, columns, item.row_groups))


def write_item(item: WorkItem, write: Callable[[Path], int]) -> int:
    """Has `write` make the item's file; a second attempt makes one of its own and replaces the first's in one step."""
    target = Path(item.target)
    attempt = target.with_suffix(f".{os.getpid()}")
    rows = write(attempt)
    attempt.replace(target)
    return rows


@lru_cache(maxsize=1)
def load_scorer(model: str):  # type: ignore[no-untyped-def]
    """The scorer, once a worker; frozen out of the garbage collection that runs after every task."""
    import gc

    from model.scoring import Scorer

    scorer = Scorer.load(Path(model))
    gc.collect()
    gc.freeze()
    return scorer
