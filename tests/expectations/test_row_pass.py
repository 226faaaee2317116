"""The row pass by itself, beside plain Python that looks at one row after another."""

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.judging import TIME, appoint_judge, judge_table
from tests.expectations.test_judging import make_book

RUN_DATE = date(2026, 1, 5)
NUMBERS = {"0": 0, "1": 1, " 2 ": 2, "9": 9, "+1.0": 1, "1e0": 1, "3": 3, ".5": 0.5, "-1": -1, "1e400": float("inf")}
TEXT = pa.string()
SCHEMA = pa.schema(
    [
        *[("person_id", TEXT), ("source_file", TEXT)],
        *[(name, pa.bool_()) for name in ("malformed", "unmatched", "eligible", "ok__sober")],
        *[(f"{name}__raw", TEXT) for name in ("day", "w", "s", "p", "A", "B", "age", "sex", "region")],
        *[("day", TIME), ("_home_stratum", TEXT)],
    ]
)
ANSWERS = st.sampled_from([None, "", "  ", "often", "1d", "0x1", "1_0", "\u0663", "nan", *NUMBERS])
GOOD = {
    "source_file": "f",
    "malformed": False,
    "unmatched": False,
    "ok__sober": None,
    **{"w__raw": "1", "s__raw": "s", "p__raw": "p", "age__raw": "30", "sex__raw": "1", "region__raw": "north"},
    "_home_stratum": "s",
}
ROW = st.fixed_dictionaries(
    {
        "person_id": st.none() | st.sampled_from(["a", "b", "c"]),
        "day": st.none() | st.sampled_from([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 7)]),
        "eligible": st.booleans(),
        "A__raw": ANSWERS,
        "B__raw": ANSWERS,
    }
)


def find_broken(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """The names of the rules that the row breaks, in no order."""
    if not row["eligible"]:
        return []
    broken = []
    if row["person_id"] is None:
        broken.append("person_id_missing")
    elif row["day"] and sum(all(other[k] == row[k] for k in ("person_id", "day", "eligible")) for other in rows) > 1:
        broken.append("person_repeated")
    if row["day"] is None:
        broken.append("day_missing")
    elif row["day"].date() > RUN_DATE:
        broken.append("day_future")
    for item, codes in (("A", {0, 1, 2, 9}), ("B", {0, 1, 2})):
        text = row[f"{item}__raw"]
        if text and text.strip() and text not in NUMBERS:
            broken.append(f"{item}_type")
        elif text in NUMBERS and NUMBERS[text] not in codes:
            broken.append(f"{item}_values")
    return broken


def find_fate(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    if not row["eligible"]:
        return "ineligible"
    if find_broken(row, rows):
        return "quarantined"
    clean = [other for other in rows if other["eligible"] and not find_broken(other, rows)]
    latest = max(other["day"] for other in clean if other["person_id"] == row["person_id"])
    return "accepted" if row["day"] == latest else "duplicate"


@given(rows=st.lists(ROW, min_size=1, max_size=12), cut=st.integers(0, 12))
def test_rules_and_fates_are_those_of_plain_python(rows: list[dict[str, Any]], cut: int) -> None:
    whole = [{**GOOD, **row, "day__raw": row["day"] and row["day"].isoformat()} for row in rows]
    batches = [pa.RecordBatch.from_pylist(part, SCHEMA) for part in (whole[:cut], whole[cut:])]
    judged = judge_table(pa.Table.from_batches(batches), appoint_judge(make_book(), RUN_DATE)).to_pylist()

    def show(row: dict[str, Any], broken: list[str], fate: str) -> tuple[Any, ...]:
        text = tuple((row[name] or "").strip() for name in ("A__raw", "B__raw"))
        return (row["person_id"], row["day"], *text, tuple(sorted(broken)), fate)

    found = Counter(show(row, row["failed_rules"], row["fate"]) for row in judged)
    assert found == Counter(show(row, find_broken(row, rows), find_fate(row, rows)) for row in rows)
    for row in judged:
        text = row["A__raw"]
        assert row["A"] == next((n for spelt, n in NUMBERS.items() if spelt.strip() == text), None)
        assert row["ok__A_type"] == (None if text is None else row["A"] is not None)


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        ("1.25", "0", (1.25, 0.0)),
        (" 2 ", "+1e2", (2.0, 100.0)),
        ("-1", "1", None),
        ("1", "inf", None),
        ("1", "", None),
        (None, "1", None),
        ("1", "\u0663", None),
        ("nan", "1", None),
    ],
)
def test_replicate_weights_break_one_rule_together(first: str, second: str, weights: tuple[float, float]) -> None:
    design = {"weight": "w", "stratum": "s", "psu": "p", "replicates": {"method": "bootstrap", "columns": ["r1-r2"]}}
    schema = pa.schema([*SCHEMA, ("r1__raw", TEXT), ("r2__raw", TEXT)])
    good = {**GOOD, "eligible": True, "day": datetime(2026, 1, 1, tzinfo=UTC), "day__raw": "2026-01-01"}
    rows = [{**good, "person_id": "a", "r1__raw": "3", "r2__raw": "4"}]
    rows.append({**good, "person_id": "b", "r1__raw": first, "r2__raw": second})
    judged = judge_table(pa.Table.from_pylist(rows, schema), appoint_judge(make_book(design=design), RUN_DATE))
    one, other = judged.to_pylist()
    assert (one["r1"], one["r2"], one["fate"], one["failed_rules"]) == (3.0, 4.0, "accepted", [])
    assert other["failed_rules"] == ([] if weights else ["replicate_weights"])
    assert (other["r1__raw"], other["r2__raw"]) == (first, second)
    if weights:
        assert (other["r1"], other["r2"], other["fate"]) == (*weights, "accepted")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_nobody_or_of_nothing(rows: int) -> None:
    nothing = pa.table({field.name: pa.nulls(rows, field.type) for field in SCHEMA})
    judged = judge_table(nothing, appoint_judge(make_book(), RUN_DATE))
    assert judged["fate"].to_pylist() == ["ineligible"] * rows
