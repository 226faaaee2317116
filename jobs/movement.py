"""Who moved between two nights: for each cell, people who came, left or answered anew, counted and never named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from expectations.outcomes import Outcome
from jobs.disclosure import Key, Move

MEMORY = "1GB"  # what does not fit is written below `scratch`


def find_moves(
    now: Sequence[Path],
    then: Sequence[Path],
    breakdowns: Sequence[tuple[str, ...]],
    outcomes: Sequence[Outcome],
    scratch: Path,
) -> dict[Key, Move]:
    """The moves of every cell that one of the nights has, from the Parquet files of both nights' profiles.

    A person who is in the cell with an answer on one night alone has come or left; one whose answer, or side of the
    cut, is another than it was has answered anew.
    """
    names = list(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    answers = [f"{_answer(outcome)} AS o{i}" for i, outcome in enumerate(outcomes)]
    with _open_nights(now, then, [*(f'"{name}"' for name in names), *answers], scratch) as connection:
        found = dict[Key, Move]()
        for breakdown in breakdowns:
            found |= _count_moves(connection, breakdown, outcomes)
    return found


def count_movers(now: Sequence[Path], then: Sequence[Path], answers: Sequence[str], scratch: Path) -> int:
    """How many people came, left, or have another answer than they had; `answers` are columns of both nights."""
    differs = "".join(f' OR now."{name}" IS DISTINCT FROM before."{name}"' for name in answers)
    with _open_nights(now, then, [f'"{name}"' for name in answers], scratch) as connection:
        (people,) = connection.execute(
            "SELECT count(*) FROM now FULL JOIN before ON now.person_id = before.person_id "
            f"WHERE now.person_id IS NULL OR before.person_id IS NULL{differs}"
        ).fetchall()[0]
    return int(people)


@contextmanager
def _open_nights(
    now: Sequence[Path], then: Sequence[Path], columns: Sequence[str], scratch: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The people with a weight as the views `now` and `before`."""
    with connect_duckdb(scratch) as connection:
        for view, files in (("now", now), ("before", then)):
            listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
            connection.execute(
                f"CREATE VIEW {view} AS SELECT {', '.join(['person_id', *columns])} "
                f"FROM read_parquet([{listed}], hive_partitioning = false) WHERE weight > 0"
            )
        yield connection


def connect_duckdb(scratch: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory that writes what does not fit there below `scratch`."""
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute("SET temp_directory = ?", [str(scratch)])
    return connection


def _answer(outcome: Outcome) -> str:
    return f'("{outcome.source}" {outcome.side} {outcome.cut})' if outcome.cut is not None else f'"{outcome.source}"'


def _count_moves(
    connection: duckdb.DuckDBPyConnection, breakdown: tuple[str, ...], outcomes: Sequence[Outcome]
) -> dict[Key, Move]:
    """A join in which everybody has one row, or two where they changed cells."""
    same_cell = "".join(f' AND now."{name}" = before."{name}"' for name in breakdown)
    cell = [f'coalesce(now."{name}", before."{name}")' for name in breakdown]
    counts = []
    for i in range(len(outcomes)):
        counts += [
            f"count(*) FILTER (WHERE now.o{i} IS DISTINCT FROM before.o{i})",
            f"count(now.o{i}) - count(before.o{i})",
        ]
    group = f"GROUP BY {', '.join(cell)}" if cell else ""
    rows = connection.execute(
        f"SELECT {', '.join([*cell, *counts])} FROM now FULL JOIN before "
        f"ON now.person_id = before.person_id{same_cell} {group}"
    ).fetchall()
    return {
        (breakdown, row[: len(breakdown)], outcome.name, outcome.kind): Move(
            *row[len(breakdown) + 2 * i : len(breakdown) + 2 * i + 2]
        )
        for row in rows
        if None not in row[: len(breakdown)]
        for i, outcome in enumerate(outcomes)
    }
