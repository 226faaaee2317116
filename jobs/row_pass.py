"""The row pass in Spark's workers: a part of the people at a time is judged, counted and written, all in Arrow.

Spark reads the extract and brings each person's rows together; a worker imports this, and no more.
"""

import math
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from expectations.codebook import Codebook
from expectations.judging import ACCEPTED, QUARANTINED, Judge, judge_table
from expectations.leaving import WITHDRAWN, Door
from expectations.rules import RAW
from jobs.layout import ROWS_PER_GROUP, cut_by_person, name_part
from jobs.nonresponse import Classes, count_classes
from jobs.tables import accepted_columns, arrow_schema
from jobs.tally import Tally, tally_rows

ROWS_PER_PART = 4 * ROWS_PER_GROUP  # of a large extract: what a worker holds in memory
MOST_CORES = 8  # that a smaller one is cut for
REPLICATES_AT_ONCE = 20  # columns of replicate weights that weigh as much as all others


@dataclass(frozen=True)
class Part:
    """What a successful attempt at a part made: the files of its judged and of its accepted rows, and their counts.

    `totals` are of accepted rows, by column: of the weight and the replicate weights, where there are some.
    """

    judged: str
    accepted: str
    tally: Tally
    classes: Classes
    totals: dict[str, float]


def judge_parts(prepared: DataFrame, rows: int, judge: Judge, door: Door, book: Codebook, folder: Path) -> list[Part]:
    """Has Spark's workers judge all rows; what a failed, repeated or speculative attempt wrote is not named.

    `prepared` is of `reading.prepare_rows`. Cut by rows and codebook alone, so that the cores change nothing.
    """
    held = ROWS_PER_PART // (1 + len(judge.replicates) // REPLICATES_AT_ONCE)
    parts = max(1, math.ceil(rows / held), min(MOST_CORES, math.ceil(rows / ROWS_PER_GROUP)))
    for table in ("judged", "accepted"):
        (folder / table).mkdir(parents=True)
    answers = {item.column: item.column + RAW for item in book.items}
    make = partial(
        _judge_part,
        folder=folder,
        judge=judge,
        door=door,
        answers=answers,
        classed=(book.design.weight, book.design.stratum),
        accepted=arrow_schema(accepted_columns(book)),
    )
    told = cut_by_person(prepared, parts).mapInArrow(make, "part binary").collect()
    return sorted((pickle.loads(row["part"]) for row in told), key=lambda part: part.judged)


def _judge_part(
    batches: Iterator[pa.RecordBatch],
    folder: Path,
    judge: Judge,
    door: Door,
    answers: dict[str, str],
    classed: tuple[str, str | None],
    accepted: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    delivered = list(batches)
    if not delivered:
        return
    staying, gone = door.let_in(pa.Table.from_batches(delivered))
    judged = judge_table(staying, judge)
    name = name_part()
    files = [folder / table / name for table in ("judged", "accepted")]
    kept = judged.select(accepted.names).filter(pc.equal(judged["fate"], ACCEPTED)).cast(accepted)
    for table, file in zip((judged, kept), files, strict=True):
        pq.write_table(table, file, row_group_size=ROWS_PER_GROUP, compression="zstd")
    typed = {name: name + RAW for name, kind in judge.types.items() if kind != "text"}
    typed |= {name: name + RAW for name in judge.replicates}
    weights = (classed[0], *judge.replicates) if judge.replicates else ()
    totals = {name: pc.sum(kept[name]).as_py() or 0.0 for name in weights}
    classes = count_classes(judged, *classed, ACCEPTED, QUARANTINED)
    tally = tally_rows(judged, answers, typed, ACCEPTED)
    tally.add(Tally(Counter({WITHDRAWN: gone.rows}), gone.matched, unknown_consents=gone.unknown))
    part = Part(str(files[0]), str(files[1]), tally, classes, totals)
    yield pa.record_batch({"part": pa.array([pickle.dumps(part)], pa.binary())})
