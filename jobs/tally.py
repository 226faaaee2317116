"""What is counted of the judged rows, in one read of their files by Arrow. A worker imports this, and no more."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH_ROWS = 65_536


@dataclass
class Tally:
    """Rows by fate, and by rule that they break; `matched` ones are of files with the codebook's columns.

    Of accepted rows, by column: those that hold anything, and those by value.
    """

    fates: Counter[str] = field(default_factory=Counter)
    matched: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[float]] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        self.matched += other.matched
        for name in ("fates", "failed", "warned", "given"):
            getattr(self, name).update(getattr(other, name))
        for column, counts in other.values.items():
            self.values.setdefault(column, Counter()).update(counts)


def add_up(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def tally_file(path: str, columns: Mapping[str, str], accepted: str) -> Tally:
    """Counts one file of judged rows; `columns` are typed columns and the raw one of each."""
    tally = Tally()
    names = ["fate", "unmatched", "failed_rules", "warned_rules", *columns, *columns.values()]
    with pq.ParquetFile(Path(path), read_dictionary=["fate", *columns.values()]) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
            tally.matched += batch.num_rows - (pc.sum(batch.column("unmatched")).as_py() or 0)
            tally.fates.update(_count(batch.column("fate")))
            tally.failed.update(_count(pc.list_flatten(batch.column("failed_rules"))))
            tally.warned.update(_count(pc.list_flatten(batch.column("warned_rules"))))
            kept = batch.filter(pc.equal(batch.column("fate"), accepted))
            for typed, raw in columns.items():
                tally.given[typed] += kept.num_rows - kept.column(raw).null_count
                tally.values.setdefault(typed, Counter()).update(_count(kept.column(typed)))
    return tally


def _count(values: pa.Array) -> dict[Any, int]:
    counts = pc.value_counts(values)
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return {value: count for value, count in pairs if value is not None}
