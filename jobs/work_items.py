"""Work items: row groups of features files that Spark deals out. A worker imports this, and the model, and no more."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkContext

from model.errors import ModelError
from model.spec import PERSON

if TYPE_CHECKING:
    from model.arithmetic import Arithmetic
    from model.keeping import Earlier
    from model.rewriting import Piece
    from model.scoring import Scorer


Groups = tuple[tuple[str, tuple[int, ...]], ...]  # files, and the row groups of each
LAST = chr(0x10FFFF)  # after every pseudonym


@dataclass(frozen=True)
class Group:
    """A row group, the rows before it in its table, and between which pseudonyms its people lie."""

    file: str
    number: int
    rows: int
    start: int
    low: str
    high: str

    @property
    def end(self) -> int:
        return self.start + self.rows


@dataclass(frozen=True)
class Stretch:
    """Row groups of an earlier night's features, and of its profiles: after `skip` rows, those of the same people."""

    features: Groups
    profiles: Groups
    skip: int


@dataclass(frozen=True)
class WorkItem:
    """Row groups of features files, and the file to be made of them, less its ending."""

    pieces: Groups
    target: str
    earlier: Stretch | None = None

    def name_file(self) -> Path:
        """A name of this attempt's own."""
        return Path(f"{self.target}-{uuid.uuid4().hex}.parquet")

    def read_pieces(self) -> list["Piece"]:
        return _read_groups(self.pieces)

    def read_earlier(self) -> "Earlier | None":
        from model.keeping import Earlier

        if self.earlier is None:
            return None
        features, profiles = _read_groups(self.earlier.features), _read_groups(self.earlier.profiles)
        return Earlier(features, profiles, self.earlier.skip)


def _read_groups(groups: Groups) -> list["Piece"]:
    from model.rewriting import Piece

    return [Piece(Path(path), numbers) for path, numbers in groups]


@dataclass(frozen=True)
class Made:
    """What a successful attempt at a work item made: the file, its rows, and those whose profile was kept.

    `seconds` of the processor were spent on scoring the others.
    """

    file: str
    rows: int
    kept: int = 0
    seconds: float = 0.0


def deal_work(features: Sequence[Path], scratch: Path, rows_per_item: int) -> list[WorkItem]:
    """Work items of `deal_groups`, each with a file of its own in `scratch`."""
    shares = deal_groups(features, rows_per_item)
    return [WorkItem(share, str(scratch / f"part-{number:06d}")) for number, share in enumerate(shares)]


def deal_groups(files: Sequence[Path], rows_per_item: int) -> list[Groups]:
    """Row groups in their order, so many that an item has `rows_per_item` or a row group more; empty ones left out.

    By rows alone, so that the output's files do not hang on the cores.
    """
    shares: list[list[Group]] = [[]]
    rows = 0
    for group in list_groups(files):
        if rows >= rows_per_item:
            shares.append([])
            rows = 0
        shares[-1].append(group)
        rows += group.rows
    return [join_groups(share) for share in shares]


def list_groups(files: Sequence[Path]) -> Iterator[Group]:
    """Row groups of a table's files in their order, empty ones left out; one that does not tell may hold anybody."""
    start = 0
    for file in files:
        footer = pq.read_metadata(file)
        for number in range(footer.num_row_groups):
            part = footer.row_group(number)
            if rows := part.num_rows:
                columns = [part.column(place) for place in range(part.num_columns)]
                told = [column.statistics for column in columns if column.path_in_schema == PERSON]
                known = bool(told) and told[0] is not None and told[0].has_min_max
                low, high = (told[0].min, told[0].max) if known else ("", LAST)
                yield Group(str(file), number, rows, start, low, high)
                start += rows


def join_groups(groups: Iterable[Group]) -> Groups:
    joined: dict[str, list[int]] = {}
    for group in groups:
        joined.setdefault(group.file, []).append(group.number)
    return tuple((file, tuple(numbers)) for file, numbers in joined.items())


def run_items(spark: SparkContext, items: Sequence[WorkItem], make: Callable[[WorkItem], Made]) -> list[Made]:
    """Has Spark's workers make every item; what a failed, repeated or speculative attempt wrote is not named.

    Raises ModelError as `make` does.
    """
    made = spark.parallelize(items, len(items)).map(partial(_make_or_tell, make)).collect()
    for one in made:
        if isinstance(one, ModelError):
            raise one
    return [one for one in made if isinstance(one, Made)]


def _make_or_tell(make: Callable[[WorkItem], Made], item: WorkItem) -> Made | ModelError:
    """An exception in a worker would be tried again, and told as Spark's own, whose words nobody is shown."""
    try:
        return make(item)
    except ModelError as error:
        return error


def score_item(item: WorkItem, model: str, schema: bytes, arithmetic: "Arithmetic") -> Made:
    """Scores one work item in a Spark worker."""
    from model.scoring import score_file

    columns, scorer, file = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model, arithmetic), item.name_file()
    tally = score_file(scorer, item.read_pieces(), file, columns, item.read_earlier())
    return Made(str(file), tally.rows, tally.kept, tally.seconds)


def explain_item(item: WorkItem, model: str, schema: bytes) -> Made:
    """Explains one work item in a Spark worker."""
    from model.arithmetic import EXACT
    from model.explaining import explain_file

    columns, loaded = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model, EXACT).model
    return write_item(item, lambda pieces, file: explain_file(loaded, pieces, file, columns))


def write_item(item: WorkItem, write: Callable[[list["Piece"], Path], int]) -> Made:
    """Has `write` make the item's file; it returns the rows."""
    file = item.name_file()
    return Made(str(file), write(item.read_pieces(), file))


@lru_cache(maxsize=1)
def load_scorer(model: str, arithmetic: "Arithmetic") -> "Scorer":
    """The scorer, once a worker; frozen out of the garbage collection that runs after every task."""
    import gc

    from model.heap import keep_freed_memory
    from model.scoring import Scorer

    keep_freed_memory()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own gives pages back, and the kernel clears them anew
    scorer = Scorer.load(Path(model), arithmetic)
    nobody = pa.table({key: pa.array([], pa.int8()) for key in scorer.model.spec.columns})
    scorer.score(nobody)  # what the first batch imports is part of the start
    gc.collect()
    gc.freeze()
    return scorer
