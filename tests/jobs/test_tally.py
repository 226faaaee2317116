from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from jobs.tally import Tally, add_up, tally_rows

ROW = st.fixed_dictionaries(
    {
        "fate": st.sampled_from(["accepted", "quarantined", "duplicate"]),
        "unmatched": st.booleans(),
        "failed_rules": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
        "warned_rules": st.lists(st.sampled_from(["w"]), max_size=1),
        "x": st.none() | st.sampled_from([0.0, 1.0, -7.0]),
        "x__raw": st.none() | st.sampled_from(["0", "1", "x"]),
    }
)
SCHEMA = pa.schema(
    [
        ("fate", pa.string()),
        ("unmatched", pa.bool_()),
        ("failed_rules", pa.list_(pa.string())),
        ("warned_rules", pa.list_(pa.string())),
        ("x", pa.float64()),
        ("x__raw", pa.string()),
    ]
)
PAIRS = {"x": "x__raw"}


@given(rows=st.lists(ROW, max_size=40), cut=st.integers(0, 40))
def test_counts_are_those_of_the_rows_however_they_are_cut(rows, cut):
    tables = [pa.Table.from_pylist(part, SCHEMA) for part in (rows[:cut], rows[cut:])]
    kept = [row for row in rows if row["fate"] == "accepted"]
    assert add_up(tally_rows(table, PAIRS, PAIRS, "accepted") for table in tables) == Tally(
        fates=Counter(row["fate"] for row in rows),
        matched=sum(not row["unmatched"] for row in rows),
        failed=Counter(rule for row in rows for rule in row["failed_rules"]),
        warned=Counter(rule for row in rows for rule in row["warned_rules"]),
        filled=Counter({name: sum(row[name] is not None for row in rows) for name in ("x", "x__raw")}),
        given=Counter(x=sum(row["x__raw"] is not None for row in kept)),
        values={"x": Counter(row["x"] for row in kept if row["x"] is not None)},
    )


def test_nothing_at_all_is_nothing():
    assert add_up([]).fates.total() == 0
