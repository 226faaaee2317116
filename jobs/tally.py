"""What is counted of the judged rows. A worker imports this, and no more."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class Tally:
    """Rows by fate, and by rule that they break; `matched` ones are of files with the codebook's columns.

    `unknown_consents` are rows whose consent has a code that the codebook does not know.

    Of all rows, by column: those that hold anything (`filled`). Of accepted ones: the same (`given`), and by value.
    """

    fates: Counter[str] = field(default_factory=Counter)
    matched: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[float]] = field(default_factory=dict)
    unknown_consents: int = 0

    def add(self, other: "Tally") -> None:
        self.matched += other.matched
        self.unknown_consents += other.unknown_consents
        for name in ("fates", "failed", "warned", "filled", "given"):
            getattr(self, name).update(getattr(other, name))
        for column, counts in other.values.items():
            self.values.setdefault(column, Counter()).update(counts)


def add_up(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def tally_rows(judged: pa.Table, answers: Mapping[str, str], typed: Mapping[str, str], accepted: str) -> Tally:
    """Counts judged rows; `answers` and `typed` are columns of them, each with the column of its delivered text."""
    tally = Tally(
        fates=_count(judged["fate"]),
        matched=judged.num_rows - (pc.sum(judged["unmatched"]).as_py() or 0),
        failed=_count(pc.list_flatten(judged["failed_rules"])),
        warned=_count(pc.list_flatten(judged["warned_rules"])),
        filled=Counter({name: _count_filled(judged[name]) for pair in typed.items() for name in pair}),
    )
    kept = judged.select([*answers, *answers.values()]).filter(pc.equal(judged["fate"], accepted))
    tally.given = Counter({column: _count_filled(kept[raw]) for column, raw in answers.items()})
    tally.values = {column: _count(kept[column]) for column in answers}
    return tally


def _count_filled(column: pa.ChunkedArray) -> int:
    return int(pc.count(column).as_py())


def _count(values: pa.ChunkedArray) -> Counter[Any]:
    counts = pc.value_counts(values)
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return Counter({value: count for value, count in pairs if value is not None})
