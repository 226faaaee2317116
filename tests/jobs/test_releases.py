"""Earlier releases: who moved since, a file that has gone, and releases that wait for a person."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.outcomes import Outcome
from jobs.disclosure import Move
from jobs.errors import EXPOSED, NOT_SIGNED_OFF, Exposed, NotSignedOff, StageError, exit_code
from jobs.lake import DataFile, Lake, Night, StageRecord
from jobs.movement import count_movers, find_moves
from jobs.releases import find_sign_off, read_rows, sign_off

OUTCOMES = [Outcome("mood_total", "mean", "mood_total"), Outcome("mood_ge5", "proportion", "mood_total", ">=", 5)]

# person, sex and total on two nights; None: not there, or no answer
PEOPLE = """
    person  then   now
    a       f 3    f 3
    b       f 3    f 4
    c       f 3    f 9
    d       f 3    m 3
    e       m -    m 6
    g       m 7    .
    h       .      f 2
"""


def write_night(folder, column: int):
    rows = [line.replace(". ", ".  ").split() for line in PEOPLE.strip().splitlines()[1:]]
    found = []
    for person, *rest in rows:
        nights = []
        while rest:
            nights.append(None if rest[0] == "." else (rest[0], rest[1]))
            rest = rest[1:] if rest[0] == "." else rest[2:]
        if nights[column]:
            sex, total = nights[column]
            found.append({"person_id": person, "sex": sex, "mood_total": None if total == "-" else int(total)})
    file = folder / f"{column}.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"weight": 1.0} for row in found]), file)
    return [file]


def test_who_moved(tmp_path):
    moves = find_moves(write_night(tmp_path, 1), write_night(tmp_path, 0), [(), ("sex",)], OUTCOMES, tmp_path)
    total, cut = ("mood_total", "mean"), ("mood_ge5", "proportion")
    # b and c answered anew, e for the first time, g left, h came; d changed cells alone
    assert moves[(), (), *total] == Move(5, 1)
    assert moves[(), (), *cut] == Move(4, 1)  # b has stayed on the same side
    assert moves[("sex",), ("f",), *total] == Move(4, 0)
    assert moves[("sex",), ("m",), *total] == Move(3, 1)


def test_how_many_moved(tmp_path):
    now, then = write_night(tmp_path, 1), write_night(tmp_path, 0)
    assert count_movers(now, then, ["mood_total"], tmp_path) == 5  # d alone has only changed groups
    assert count_movers(now, then, [], tmp_path) == 2
    assert count_movers(now, now, ["mood_total"], tmp_path) == 0


def test_a_damaged_table_is_named(tmp_path):
    file = tmp_path / "run_date=2026-03-01" / "00000001-00000-0.parquet"
    file.parent.mkdir()
    file.write_bytes(b"PAR1 no table")
    with pytest.raises(StageError, match=r"00000001-00000-0\.parquet, of the release of run_date=2026-03-01"):
        read_rows([file])


def test_a_release_waits_for_the_person_who_saw_it(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    night = lake.open_night(date(2026, 3, 1))

    def write(digest: str) -> dict[str, StageRecord]:
        tables = {"cohorts": (DataFile("public/cohorts/one.parquet", 3, 10, digest),)}
        records = {"aggregate": StageRecord("aggregate", tables=tables), "report": StageRecord("report")}
        for record in records.values():
            night.write(record)
        return records

    with pytest.raises(NotSignedOff, match="nobody has signed the release of 2026-03-01 off"):
        find_sign_off(night, write("first"))
    sign_off(Night(lake, night.run_date, night.token), "A. Officer")
    assert find_sign_off(night, write("first"))["by"] == "A. Officer"
    with pytest.raises(NotSignedOff):  # another table is another release
        find_sign_off(night, write("second"))


def test_exit_codes():
    assert (exit_code(NotSignedOff()), exit_code(Exposed())) == (NOT_SIGNED_OFF, EXPOSED) == (6, 7)
