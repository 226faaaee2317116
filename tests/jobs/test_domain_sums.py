"""The sums per PSU: by hand, R's figures from end to end, and rows in any order and any files."""

import math
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expectations.errors import ContractBroken
from expectations.outcomes import Outcome
from jobs.domain_sums import POWERS, Plan, add_people, add_sums, domain_sums
from jobs.estimates import Survey, estimate_rows, list_sums
from tests.jobs.nhanes import BREAKDOWNS, needs_nhanes, read_people, read_reference

SCHEMA = pa.schema(
    [("weight", pa.float64())]
    + [(name, pa.string()) for name in ("stratum", "psu", "sex", "age")]
    + [("y", pa.float64())]
)
Y = Outcome("y", "mean", "y")
PEOPLE = [
    (1.0, "a", "1", "f", "18", 1.0),
    (2.0, "a", "1", "f", "60", 3.0),
    (0.5, "a", "2", "m", "18", None),
    (4.0, "a", "2", None, "18", 1.0),
    (0.0, "b", "1", "m", "18", 9.0),
    (1.5, "b", "1", "m", None, 0.0),
]


@pytest.fixture
def write(tmp_path):
    """Writes people, as tuples or as a data frame, into so many Parquet files."""

    def write(people, files: int = 1, rows_per_group: int = 1000) -> list[Path]:
        if isinstance(people, pd.DataFrame):
            table = pa.Table.from_pandas(people[SCHEMA.names], SCHEMA, preserve_index=False)
        else:
            table = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in people], SCHEMA)
        share = -(-len(table) // files)
        paths = [tmp_path / f"{len(list(tmp_path.iterdir())):03d}-{part}.parquet" for part in range(files)]
        for part, path in enumerate(paths):
            pq.write_table(table.slice(part * share, share), path, row_group_size=rows_per_group)
        return paths

    return write


def rows_of(table: pa.Table, breakdown: str) -> list[tuple]:
    return [tuple(row.values())[1:] for row in table.to_pylist() if row["breakdown"] == breakdown]


def test_sums_by_hand(spark, write):
    got = domain_sums(spark.sparkContext, write(PEOPLE, 2), [Y], [(), ("sex",), ("sex", "age")])
    assert got.column_names == [
        *("breakdown", "sex", "age", "outcome", "stratum", "psu", "n", "n_cases", "sum_w", "sum_wy", "sum_wyy")
    ]
    assert rows_of(got, "all") == [
        (None, None, "y", "a", "1", 2, 1, 3.0, 7.0, 19.0),
        (None, None, "y", "a", "2", 1, 1, 4.0, 4.0, 4.0),
        (None, None, "y", "b", "1", 1, 0, 1.5, 0.0, 0.0),
    ]
    assert rows_of(got, "sex") == [
        ("f", None, "y", "a", "1", 2, 1, 3.0, 7.0, 19.0),
        ("m", None, "y", "a", "2", 0, 0, 0.0, 0.0, 0.0),
        ("m", None, "y", "b", "1", 1, 0, 1.5, 0.0, 0.0),
    ]
    assert rows_of(got, "sex*age") == [
        ("f", "18", "y", "a", "1", 1, 1, 1.0, 1.0, 1.0),
        ("f", "60", "y", "a", "1", 1, 0, 2.0, 6.0, 18.0),
        ("m", "18", "y", "a", "2", 0, 0, 0.0, 0.0, 0.0),
    ]


def test_a_proportion_compares_with_its_cut(spark, write):
    outcomes = [Y, Outcome("y_ge1", "proportion", "y", ">=", 1), Outcome("y_le0", "proportion", "y", "<=", 0)]
    got = domain_sums(spark.sparkContext, write(PEOPLE), outcomes, [()])
    sums = {(r["outcome"], r["stratum"], r["psu"]): (r["n"], r["n_cases"], r["sum_wy"]) for r in got.to_pylist()}
    assert sums["y_ge1", "a", "1"] == (2, 2, 3.0)
    assert sums["y_ge1", "b", "1"] == (1, 0, 0.0)
    assert sums["y_le0", "b", "1"] == (1, 1, 1.5)


@pytest.mark.parametrize("people", [[(0.0, *PEOPLE[0][1:])], []], ids=["no weight", "no row"])
def test_nobody_with_a_weight(spark, write, people):
    paths = write(people) if people else write(pd.DataFrame(columns=SCHEMA.names))
    assert domain_sums(spark.sparkContext, paths, [Y], [(), ("sex",)]).num_rows == 0


def test_files_without_statistics(spark, tmp_path, write):
    paths = write(PEOPLE)
    pq.write_table(pq.read_table(paths[0]), tmp_path / "bare.parquet", write_statistics=False)
    bare = domain_sums(spark.sparkContext, [tmp_path / "bare.parquet"], [Y], [()])
    assert bare.equals(domain_sums(spark.sparkContext, paths, [Y], [()]))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"weight": float("inf")}, "a weight is infinite"),
        ({"weight": float("nan")}, "a value, or its weight, is infinite or not a number"),
        ({"y": float("nan")}, "outcome y: a value, or its weight, is infinite or not a number"),
        ({"y": float("-inf")}, "outcome y: a value is infinite or not a number"),
        ({"weight": 1e300, "y": 1e10}, "are too large to be added up"),
        ({"psu": None}, "1 people have a weight but no stratum or no PSU"),
    ],
)
def test_values_that_cannot_be_summed_are_refused(spark, write, bad, words):
    one = tuple((dict(zip(SCHEMA.names, PEOPLE[0], strict=True)) | bad).values())
    with pytest.raises(ContractBroken, match=words):
        domain_sums(spark.sparkContext, write([one, *PEOPLE]), [Y], [(), ("sex",)])


def test_a_breakdown_given_twice_is_refused(spark, write):
    with pytest.raises(ValueError, match=r"twice: sex\*age, age\*sex"):
        domain_sums(spark.sparkContext, write(PEOPLE), [Y], [("sex", "age"), ("age", "sex")])


def simulate(seed: int, people: int) -> pd.DataFrame:
    """Weights over twelve orders of magnitude and answers with long fractions: the hardest to add up exactly."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "weight": 10.0 ** rng.uniform(-6, 6, people),
            "stratum": rng.integers(0, 3, people).astype(str),
            "psu": rng.integers(0, 3, people).astype(str),
            "sex": rng.choice(["f", "m"], people),
            "age": rng.choice(["18", "60"], people),
            "y": np.where(rng.random(people) < 0.1, np.nan, rng.normal(size=people)),
        }
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 500))
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_files_and_row_groups_change_not_one_bit(spark, write, seed, files, rows_per_group):
    people = simulate(seed, 500)
    breakdowns = [(), ("sex",), ("sex", "age")]
    once = domain_sums(spark.sparkContext, write(people), [Y], breakdowns)
    shuffled = people.sample(frac=1, random_state=seed)
    assert domain_sums(spark.sparkContext, write(shuffled, files, rows_per_group), [Y], breakdowns).equals(once)
    doubled = domain_sums(spark.sparkContext, write(shuffled.assign(weight=people["weight"] * 2)), [Y], breakdowns)
    for name in ("sum_w", "sum_wy", "sum_wyy"):
        assert np.array_equal(doubled[name].to_numpy(), 2 * once[name].to_numpy())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_parts_of_the_people_add_up_to_all_of_them(seed):
    """What tasks find, however the rows are dealt to them, is exact: no digit is lost in adding it up."""
    people = pa.Table.from_pandas(simulate(seed, 400), SCHEMA, preserve_index=False)
    # Weights are below 2^20, answers below 2^3, people below 2^9.
    steps = {name: (2.0 ** (3 * power - 24), 2.0 ** (3 * power - 69)) for name, power in POWERS.items()}
    plan = Plan((Y,), ((), ("sex",)), ("sex",), steps)
    one, other = people.slice(0, seed % 400), people.slice(seed % 400)
    order = [(name, "ascending") for name in plan.schema.names[:5]]
    added = add_sums(add_people(one, plan), add_people(other, plan))
    assert added.sort_by(order).equals(add_people(people, plan).sort_by(order))


def test_all_breakdowns_together_are_each_on_its_own(spark, write):
    people = simulate(1, 2000)
    paths = write(people, 3)
    breakdowns = [(), ("sex",), ("sex", "age")]
    together = domain_sums(spark.sparkContext, paths, [Y], breakdowns)
    for breakdown in breakdowns:
        alone = domain_sums(spark.sparkContext, paths, [Y], [breakdown])
        label = "*".join(breakdown) or "all"
        chosen = together.filter(pa.compute.equal(together["breakdown"], label)).select(alone.column_names)
        assert chosen.equals(alone)
    women = domain_sums(spark.sparkContext, write(people[people["sex"] == "f"]), [Y], [()])
    for name in ("n", "sum_w", "sum_wy", "sum_wyy"):
        rows = together.filter(pa.compute.equal(together["sex"], "f"))
        rows = rows.filter(pa.compute.equal(rows["breakdown"], "sex"))
        assert rows[name].to_numpy() == pytest.approx(women[name].to_numpy(), rel=1e-13)


@needs_nhanes
def test_58_rows_of_rs_figures_through_spark(spark, tmp_path):
    people = read_people()
    columns = ["weight", "stratum", "psu", "sex", "age_band", "race", "educ", "pir_band", "phq9"]
    pq.write_table(pa.Table.from_pandas(people[columns], preserve_index=False), tmp_path / "people.parquet")
    outcomes = [Outcome("phq9", "mean", "phq9"), Outcome("phq9_ge10", "proportion", "phq9", ">=", 10)]
    kinds = {outcome.name: outcome.kind for outcome in outcomes}
    breakdowns = [b for name, b in BREAKDOWNS.items() if name != "all_adults_20plus"]
    sums = domain_sums(spark.sparkContext, [tmp_path / "people.parquet"], list_sums(outcomes), breakdowns)
    design = list(zip(people["stratum"], people["psu"], strict=True))
    rows = estimate_rows(Survey(date(2020, 3, 1), sums, design), outcomes)
    own = [row for row in rows if row.figures.kind == kinds[row.outcome]]
    totals = {row.cell: row.figures for row in rows if row.breakdown == ("sex",) and row.figures.kind == "total"}
    everybody = next(row.figures for row in rows if not row.breakdown and row.figures.kind == "total")
    assert math.fsum(figures.estimate for figures in totals.values()) == pytest.approx(everybody.estimate, rel=1e-12)
    assert everybody.estimate > 1.0e7
    got = {(row.breakdown, ":".join(row.cell) or "all", row.outcome): row.figures for row in own}

    reference = read_reference()
    wanted = reference[reference["outcome"].isin(kinds) & (reference["domain_vars"] != "all_adults_20plus")]
    assert len(wanted) == 58
    for expected in wanted.to_dict("records"):
        key = (BREAKDOWNS[expected["domain_vars"]], expected["domain_levels"], expected["outcome"])
        figures = got[key]
        assert (figures.n, figures.df) == (expected["n"], expected["df"]), key
        assert (figures.estimate, figures.se) == pytest.approx((expected["estimate"], expected["se"]), rel=1e-10), key
        assert figures.deff == pytest.approx(expected["deff"], rel=1e-9), key
        bounds = (
            ("ci_kg_nchs_low", "ci_kg_nchs_high") if expected["kind"] == "proportion" else ("ci_t_low", "ci_t_high")
        )
        assert (figures.ci_low, figures.ci_high) == pytest.approx([expected[b] for b in bounds], abs=1e-10), key


def test_records_have_the_columns_of_the_cohorts_tables(spark, write):
    breakdowns = [(), ("sex",)]
    sums = domain_sums(spark.sparkContext, write(PEOPLE), [Y], breakdowns)
    design = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    records = [row.to_record(["sex", "age"]) for row in estimate_rows(Survey(date(2026, 3, 1), sums, design), [Y])]
    assert [(r["breakdown"], r["sex"], r["age"], r["n"]) for r in records] == [
        ("all", None, None, 4),
        ("sex", "f", None, 2),
        ("sex", "m", None, 1),
    ]
    assert list(records[0]) == [
        *("breakdown", "sex", "age", "outcome", "kind", "n", "n_cases", "n_weighted", "estimate", "se", "df"),
        *("ci_low", "ci_high", "ci_method", "deff", "presentation", "reason", "noise_se"),
        *("since", "disclosure"),
    ]
