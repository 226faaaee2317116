"""Work items: row groups of features files that Spark deals out. A worker imports this, and the model, and no more."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkContext

if TYPE_CHECKING:
    from model.arithmetic import Arithmetic
    from model.rewriting import Piece
    from model.scoring import Scorer


Groups = tuple[tuple[str, tuple[int, ...]], ...]  # files, and the row groups of each


@dataclass(frozen=True)
class WorkItem:
    """Row groups of features files, and the file to be made of them, less its ending."""

    pieces: Groups
    target: str

    def read_pieces(self) -> list["Piece"]:
        from model.rewriting import Piece

        return [Piece(Path(path), groups) for path, groups in self.pieces]


@dataclass(frozen=True)
class Made:
    """What a successful attempt at a work item made: the file, and its rows."""

    file: str
    rows: int


def deal_work(features: Sequence[Path], scratch: Path, rows_per_item: int) -> list[WorkItem]:
    """Work items of `deal_groups`, each with a file of its own in `scratch`."""
    shares = deal_groups(features, rows_per_item)
    return [WorkItem(share, str(scratch / f"part-{number:06d}")) for number, share in enumerate(shares)]


def deal_groups(files: Sequence[Path], rows_per_item: int) -> list[Groups]:
    """Row groups in their order, so many that an item has `rows_per_item` or a row group more; empty ones left out.

    By rows alone, so that the output's files do not hang on the cores.
    """
    shares: list[dict[str, list[int]]] = [{}]
    rows = 0
    for file, group, count in _list_groups(files):
        if rows >= rows_per_item:
            shares.append({})
            rows = 0
        shares[-1].setdefault(str(file), []).append(group)
        rows += count
    return [tuple((file, tuple(groups)) for file, groups in share.items()) for share in shares]


def _list_groups(features: Sequence[Path]) -> Iterator[tuple[Path, int, int]]:
    for file in features:
        footer = pq.read_metadata(file)
        for group in range(footer.num_row_groups):
            if rows := footer.row_group(group).num_rows:
                yield file, group, rows


def run_items(spark: SparkContext, items: Sequence[WorkItem], make: Callable[[WorkItem], Made]) -> list[Made]:
    """Has Spark's workers make every item; what a failed, repeated or speculative attempt wrote is not named."""
    return spark.parallelize(items, len(items)).map(make).collect()


def score_item(item: WorkItem, model: str, schema: bytes, arithmetic: "Arithmetic") -> Made:
    """Scores one work item in a Spark worker."""
    from model.scoring import score_file

    columns, scorer = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model, arithmetic)
    return write_item(item, lambda pieces, file: score_file(scorer, pieces, file, columns))


def explain_item(item: WorkItem, model: str, schema: bytes) -> Made:
    """Explains one work item in a Spark worker."""
    from model.arithmetic import EXACT
    from model.explaining import explain_file

    columns, loaded = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model, EXACT).model
    return write_item(item, lambda pieces, file: explain_file(loaded, pieces, file, columns))


def write_item(item: WorkItem, write: Callable[[list["Piece"], Path], int]) -> Made:
    """Has `write` make the item's file, under a name of this attempt's own."""
    file = Path(f"{item.target}-{uuid.uuid4().hex}.parquet")
    return Made(str(file), write(item.read_pieces(), file))


@lru_cache(maxsize=1)
def load_scorer(model: str, arithmetic: "Arithmetic") -> "Scorer":
    """The scorer, once a worker; frozen out of the garbage collection that runs after every task."""
    import gc

    from model.heap import keep_freed_memory
    from model.scoring import Scorer

    keep_freed_memory()
    scorer = Scorer.load(Path(model), arithmetic)
    gc.collect()
    gc.freeze()
    return scorer
