"""What a differentially private release adds up, in whole units, so that sums are exact and one person's part bounded.

For every breakdown and scale: people with an answer, their weights by interval of the total (and of those without one),
and the weighted total and its square about the middle of the scale. A person is in one cell and one interval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import duckdb

from expectations.codebook import Codebook
from expectations.outcomes import Outcome
from jobs.movement import connect_duckdb

UNITS = 2**20  # of the heaviest weight: what one person adds to a sum at most
Breakdown = tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One scale's outcomes. `cuts` are where the intervals of the total begin, the first apart."""

    source: str
    span: tuple[float, float]
    cuts: tuple[float, ...]
    has_mean: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """The queries, each of which one person changes by at most one unit of its own."""
        return ("n", "intervals", "total", "square") if self.has_mean else ("n", "intervals")

    @property
    def middle(self) -> float:
        return sum(self.span) / 2

    @property
    def half(self) -> float:
        return (self.span[1] - self.span[0]) / 2


@dataclass(frozen=True)
class CellSums:
    """One cell's sums for one question, `n` in people, all else in weight units; `intervals` ends with no answer."""

    breakdown: Breakdown
    cell: tuple[str, ...]
    question: Question
    n: int
    intervals: tuple[int, ...]
    total: int | None = None
    square: int | None = None


def list_questions(outcomes: Sequence[Outcome]) -> list[Question]:
    """Of the means and proportions of totals, in the order of the codebook's outcomes.

    A proportion on the other side of its cut begins its interval one step higher: totals are compared as they stand.
    """
    asked = [outcome for outcome in outcomes if not outcome.latent and outcome.kind in ("mean", "proportion")]
    questions = []
    for source in dict.fromkeys(outcome.source for outcome in asked):
        own = [outcome for outcome in asked if outcome.source == source]
        cuts = sorted({start_interval(outcome) for outcome in own if outcome.cut is not None})
        questions.append(Question(source, own[0].span, tuple(cuts), any(one.kind == "mean" for one in own)))
    return questions


def start_interval(outcome: Outcome) -> float:
    """Where the interval begins whose lower or upper side the proportion is of. Totals are compared in steps of 1/1000:
    a prorated total is no whole number."""
    assert outcome.cut is not None
    return outcome.cut if outcome.side == ">=" else outcome.cut + 0.001


def list_cells(book: Codebook, breakdown: Breakdown) -> list[tuple[str, ...]]:
    """All that the codebook allows, also those without anybody: which there are would tell who is in the data."""
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}
    return list(product(*(groups[name] for name in breakdown)))


def add_up(
    files: Sequence[Path], book: Codebook, questions: Sequence[Question], largest: float, scratch: Path
) -> list[CellSums]:
    """The exact sums of every cell, from the Parquet files of the features; weights are cut at `largest`."""
    found: list[CellSums] = []
    with connect_duckdb(scratch) as connection:
        listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
        weight = f"CAST(round(least(weight / {largest!r}, 1.0) * {UNITS}) AS BIGINT)"
        connection.execute(
            f"CREATE VIEW people AS SELECT *, {weight} AS units "
            f"FROM read_parquet([{listed}], hive_partitioning = false) WHERE weight > 0"
        )
        for breakdown in book.breakdowns:
            for question in questions:
                found += _add_up_cells(connection, breakdown, list_cells(book, breakdown), question)
    return found


def _add_up_cells(
    connection: duckdb.DuckDBPyConnection, breakdown: Breakdown, cells: Sequence[tuple[str, ...]], question: Question
) -> Iterator[CellSums]:
    names = ", ".join(f'"{name}"' for name in breakdown)
    scaled = f'(("{question.source}" - {question.middle!r}) / {question.half!r})'
    ends = [None, *question.cuts, None]
    sums = [f'count("{question.source}")']
    for low, high in pairwise(ends):
        bounds = [f'"{question.source}" IS NOT NULL']
        bounds += [f'"{question.source}" >= {low!r}'] if low is not None else []
        bounds += [f'"{question.source}" < {high!r}'] if high is not None else []
        sums.append(f"sum(units) FILTER ({' AND '.join(bounds)})")
    sums.append(f'sum(units) FILTER ("{question.source}" IS NULL)')
    if question.has_mean:
        sums += [f"sum(CAST(round(units * {scaled}) AS BIGINT))", f"sum(CAST(round(units * {scaled} ** 2) AS BIGINT))"]
    grouped = f" GROUP BY {names}" if names else ""
    chosen = ", ".join([*([names] if names else []), *sums])
    rows = connection.execute(f"SELECT {chosen} FROM people{grouped}").fetchall()
    found = {tuple(row[: len(breakdown)]): row[len(breakdown) :] for row in rows}
    for cell in cells:
        n, *rest = (int(value or 0) for value in found.get(cell, [0] * len(sums)))
        intervals = tuple(rest[: len(question.cuts) + 2])
        total, square = rest[len(intervals) :] if question.has_mean else (None, None)
        yield CellSums(breakdown, cell, question, n, intervals, total, square)
