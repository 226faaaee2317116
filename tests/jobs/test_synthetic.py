"""A synthetic extract's weights and texts: what they meet, and what they do not hold."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.synthetic_figures import People, add_up
from expectations.codebook import read_codebook
from jobs.survey import count_psus, estimate_domain
from jobs.synthetic_columns import cut_numbers, draw_patterns, name_groups, read_answering, read_codes, read_columns
from jobs.synthetic_weights import Design, Margin, calibrate_weights, round_weights
from model.cells import SMALLEST


@pytest.mark.parametrize("larger", [1, 2])
def test_weights_meet_published_figures_but_for_their_rounding(larger):
    """Also where one in eight has no answer, and is in no figure; of a survey of `larger` squared as many people."""
    random = np.random.default_rng(1)
    weights, group = random.lognormal(0, 0.5, 4_000), random.integers(0, 3, 4_000)
    answers, told = random.normal(group, 1.0), random.random(4_000) > 0.125
    design = Design(random.integers(0, 40, 4_000), np.arange(41) // 2)  # nobody is of the last PSU
    # What a drawing anew comes to is .03 to .04, where the survey has four times as many people half of it.
    wanted = [(1_000.0, 0.1, 0.06), (2_000.0, 0.9, 0.03), (1_500.0, 2.2, 0.02), (4_500.0, 1.1556, 0.03)]
    margins = []
    for number, (people, estimate, se) in enumerate(wanted):
        inside = told & ((group == number) | (number == 3))
        margins.append(Margin(inside, answers, int(inside.sum()) * larger**2, people, estimate, se / larger))
    made = calibrate_weights(weights, margins, design)
    assert (made > 0).all() and made[~told] == pytest.approx(4_500 * weights[~told] / weights.sum())
    for margin, (_, _, se) in zip(margins, wanted, strict=True):
        people = made[margin.inside].sum()
        mean = (made * margin.inside) @ answers / people
        assert abs(people / margin.people - 1) < 0.02
        assert abs(mean - margin.estimate) < 0.2 * margin.se
        assert abs(find_se(made * margin.inside, answers, design) / se - 1) < 0.05
    assert calibrate_weights(weights, [], design) is weights


def find_se(weights, answers, design):
    people = People(
        np.empty((len(weights), 0)), {}, design.homes[design.psus].astype(str), design.psus.astype(str), weights
    )
    sizes = count_psus(zip(people.stratum, people.psu, strict=True))
    return estimate_domain(add_up(people, answers, weights > 0), sizes, "mean", "remove").se


def test_no_weight_is_one_that_few_people_have():
    real = np.array([100.0] * SMALLEST + [250.0, 333.333])
    made = round_weights(np.array([100.0, 250.0, 250.0000001, 333.333, 1e-3]), real, SMALLEST)
    assert made[0] == 100
    assert not np.isin(made[1:], real).any()
    assert np.allclose(made[1:], [250.001, 250.001, 333.334, 1e-3])


def test_columns_are_written_in_the_codebooks_codes():
    book, _ = read_codebook("nhanes_2017_2018")
    random, people = np.random.default_rng(1), 2_000
    age = random.integers(18, 81, people).astype(float)
    income = np.where(random.random(people) < 0.1, np.nan, random.uniform(0, 5, people).round(2))
    race = random.choice([1.0, 3.0, 4.0], people)
    race[:3] = 7.0  # of few people
    school = random.choice([1.0, 5.0, 9.0, np.nan], people)
    table = pa.table(
        {
            **{"RIDAGEYR": age, "INDFMPIR": income, "RIDRETH3": race},
            "RIAGENDR": random.choice([1.0, 2.0], people),
            "DMDEDUC2": pa.array(school, from_pandas=True),
        }
    )
    columns = read_columns(book, table)
    drawn = {name: column.write(column.codes, random) for name, column in columns.items()}
    assert set(drawn["RIDRETH3"]) == {"1", "3", "4"}
    assert set(drawn["DMDEDUC2"]) == {"1", "5", "9", None}
    for cohort in book.cohorts:
        assert set(name_groups(book, cohort, drawn[cohort.column])) <= {*cohort.groups, None}
    bands = [np.searchsorted([30, 45, 60], column.astype(float), side="right") for column in (age, drawn["RIDAGEYR"])]
    assert np.array_equal(*bands)
    assert [text is None for text in drawn["INDFMPIR"]] == np.isnan(income).tolist()


def test_numbers_keep_missing_codes_apart():
    values = np.array([*np.arange(100.0), *[999.0] * 20, *[np.nan] * 15])
    column = cut_numbers(values, [30.0, 60.0], {999.0})
    drawn = column.write(column.codes, np.random.default_rng(1))
    assert (drawn[100:120] == "999").all()
    assert (drawn[120:] == None).all()  # noqa: E711
    assert max(float(text) for text in drawn[:100]) < 999


def test_items_are_left_out_as_people_do():
    book, _ = read_codebook("nhanes_2017_2018")
    random, people = np.random.default_rng(1), 3_000
    codes = random.integers(0, 4, (people, 9)).astype(np.int8)
    codes[:300], codes[300:500, 2] = -1, -1
    raw = np.where(codes >= 0, codes, np.nan).astype(float)
    raw[300:500, 2] = 9
    table = pa.table({item.column: pa.array(raw[:, j], from_pandas=True) for j, item in enumerate(book.items)})
    answering = read_answering(book, table, codes)
    assert np.bincount(answering.classes).tolist() == [2_500, 200, 300]
    texts = np.full((people, 9), "0", dtype=object)
    gone = answering.leave_out(texts, answering.classes, random)
    assert np.array_equal(gone, codes < 0)
    assert set(texts[300:500, 2]) == {"9"}
    assert set(texts[:300].ravel()) == {None}


def test_who_leaves_some_items_out_leaves_neither_none_nor_all():
    gone = draw_patterns(np.array([0.1, 0.9, 0.5]), 2_000, np.random.default_rng(1))
    assert gone.any(axis=1).all()
    assert not gone.all(axis=1).any()


def test_codes_are_read_as_they_were_delivered():
    column = read_codes(pa.chunked_array([["a", "b", "a"] * SMALLEST, [None] * SMALLEST, ["c"]]))
    drawn = column.write(column.codes, np.random.default_rng(1))
    assert drawn.tolist() == ["a", "b", "a"] * SMALLEST + [None] * SMALLEST + [None]
