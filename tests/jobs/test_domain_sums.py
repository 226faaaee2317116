"""The Spark aggregation: sums by hand, R's figures from end to end, and rows in any order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from expectations.errors import ContractBroken
from jobs.domain_sums import domain_sums
from jobs.survey import estimate_rows
from tests.jobs.nhanes import BREAKDOWNS, needs_nhanes, read_people, read_reference

SCHEMA = "weight double, stratum string, psu string, sex string, age string, y double"
PEOPLE = [
    (1.0, "a", "1", "f", "18", 1.0),
    (2.0, "a", "1", "f", "60", 3.0),
    (0.5, "a", "2", "m", "18", None),
    (4.0, "a", "2", None, "18", 1.0),
    (0.0, "b", "1", "m", "18", 9.0),
    (1.5, "b", "1", "m", None, 0.0),
]


def rows_of(table: pa.Table, breakdown: str) -> list[tuple]:
    return [tuple(row.values())[1:] for row in table.to_pylist() if row["breakdown"] == breakdown]


def test_sums_by_hand(spark):
    got = domain_sums(spark.createDataFrame(PEOPLE, SCHEMA), {"y": "y"}, [(), ("sex",), ("sex", "age")])
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


def test_outcomes_may_be_expressions(spark):
    people = spark.createDataFrame(PEOPLE, SCHEMA)
    got = domain_sums(people, {"y": "y", "y_ge1": (F.col("y") >= 1).cast("double")}, [()])
    sums = {(r["outcome"], r["stratum"], r["psu"]): (r["n"], r["n_cases"], r["sum_wy"]) for r in got.to_pylist()}
    assert sums["y_ge1", "a", "1"] == (2, 2, 3.0)
    assert sums["y_ge1", "b", "1"] == (1, 0, 0.0)


def test_nobody_with_a_weight(spark):
    people = spark.createDataFrame([(0.0, *PEOPLE[0][1:])], SCHEMA)
    assert domain_sums(people, {"y": "y"}, [(), ("sex",)]).num_rows == 0


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"weight": float("inf")}, "a weight is infinite"),
        ({"weight": float("nan")}, "a weight is infinite or not a number"),
        ({"y": float("nan")}, "outcome y: a value is infinite or not a number"),
        ({"psu": None}, "1 people have a weight but no stratum or no PSU"),
    ],
)
def test_values_that_cannot_be_summed_are_refused(spark, bad, words):
    names = [part.split()[0] for part in SCHEMA.split(", ")]
    one = tuple((dict(zip(names, PEOPLE[0], strict=True)) | bad).values())
    with pytest.raises(ContractBroken, match=words):
        domain_sums(spark.createDataFrame([one, *PEOPLE], SCHEMA), {"y": "y"}, [()])


def test_a_breakdown_given_twice_is_refused(spark):
    with pytest.raises(ValueError, match=r"twice: sex\*age, age\*sex"):
        domain_sums(spark.createDataFrame(PEOPLE, SCHEMA), {"y": "y"}, [("sex", "age"), ("age", "sex")])


def simulate(seed: int, people: int) -> pd.DataFrame:
    """Weights over twelve orders of magnitude and answers with long fractions: the hardest to add up exactly."""
    rng = np.random.default_rng(seed)
    return (
        pd.DataFrame(
            {
                "weight": 10.0 ** rng.uniform(-6, 6, people),
                "stratum": rng.integers(0, 3, people).astype(str),
                "psu": rng.integers(0, 3, people).astype(str),
                "sex": rng.choice(["f", "m"], people),
                "age": rng.choice(["18", "60"], people),
                "y": np.where(rng.random(people) < 0.1, np.nan, rng.normal(size=people)),
            }
        )
        .astype({"y": object})
        .where(lambda frame: frame.notna(), None)
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_and_partitions_change_not_one_bit(spark, seed, partitions):
    people = simulate(seed, 500)
    breakdowns = [(), ("sex",), ("sex", "age")]
    once = domain_sums(spark.createDataFrame(people, SCHEMA).coalesce(1), {"y": "y"}, breakdowns)
    shuffled = spark.createDataFrame(people.sample(frac=1, random_state=seed), SCHEMA).repartition(partitions)
    assert domain_sums(shuffled, {"y": "y"}, breakdowns).equals(once)
    doubled = domain_sums(shuffled.withColumn("weight", F.col("weight") * 2), {"y": "y"}, breakdowns)
    for name in ("sum_w", "sum_wy", "sum_wyy"):
        assert np.array_equal(doubled[name].to_numpy(), 2 * once[name].to_numpy())


def test_all_breakdowns_together_are_each_on_its_own(spark):
    people = spark.createDataFrame(simulate(1, 2000), SCHEMA)
    breakdowns = [(), ("sex",), ("sex", "age")]
    together = domain_sums(people, {"y": "y"}, breakdowns)
    for breakdown in breakdowns:
        alone = domain_sums(people, {"y": "y"}, [breakdown])
        label = "*".join(breakdown) or "all"
        chosen = together.filter(pa.compute.equal(together["breakdown"], label)).select(alone.column_names)
        assert chosen.equals(alone)
    women = domain_sums(people.where("sex = 'f'"), {"y": "y"}, [()])
    for name in ("n", "sum_w", "sum_wy", "sum_wyy"):
        rows = together.filter(pa.compute.equal(together["sex"], "f"))
        rows = rows.filter(pa.compute.equal(rows["breakdown"], "sex"))
        assert rows[name].to_numpy() == pytest.approx(women[name].to_numpy(), rel=1e-13)


@needs_nhanes
def test_58_rows_of_rs_figures_through_spark(spark):
    people = read_people()
    columns = ["weight", "stratum", "psu", "sex", "age_band", "race", "educ", "pir_band", "phq9", "phq9_ge10"]
    types = ["double", *["string"] * 7, "double", "double"]
    schema = ", ".join(f"{name} {kind}" for name, kind in zip(columns, types, strict=True))
    frame = spark.createDataFrame(people[columns].astype(object).where(people[columns].notna(), None), schema)
    kinds = {"phq9": "mean", "phq9_ge10": "proportion"}
    breakdowns = [b for name, b in BREAKDOWNS.items() if name != "all_adults_20plus"]
    sums = domain_sums(frame, {name: name for name in kinds}, breakdowns)
    design = zip(people["stratum"], people["psu"], strict=True)
    rows = estimate_rows(sums, design, kinds, breakdowns)
    got = {(row.breakdown, ":".join(row.cell) or "all", row.outcome): row.figures for row in rows}

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


def test_records_have_the_columns_of_the_cohorts_tables(spark):
    people = spark.createDataFrame(PEOPLE, SCHEMA)
    breakdowns = [(), ("sex",)]
    sums = domain_sums(people, {"y": "y"}, breakdowns)
    design = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    records = [row.to_record(["sex", "age"]) for row in estimate_rows(sums, design, {"y": "mean"}, breakdowns)]
    assert [(r["breakdown"], r["sex"], r["age"], r["n"]) for r in records] == [
        ("all", None, None, 4),
        ("sex", "f", None, 2),
        ("sex", "m", None, 1),
    ]
    assert list(records[0]) == [
        *("breakdown", "sex", "age", "outcome", "kind", "n", "n_cases", "n_weighted", "estimate", "se", "df"),
        *("ci_low", "ci_high", "ci_method", "deff", "presentation", "reason", "disclosure"),
    ]
