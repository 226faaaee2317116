"""Estimates by replicate weights through the pass over people, against R's svrepdesign, in any order of rows and files.

`golden/estimates.csv` was made by `benchmarks/peers/golden.R`; rows of whole totals and standardised means in it by R's
withReplicates.
"""

from dataclasses import replace
from datetime import date
from functools import reduce

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.codebook_parts import Standard
from expectations.outcomes import Outcome
from expectations.replication import Replication
from jobs.domain_sums import EVERYBODY, choose_steps, domain_sums
from jobs.estimates import Survey, estimate_rows, list_sums, split_sums
from jobs.quantile_rows import estimate_quantile_rows
from jobs.replicate_sums import WEIGHTS, Plan, ReplicatePass, Shares, Sums, add_people, name_sums
from jobs.replicates import ReplicateSums
from jobs.standardised import estimate_standardised_rows
from jobs.survey import estimate_domain
from tests.jobs.golden_survey import read_estimates, read_people, read_weights
from tests.jobs.survey_helpers import sum_people

Y, X, HIGH = Outcome("y", "mean", "y"), Outcome("x", "mean", "x"), Outcome("high", "proportion", "y", ">=", 10)
RATIO = Outcome("y_per_x", "ratio", "y", over=X, also="x")
OUTCOMES = [Y, X, HIGH, RATIO, *(Outcome(f"y_p{p}", "quantile", "y", level=p / 100) for p in (10, 50, 75))]
COLUMNS = ["stratum", "psu", "sex", "age", "y", "x"]
SUMMED = [outcome for outcome in list_sums(OUTCOMES) if outcome != EVERYBODY]
BREAKDOWNS, ADDED = [(), ("sex",)], [("age",), ("sex", "age")]
STANDARD = Standard(cohort="age", shares={"18-39": 50, "40-59": 30, "60+": 20}, source="the tests")


def make_features(name: str) -> pa.Table:
    people, (weights, _) = read_people(), read_weights(name)
    columns = {column: pa.array(people[column], from_pandas=True) for column in COLUMNS}
    replicates = pa.array(list(weights[:, 1:]), pa.list_(pa.float64()))
    return pa.table({"weight": weights[:, 0], WEIGHTS: replicates, **columns})


def estimate(spark, features, replication, folder, totals):
    files = [folder / "features.parquet"]
    pq.write_table(features, files[0], row_group_size=90)
    replicates = ReplicatePass(spark, files, replication)
    everything = domain_sums(spark, files, list_sums(OUTCOMES), [*BREAKDOWNS, *ADDED])
    sums, _ = split_sums(everything, BREAKDOWNS)
    found = replicates.add_up(SUMMED, [*BREAKDOWNS, *ADDED], totals)
    design = sorted(set(zip(features["stratum"].to_pylist(), features["psu"].to_pylist(), strict=True)))
    survey = Survey(date(2026, 1, 1), sums, design, replicates=found)
    rows = [
        *estimate_rows(survey, OUTCOMES),
        *estimate_quantile_rows(spark, files, OUTCOMES, BREAKDOWNS, survey, replicates),
        *estimate_standardised_rows(survey, everything, OUTCOMES, BREAKDOWNS, STANDARD),
    ]
    return {(row.cell[0] if row.cell else "all", row.outcome, row.figures.kind): row.figures for row in rows}


@pytest.mark.parametrize("name", ["ACS", "bootstrap_mse"])
def test_as_in_r(name, spark, tmp_path):
    got = estimate(spark.sparkContext, make_features(name), read_weights(name)[1], tmp_path, [HIGH])
    compared = 0
    for row in read_estimates(name) + read_estimates(f"{name}_whole") + read_estimates(f"{name}_standardised"):
        is_whole = row["method"].endswith("_whole")
        if row["kind"] == "total" and not is_whole:
            continue
        kind = "proportion" if row["outcome"] == "high" and row["kind"] == "mean" else row["kind"]
        figures = got[row["domain"], row["outcome"], kind]
        told = f"{row['domain']} {row['outcome']} {kind}"
        assert figures.estimate == pytest.approx(row["estimate"], rel=1e-12), told
        assert figures.se == pytest.approx(row["se"], rel=1e-10), told
        assert is_whole or figures.df == row["df"], told
        if kind in ("mean", "ratio", "quantile"):
            assert figures.ci_low == pytest.approx(row["ci_low"], rel=1e-9), told
            assert figures.ci_high == pytest.approx(row["ci_high"], rel=1e-9), told
        compared += 1
    assert compared == 27


@pytest.fixture(scope="module")
def features():
    table = make_features("bootstrap")
    # Three people with weights nine orders of magnitude apart: the sums must hold both ends.
    weight = table["weight"].to_numpy().copy()
    weight[:3] = 1e-6, 3.3e-5, 7e-7
    return table.set_column(0, "weight", pa.array(weight))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 6))
def test_the_order_of_rows_and_files_changes_nothing(features, tmp_path_factory, seed, parts):
    folder = tmp_path_factory.getbasetemp()
    pq.write_table(features, folder / "whole.parquet")
    steps = choose_steps([folder / "whole.parquet"], SUMMED, ("weight", WEIGHTS))
    shares = {"high": Shares(tuple("abcdefgh"), np.linspace(1, 3, 8 * 21).reshape(8, 21))}
    plan = Plan(tuple(SUMMED), tuple(BREAKDOWNS), steps, shares)
    replication = read_weights("bootstrap")[1]
    cut = np.array_split(np.random.default_rng(seed).permutation(len(features)), parts)
    one, other = (
        name_sums(reduce(Sums.add, (add_people(features.take(rows), plan) for rows in places)), plan, replication)
        for places in ([np.arange(len(features))], cut)
    )
    assert one.keys() == other.keys()
    for key, sums in one.items():
        for name in ("sum_w", "sum_wy", "whole"):
            assert np.array_equal(getattr(sums, name), getattr(other[key], name)), (key, name)
        assert (sums.df, sums.vary_mean()) == (other[key].df, other[key].vary_mean())


def test_a_cell_that_no_replicate_has_is_without_a_variance():
    sums = np.array([2.0, 0, 0])
    nothing = ReplicateSums(sums, sums / 2, sums / 2, np.zeros((1, 2)), Replication(1.0, np.ones(2)))
    domain = sum_people(pd.DataFrame({"weight": [2.0], "stratum": "a", "psu": "1", "y": 0.5}), "y")
    got = estimate_domain(replace(domain, replicates=nothing), {"a": 2}, "mean")
    assert (got.estimate, got.se, got.ci_low, got.presentation) == (0.5, None, None, "suppress")
    assert got.reason == "nobody in the cell has a replicate weight above 0, so there is no variance"
