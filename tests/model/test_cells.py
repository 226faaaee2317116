"""Categories, numbers and designs drawn anew: what is kept of the people, and what is not."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.synthetic_design import join_psus, join_small
from model.cells import SMALLEST, draw_cells, join_rare
from model.numbers import count_decimals, make_histogram


def simulate_columns(people: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    place = random.integers(0, 6, people)
    school = (random.random(people) < 0.1 + 0.15 * place).astype(np.int64)
    wealth = np.clip(school + random.integers(0, 3, people), 0, 3)
    return {"place": place, "school": school, "wealth": wealth}


def test_two_way_tables_are_kept():
    people = simulate_columns(4_000)
    drawn = draw_cells(people, 40_000, np.random.default_rng(2))
    for one, other in (("place", "school"), ("school", "wealth"), ("place", "wealth")):
        shares = []
        for columns in (people, drawn):
            table = np.zeros((6, 6))
            np.add.at(table, (columns[one], columns[other]), 1)
            shares.append(table / table.sum())
        assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_the_same_seed_draws_the_same_and_another_seed_others():
    people = simulate_columns(500)
    first, again, other = (draw_cells(people, 300, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in people)
    assert not np.array_equal(first["place"], other["place"])


def test_a_level_of_few_people_is_joined_to_another():
    codes = np.array([0] * 50 + [1] * (SMALLEST - 1) + [2] * SMALLEST)
    assert set(join_rare(codes)) == {0, 2}
    assert set(join_rare(codes, into=2)) == {0, 2}
    assert (join_rare(codes, into=2) == 0).sum() == 50


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400))
def test_a_histogram_tells_no_number_of_few_people(values: list[float]):
    numbers = np.array(values)
    found = make_histogram(numbers, 3)
    assert found.people.sum() == len(numbers)
    assert (found.high >= found.low).all()
    single = found.low == found.high
    told = found.low[single & np.isin(found.low, numbers)]
    assert all((numbers == one).sum() >= SMALLEST or np.ptp(numbers) < 1e-3 for one in told)


def test_a_histogram_keeps_the_distribution_but_not_its_ends():
    numbers = np.random.default_rng(1).lognormal(0, 0.5, 3_000).round(2)
    drawn = make_histogram(numbers, count_decimals(numbers)).draw(50_000, np.random.default_rng(2))
    assert abs(drawn.mean() - numbers.mean()) < 0.02
    assert np.abs(np.quantile(drawn, [0.1, 0.5, 0.9]) - np.quantile(numbers, [0.1, 0.5, 0.9])).max() < 0.05
    assert drawn.max() != numbers.max()
    assert count_decimals(drawn) == 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60))
def test_small_groups_are_joined_to_their_neighbours(sizes: list[int], least: int):
    groups = join_small(sizes, least)
    assert (np.diff(groups) >= 0).all()
    held = np.bincount(groups, sizes)
    assert (held >= least).all() or len(held) == 1


def test_psus_of_few_people_and_strata_with_one_are_joined_and_renamed():
    sizes = {
        ("a", "1"): 30,
        ("a", "2"): 4,
        ("b", "1"): 25,
        ("b", "2"): 25,
        ("c", "1"): 3,
        ("c", "2"): 40,
        ("d", "1"): 50,
    }
    strata = np.repeat([stratum for stratum, _ in sizes], list(sizes.values()))
    psus = np.repeat([f"{stratum}:{psu}" for stratum, psu in sizes], list(sizes.values()))
    units, homes = join_psus(strata, psus, np.random.default_rng(1))
    assert np.bincount(units).min() >= SMALLEST
    assert np.bincount(homes).min() >= 2
    assert len(set(zip(psus.tolist(), units.tolist(), strict=True))) == len(sizes)


def test_no_number_is_drawn_that_the_codebook_does_not_allow():
    numbers = np.random.default_rng(1).exponential(0.02, 200)
    drawn = make_histogram(numbers, 3, (0.01, 0.03)).draw(20_000, np.random.default_rng(2))
    assert (drawn.min(), drawn.max()) == (0.01, 0.03)
