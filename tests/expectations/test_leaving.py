"""Who is counted out, beside plain Python that looks at one person after another."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.judging import appoint_judge, judge_table
from expectations.leaving import Door, Gone
from tests.expectations.test_judging import make_book
from tests.expectations.test_row_pass import RUN_DATE, SCHEMA

ROWS = pa.schema(
    [("person_id", pa.string()), ("ok__raw", pa.string()), ("malformed", pa.bool_()), ("unmatched", pa.bool_())]
)
ROW = st.fixed_dictionaries(
    {
        "person_id": st.none() | st.sampled_from(["a", "b", "c", "d"]),
        "ok__raw": st.none() | st.sampled_from(["1", " 1 ", "2", "", "  ", "yes"]),
        "malformed": st.booleans(),
        "unmatched": st.booleans(),
    }
)


@pytest.fixture(scope="module")
def withdrawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("withdrawn") / "people"
    file.write_text("a\nz\n")
    return file


@given(rows=st.lists(ROW, max_size=12))
def test_people_go_with_all_their_rows(withdrawn: Path, rows: list[dict[str, object]]) -> None:
    def agrees(row: dict[str, object]) -> bool:
        code = str(row["ok__raw"] or "").strip()
        return row["person_id"] != "a" and (bool(row["malformed"]) or code == "1")

    leavers = {row["person_id"] for row in rows if not agrees(row)} - {None}
    staying = [row for row in rows if agrees(row) and row["person_id"] not in leavers]
    going = [row for row in rows if row not in staying]
    unknown = sum(row["ok__raw"] == "yes" and not row["malformed"] for row in rows)
    kept, gone = Door("ok", ("1",), ("2",), withdrawn).let_in(pa.Table.from_pylist(rows, ROWS))
    assert kept.to_pylist() == staying
    assert gone == Gone(len(going), sum(not row["unmatched"] for row in going), unknown)


def test_everybody_stays_where_nobody_is_asked() -> None:
    rows = pa.table({"person_id": ["a", None]})
    assert Door().let_in(rows) == (rows, Gone())


def test_a_part_of_which_everybody_has_gone_is_judged() -> None:
    judged = judge_table(SCHEMA.empty_table(), appoint_judge(make_book(), RUN_DATE))
    assert judged.num_rows == 0 and "fate" in judged.column_names
