"""Estimates against R's figures, against numbers worked out by hand, and properties that always hold."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.errors import ContractBroken
from jobs.survey import count_psus, estimate_domain
from tests.jobs.nhanes import needs_nhanes, read_people, read_reference, select_domain
from tests.jobs.survey_helpers import sum_people

NINE_DIGITS = 1e-10


def read_table(text: str) -> pd.DataFrame:
    """People as rows of an ASCII table; a dash is no answer."""
    header, *rows = [line.split() for line in text.strip().splitlines()]
    people = pd.DataFrame(rows, columns=header).replace({"-": None})
    return people.astype({"weight": float, "y": float})


def pairs(people: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(people["stratum"], people["psu"], strict=True))


def estimate(people, design=None, kind="mean", lonely_psu="fail", **options):
    sizes = count_psus(pairs(people if design is None else design))
    return estimate_domain(sum_people(people, "y"), sizes, kind, lonely_psu, **options)


TWO_STRATA = read_table(
    """
    stratum psu weight y
    a       1   1      1
    a       1   1      3
    a       2   2      5
    a       2   0      9
    b       1   1      2
    b       1   1      -
    b       2   3      4
    """
)


def test_mean_by_hand():
    # W = 8, sum wy = 4 + 10 + 2 + 12 = 28, mean 3.5
    # scores: a1 (4 - 7)/8 = -3/8, a2 (10 - 7)/8 = 3/8, b1 (2 - 3.5)/8 = -1.5/8, b2 (12 - 10.5)/8 = 1.5/8
    # variance: 2/1 (9 + 9)/64 + 2/1 (2.25 + 2.25)/64 = 45/64
    got = estimate(TWO_STRATA)
    assert (got.n, got.n_weighted, got.estimate, got.df, got.n_cases) == (5, 8.0, 3.5, 2, None)
    assert got.se == pytest.approx(math.sqrt(45 / 64), rel=1e-15)
    t = 4.302652729749464  # 97.5 % point of t with 2 df
    assert (got.ci_low, got.ci_high) == pytest.approx((3.5 - t * got.se, 3.5 + t * got.se), rel=1e-12)
    # simple random sample: sum w (y - 3.5)^2 = 6.25 + .25 + 4.5 + 2.25 + .75 = 14, x 5/4 / 8, x (8 - 5)/(8 x 5)
    assert got.deff == pytest.approx(45 / 64 / (14 / 8 * 5 / 4 * 3 / 40), rel=1e-12)
    assert (got.ci_method, got.presentation) == ("t", "suppress")


def test_a_psu_without_anybody_of_the_domain_counts_in_its_stratum():
    # Stratum a has two PSUs; the domain lives in one of them and in both of b.
    # W = 6, sum wy = 18, mean 3: scores a1 (4 - 6)/6, b1 (2 - 3)/6, b2 (12 - 9)/6
    # a: 2 ((-2/6 + 1/6)^2 + (0 + 1/6)^2) = 4/36; b: mean 1/6, 2 ((-2/6)^2 + (2/6)^2) = 16/36
    domain = TWO_STRATA[~((TWO_STRATA["stratum"] == "a") & (TWO_STRATA["psu"] == "2"))]
    got = estimate(domain, design=TWO_STRATA)
    assert got.se == pytest.approx(math.sqrt(20 / 36), rel=1e-15)
    assert got.df == 1


def test_a_domain_in_one_psu_of_each_stratum_has_no_bounds():
    got = estimate(TWO_STRATA[TWO_STRATA["psu"] == "1"], design=TWO_STRATA)
    assert (got.df, got.ci_low, got.ci_high) == (0, None, None)
    assert got.reason == "no degrees of freedom, so no interval"


def test_a_domain_in_which_nobody_answered():
    got = estimate(TWO_STRATA.assign(y=np.nan))
    assert (got.n, got.n_weighted, got.estimate, got.se, got.presentation) == (0, 0.0, None, None, "suppress")
    assert got.reason == "nobody in the cell answered"


@pytest.mark.parametrize(("y", "p"), [(0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("method", ["korn-graubard", "t", "logit"])
def test_a_proportion_of_zero_or_one_has_one_open_limit_and_only_by_korn_graubard(y, p, method):
    got = estimate(TWO_STRATA.assign(y=y, weight=0.1), kind="proportion", ci_method=method)
    assert (got.estimate, got.se, got.n_cases) == (p, 0.0, 7 * p)
    limit = 0.025 ** (1 / 7)
    expected = {0.0: (0.0, 1 - limit), 1.0: (limit, 1.0)}[p] if method == "korn-graubard" else (None, None)
    assert (got.ci_low, got.ci_high) == pytest.approx(expected, abs=1e-14)


# Stratum c has one PSU. W = 10, sum wy = 40, mean 4. Scores a1 (4 - 8)/10, a2 (10 - 8)/10, b1 -.2, b2 0, c1 .4
# a: 2 (.09 + .09) = .36; b: 2 (.01 + .01) = .04; c: nothing, .4^2 about the grand mean 0, or the mean of a and b
ONE_LONELY = pd.concat([TWO_STRATA, read_table("stratum psu weight y\nc 1 2 6")], ignore_index=True)
LONELY = {"adjust": 0.36 + 0.04 + 0.16, "certainty": 0.40, "remove": 0.40, "average": 0.40 * 3 / 2}


@pytest.mark.parametrize("rule", LONELY)
def test_lonely_psu_by_hand(rule):
    got = estimate(ONE_LONELY, lonely_psu=rule)
    assert got.se == pytest.approx(math.sqrt(LONELY[rule]), rel=1e-14)
    assert got.df == 2


def test_lonely_psu_fails_by_default_and_names_the_stratum():
    with pytest.raises(ContractBroken, match="stratum c has only one PSU"):
        estimate(ONE_LONELY)


def test_a_lonely_stratum_without_the_domain_does_not_matter():
    assert estimate(TWO_STRATA, design=ONE_LONELY) == estimate(TWO_STRATA)


def test_only_lonely_strata_leave_nothing_to_average():
    got = estimate(ONE_LONELY[ONE_LONELY["stratum"] == "c"], lonely_psu="average")
    assert (got.estimate, got.se, got.ci_low) == (6.0, None, None)


def test_a_psu_that_the_design_lacks_is_refused():
    with pytest.raises(ValueError, match="stratum c has more PSUs in the domain than in the design"):
        estimate(ONE_LONELY, design=TWO_STRATA)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_no_design_effect_where_the_weights_do_not_exceed_the_sample(scale):
    assert estimate(TWO_STRATA.assign(weight=scale)).deff is None


@st.composite
def samples(draw, binary=False):
    answer = st.sampled_from([0.0, 1.0]) if binary else st.integers(0, 27).map(float)
    size = draw(st.integers(4, 40))
    column = lambda values: draw(st.lists(values, min_size=size, max_size=size))  # noqa: E731
    people = pd.DataFrame(
        {
            "stratum": column(st.sampled_from("ab")),
            "psu": column(st.sampled_from("123")),
            "weight": column(st.floats(0.5, 5e4) | st.just(0.0)),
            "y": column(answer | st.none()),
        }
    ).astype({"y": float})
    corners = pd.DataFrame([(h, p, 1.0, 1.0) for h in "ab" for p in "123"], columns=people.columns)
    return pd.concat([people, corners], ignore_index=True)


@given(samples(), st.sampled_from(["mean", "proportion"]))
@settings(max_examples=50)
def test_doubling_all_weights_doubles_the_weighted_count_alone(people, kind):
    if kind == "proportion":
        people = people.assign(y=(people["y"] > 9).astype(float).where(people["y"].notna()))
    one = vars(estimate(people, kind=kind))
    two = vars(estimate(people.assign(weight=people["weight"] * 2), kind=kind))
    assert two.pop("n_weighted") == 2 * one.pop("n_weighted")
    one.pop("deff"), two.pop("deff")  # the sample is then a smaller share of the population
    assert one == two


@given(samples(binary=True), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_psus_changes_nothing(people, random):
    domain = sum_people(people, "y")
    order = list(range(len(domain.n)))
    random.shuffle(order)
    arrays = {name: column[order] for name, column in vars(domain).items() if name != "replicates"}
    shuffled = replace(domain, **arrays)
    sizes = count_psus(pairs(people))
    assert estimate_domain(shuffled, sizes, "proportion") == estimate_domain(domain, sizes, "proportion")


@given(samples(binary=True))
@settings(max_examples=50)
def test_a_proportion_and_its_complement_mirror_each_other(people):
    yes, no = estimate(people, kind="proportion"), estimate(people.assign(y=1 - people["y"]), kind="proportion")
    assert yes.estimate == pytest.approx(1 - no.estimate, abs=1e-12)
    assert yes.se == pytest.approx(no.se, abs=1e-12)
    assert yes.ci_low == pytest.approx(1 - no.ci_high, abs=1e-9)
    assert 0 <= yes.ci_low <= yes.estimate <= yes.ci_high <= 1


@needs_nhanes
def test_all_of_rs_figures():
    people, reference = read_people(), read_reference()
    sizes = count_psus(pairs(people))
    for row in reference.to_dict("records"):
        name = f"{row['domain_levels']} {row['outcome']}"
        sums = sum_people(select_domain(people, row["domain_vars"], row["domain_levels"]), row["outcome"])
        got = estimate_domain(sums, sizes, row["kind"])
        assert (got.n, got.df) == (row["n"], row["df"]), name
        assert got.n_weighted == pytest.approx(row["weighted_n"], rel=1e-12), name
        assert (got.estimate, got.se) == pytest.approx((row["estimate"], row["se"]), rel=NINE_DIGITS), name
        assert got.deff == pytest.approx(row["deff"], rel=1e-9), name
        bounds = ["ci_t_low", "ci_t_high"] if row["kind"] == "mean" else ["ci_kg_nchs_low", "ci_kg_nchs_high"]
        assert (got.ci_low, got.ci_high) == pytest.approx([row[b] for b in bounds], abs=1e-11), name
        if row["kind"] == "proportion":
            wald = estimate_domain(sums, sizes, "proportion", ci_method="t")
            logit = estimate_domain(sums, sizes, "proportion", ci_method="logit")
            assert (wald.ci_low, wald.ci_high) == pytest.approx((row["ci_t_low"], row["ci_t_high"]), abs=1e-11), name
            # R finds the logit by iteration, to about eight digits
            expected = (row["ci_logit_low"], row["ci_logit_high"])
            assert (logit.ci_low, logit.ci_high) == pytest.approx(expected, abs=1e-7), name


# SE of the PHQ-9 mean where people outside the domain are dropped before the design is made, which is wrong
FILTERED_FIRST = [
    ("race", "mexican_american", 0.1595669, 0.1474517, 0.1592661),
    ("race", "nh_asian", 0.1585904, 0.1568397, 0.1623445),
    ("educ", "lt_9th", 0.3425933, 0.3423148, 0.3543295),
]


@needs_nhanes
@pytest.mark.parametrize(("variable", "level", "adjust", "remove", "average"), FILTERED_FIRST)
def test_lonely_psus_as_in_r(variable, level, adjust, remove, average):
    people = select_domain(read_people(), variable, level).rename(columns={"phq9": "y"})
    people = people[people["y"].notna()]
    expected = {"adjust": adjust, "remove": remove, "certainty": remove, "average": average}
    for rule, se in expected.items():
        assert estimate(people, lonely_psu=rule).se == pytest.approx(se, abs=5.1e-8), rule
    with pytest.raises(ContractBroken, match="has only one PSU"):
        estimate(people)
