"""Totals, ratios and quantiles against R's, changes against the variance of differences."""

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.outcomes import Outcome, parse_outcome
from jobs.estimates import Survey, estimate_rows, list_sums
from jobs.kinds import Response, estimate_change, estimate_ratio, estimate_total, linearise, subtract_nights
from jobs.quantile_rows import estimate_quantile_rows
from jobs.survey import count_psus, estimate_domain, sum_variance
from tests.jobs.golden_survey import read_estimates, read_people, select
from tests.jobs.survey_helpers import sum_people

TWELVE_DIGITS = 1e-12


def label(row):
    return f"{row['domain']} {row['outcome']}"


def pairs(people):
    return sorted(set(zip(people["stratum"], people["psu"], strict=True)))


def design_of(people):
    strata = people.groupby("stratum")["psu"].agg(frozenset)
    return dict(strata.items())


def linearised(people, outcome="y", design=None):
    everybody = people if design is None else design
    sums = sum_people(people, outcome)
    figures = estimate_domain(sums, count_psus(pairs(everybody)), "mean")
    return linearise(figures, sums, design_of(everybody))


@pytest.mark.parametrize("row", [r for r in read_estimates("taylor", "total") if r["outcome"] == "high"], ids=label)
def test_totals_as_r_has_them(row):
    everybody = read_people()
    people = select(everybody, row["domain"], "high")
    got = estimate_total(sum_people(people, "high"), count_psus(pairs(everybody)))
    assert (got.kind, got.ci_method, got.df) == ("total", "log-t", row["df"])
    found = [got.estimate, got.se, got.ci_low, got.ci_high]
    assert found == pytest.approx([row[name] for name in ("estimate", "se", "ci_low", "ci_high")], rel=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_change_of_the_same_psus_has_the_variance_of_the_difference(share):
    draw = np.random.default_rng(7)
    before = pd.DataFrame({"stratum": np.repeat(["a", "b"], 200), "psu": np.tile(np.repeat(list("12345"), 40), 2)})
    before = before.assign(weight=1.0, y=draw.normal(size=400) + before["psu"].astype(float))
    now = before.assign(y=before["y"] + 0.1 * draw.normal(size=400))
    sampled = {"a": share, "b": share}
    sizes = count_psus(pairs(before), sampled)

    def side(people):
        sums = sum_people(people, "y")
        return linearise(estimate_domain(sums, sizes, "mean"), sums, design_of(people), sampled)

    one, other = side(now), side(before)
    wanted = sum_variance(one.stratum, one.scores - other.scores, sizes, "fail") ** 0.5
    change = estimate_change(one, other)
    assert change.se == pytest.approx(wanted, rel=1e-6)
    assert change.ci_low < change.estimate < change.ci_high


@pytest.mark.parametrize("row", read_estimates("taylor", "ratio"), ids=label)
def test_ratios_as_r_has_them(row):
    everybody = read_people()
    people = select(everybody, row["domain"], "y", "x")
    got = estimate_ratio(sum_people(people, "y"), sum_people(people, "x"), count_psus(pairs(everybody)))
    found = [got.estimate, got.se, got.ci_low, got.ci_high]
    assert found == pytest.approx([row[name] for name in ("estimate", "se", "ci_low", "ci_high")], rel=1e-10)
    assert (got.n, got.df) == (len(people), row["df"])


def weights_of(people):
    return sum_people(people.assign(one=1.0), "one")


def test_a_total_counts_those_who_gave_no_answer():
    # Stratum a: 6 of 10 answered, 2 of them with the outcome; stratum b: all 8 answered, 4 with it.
    people = pd.DataFrame(
        [
            ("a", "1", 2.0, 1.0),
            ("a", "2", 4.0, 0.0),
            ("a", "2", 4.0, np.nan),
            ("b", "1", 4.0, 1.0),
            ("b", "2", 4.0, 0.0),
        ],
        columns=["stratum", "psu", "weight", "high"],
    ).assign(psu=lambda p: p["stratum"] + p["psu"])
    answered = sum_people(people, "high")
    got = estimate_total(answered, count_psus(pairs(people)), response=Response.of(weights_of(people), answered))
    assert got.estimate == pytest.approx(10 / 6 * 2 + 4, rel=TWELVE_DIGITS)
    # scores of a: 10/6 x 2 + 2/6 (2 - 10/6 x 2), 2/6 (8 - 10/6 x 4); of b: 4, 0; m/(m-1) = 2
    a = np.array([10 / 3 + (2 - 10 / 3) / 3, (8 - 20 / 3) / 3])
    assert got.se == pytest.approx(math.sqrt(2 * ((a - a.mean()) ** 2).sum() + 2 * 8), rel=TWELVE_DIGITS)


def test_totals_of_cells_add_up_though_some_gave_no_answer():
    everybody = read_people()
    response = Response.of(weights_of(everybody), sum_people(everybody, "high"))
    sizes = count_psus(pairs(everybody))
    totals = [
        estimate_total(sum_people(select(everybody, domain, "high"), "high"), sizes, response=response).estimate
        for domain in ("all", "men", "women")
    ]
    assert totals[0] == pytest.approx(totals[1] + totals[2], rel=TWELVE_DIGITS)
    full = Response.of(weights_of(everybody), weights_of(everybody))
    for domain in ("all", "men"):
        sums = sum_people(select(everybody, domain, "high"), "high")
        assert estimate_total(sums, sizes, response=full) == estimate_total(sums, sizes)


def test_a_total_of_nobody_has_no_interval_and_says_why():
    everybody = read_people()
    got = estimate_total(sum_people(everybody.assign(high=0.0), "high"), count_psus(pairs(everybody)))
    assert (got.estimate, got.se, got.ci_low, got.reason) == (0.0, 0.0, None, "nobody with the outcome: no interval")


def test_a_ratio_to_nothing_is_null_with_its_reason():
    everybody = read_people().dropna(subset=["y", "x"])
    zero = sum_people(everybody.assign(x=0.0), "x")
    got = estimate_ratio(sum_people(everybody, "y"), zero, count_psus(pairs(everybody)))
    assert (got.estimate, got.se, got.reason) == (None, None, "the denominator is 0")


# A panel: the same people, weights and PSUs on both nights, so the change is the mean of their differences.
def test_the_change_of_a_panel_is_the_mean_difference_with_its_variance():
    people = read_people().dropna(subset=["y", "x"])
    later = people.assign(y=people["y"] * 0.8 + people["x"])
    got = estimate_change(linearised(later), linearised(people))
    difference = people.assign(y=later["y"] - people["y"])
    expected = estimate_domain(sum_people(difference, "y"), count_psus(pairs(people)), "mean")
    found = [got.estimate, got.se, got.ci_low, got.ci_high]
    assert found == pytest.approx([expected.estimate, expected.se, expected.ci_low, expected.ci_high], rel=1e-10)
    assert (got.df, got.kind) == (expected.df, "change")


def test_a_panels_domain_keeps_the_psus_without_anybody_in_it():
    everybody = read_people().dropna(subset=["y"])
    people = everybody[(everybody["sex"] == "men") & (everybody["psu"] != everybody["psu"].iloc[0])]
    later = people.assign(y=people["y"] * 1.5 + 1)
    got = estimate_change(linearised(later, design=everybody), linearised(people, design=everybody))
    difference = people.assign(y=later["y"] - people["y"])
    expected = estimate_domain(sum_people(difference, "y"), count_psus(pairs(everybody)), "mean")
    assert [got.estimate, got.se] == pytest.approx([expected.estimate, expected.se], rel=1e-10)


def test_samples_without_a_common_psu_are_independent():
    people = read_people().dropna(subset=["y"])
    later = people.assign(psu=people["psu"] + " anew", y=people["y"] + 1)
    now, before = linearised(later), linearised(people)
    got = estimate_change(now, before)
    assert got.se == pytest.approx(math.hypot(now.figures.se, before.figures.se), rel=TWELVE_DIGITS)
    assert got.df == now.figures.df + before.figures.df
    linked = estimate_change(now, before, extra_variance=0.25)
    assert linked.se == pytest.approx(math.sqrt(got.se**2 + 0.25), rel=TWELVE_DIGITS)


def test_a_traits_change_has_the_variance_of_both_nights_and_of_their_models_link():
    one = linearised(read_people().dropna(subset=["y"])).figures
    got = subtract_nights(one, replace(one, estimate=one.estimate - 0.5, df=4), 0.03)
    assert got.estimate == pytest.approx(0.5)
    assert (got.se, got.df) == (pytest.approx(math.sqrt(2 * one.se**2 + 0.03)), 4)
    assert subtract_nights(one, replace(one, se=None), 0.0) is None


def test_nothing_has_changed_in_the_same_answers():
    one = linearised(read_people().dropna(subset=["y"]))
    got = estimate_change(one, one)
    assert (got.estimate, got.ci_low) == (0.0, None)
    assert got.se == pytest.approx(0.0, abs=1e-8)


QUANTILES = [
    Outcome(name, "quantile", "y", level=int(name[3:]) / 100)
    for name in sorted({row["outcome"] for row in read_estimates("taylor", "quantile")})
]


def test_quantiles_through_spark_as_r_has_them(spark, tmp_path):
    people = read_people()
    answered = people[["weight", "stratum", "psu", "sex"]].assign(y=people["y"].astype(float))
    half = len(answered) // 2
    files = []
    for number, part in enumerate((answered[half:], answered[:half])):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), files[-1], row_group_size=40)
    survey = Survey(date(2026, 3, 1), None, pairs(people))
    rows = estimate_quantile_rows(spark.sparkContext, files, QUANTILES, [(), ("sex",)], survey)
    got = {(row.cell[0] if row.cell else "all", row.outcome): row.figures for row in rows}
    wanted = read_estimates("taylor", "quantile")
    assert len(got) == len(wanted) == 9
    for row in wanted:
        figures = got[row["domain"], row["outcome"]]
        for name in ("estimate", "se", "ci_low", "ci_high", "df"):
            wanted_one, found = row[name], getattr(figures, name)
            assert found == (wanted_one if wanted_one is None else pytest.approx(wanted_one, rel=1e-10)), (row, name)


def test_names_of_ratios_and_quantiles():
    ratio = parse_outcome("a_ge3_per_b_total", {"a", "b"}, set())
    assert (ratio.kind, ratio.source, ratio.over.source) == ("ratio", "a_total", "b_total")
    assert ratio.part_names() == ("a_ge3", "b_total")
    assert [part.also for part in ratio.split_ratio()] == ["b_total", "a_total"]
    assert parse_outcome("a_p5", {"a"}, set()).level == 0.05
    for wrong in ("a_p0", "a_p100", "a_per_b", "a_p50_per_a_total", "c_total"):
        with pytest.raises(ValueError, match="is neither"):
            parse_outcome(wrong, {"a", "b"}, set())


def test_rows_of_every_kind():
    people = read_people()
    frame = people[["stratum", "psu"]].drop_duplicates()
    outcomes = [
        Outcome("y", "mean", "y"),
        Outcome("high", "proportion", "high", ">=", 1),
        Outcome("y_per_x", "ratio", "y", over=Outcome("x", "mean", "x")),
    ]
    sums = []
    for outcome in list_sums(outcomes):
        if outcome.name == "everybody":
            summed = pd.DataFrame(vars(weights_of(people)))
            sums.append(summed.assign(breakdown="all", outcome=outcome.name))
            continue
        answered = people.dropna(subset=[name for name in (outcome.source, outcome.also) if name])
        summed = pd.DataFrame(vars(sum_people(answered, outcome.source)))
        sums.append(summed.assign(breakdown="all", outcome=outcome.name))
    table = pa.Table.from_pandas(pd.concat(sums).sort_values(["outcome", "stratum", "psu"]), preserve_index=False)
    survey = Survey(date(2026, 3, 1), table, pairs(frame))
    earlier = Survey(date(2026, 2, 1), table, pairs(frame))
    rows = estimate_rows(survey, outcomes, earlier)
    assert [(row.outcome, row.figures.kind) for row in rows] == [
        *(("high", "proportion"), ("high", "total"), ("high", "change")),
        *(("y", "mean"), ("y", "change"), ("y_per_x", "ratio")),
    ]
    assert {row.since for row in rows if row.figures.kind == "change"} == {date(2026, 2, 1)}
    assert all(np.isfinite(row.figures.estimate) for row in rows)
