import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from model.amortise import simulate_people
from model.errors import ModelError
from model.norms import FEWEST_TO_COMPARE, Norms, Table, tabulate, tabulate_fits, tabulate_trait


def rank(values, weights, asked):
    table = tabulate(np.asarray(values, np.float32), np.asarray(weights, float))
    return table.rank(np.asarray(asked, np.float32)).tolist()


@pytest.mark.parametrize(
    ("values", "weights", "asked", "percentiles"),
    [
        ([1, 2, 3, 4], [1, 1, 1, 1], [1, 2, 3, 4], [12.5, 37.5, 62.5, 87.5]),
        ([1, 2, 3, 4], [1, 1, 1, 1], [-9, 1.5, 9], [12.5, 25, 87.5]),
        ([0, 0, 0, 5], [1, 1, 1, 1], [0, 5], [37.5, 87.5]),
        ([0, 5], [3, 1], [0, 5], [37.5, 87.5]),
        ([0, 1, 5], [3, 0, 1], [0, 5], [37.5, 87.5]),
        ([2, 2], [1, 1], [1, 2, 3], [50, 50, 50]),
    ],
)
def test_mid_percentiles(values, weights, asked, percentiles):
    assert rank(values, weights, asked) == pytest.approx(percentiles)


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-3, 3, width=32)),
    st.integers(0, 10_000),
)
def test_tables_rise_strictly_and_stay_between_0_and_100(values, seed):
    weights = np.random.default_rng(seed).uniform(0.1, 5, len(values))
    table = tabulate(values, weights)
    assert (np.diff(table.values) > 0).all() and (np.diff(table.percentiles) > 0).all()
    assert table.percentiles[0] >= 0 and table.percentiles[-1] <= 100
    assert len(table.values) == len(table.percentiles) <= 203


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-3, 3, width=32)),
    hnp.arrays(np.float32, 30, elements=st.floats(-5, 5, width=32) | st.just(np.nan)),
)
def test_ranks_are_those_of_straight_lines_between_the_tables_entries(values, others):
    """Entries themselves, their neighbours, values between and beyond them, and what is no number."""
    table = tabulate(values, np.ones(len(values)))
    entries = np.array(table.values, np.float32)
    asked = np.concatenate(
        [entries, np.nextafter(entries, np.float32(9)), np.nextafter(entries, np.float32(-9)), others]
    )
    expected = np.where(np.isnan(asked), np.nan, np.interp(asked, table.values, table.percentiles))
    np.testing.assert_allclose(table.rank(asked), expected, rtol=1e-6)


def test_normal_population_gets_normal_percentiles():
    values = np.random.default_rng(1).normal(size=100_000)
    found = rank(values, np.ones(len(values)), [-1.959964, -0.674490, 0, 0.674490, 1.959964])
    assert found == pytest.approx([2.5, 25, 50, 75, 97.5], abs=0.5)


@torch.no_grad()
def test_intervals_hold_the_true_rank_of_simulated_people(trained):
    """A shrunken mean's rank is not a person's: ends ranked among shrunken means would hold it less often."""
    network, norms = trained.result.network, trained.result.norms
    generator = torch.Generator().manual_seed(5)
    patterns = torch.ones(1, len(network.spec.items), dtype=torch.bool)
    latents, categories = simulate_people(network, patterns, 20_000, generator)
    posterior = network.posterior(categories)
    answered = (categories >= 0).any(dim=1).numpy()
    for place, trait in enumerate(network.spec.traits):
        truth, mean, half = (
            values[:, place].numpy() for values in (latents, posterior.mean, 1.6448536 * posterior.sd())
        )
        rank = 100 * stats.rankdata(truth) / len(truth)
        middle, low, high = norms.rank(trait.key, mean, mean - half, mean + half)
        assert (low <= middle).all() and (middle <= high).all()
        assert ((low - 0.5 <= rank) & (rank <= high + 0.5))[answered].mean() == pytest.approx(0.9, abs=0.02)
        assert low.min() >= 0 and high.max() <= 100


def test_a_traits_own_distribution_is_the_priors(trained):
    network = trained.result.network
    draws = network.prior.sample(200_000, torch.Generator().manual_seed(1))[:, 0].detach().numpy()
    table = tabulate_trait(network, 0)
    for value in (-1.5, 0.0, 1.0, 2.5):
        assert table.rank(np.float32(value)) == pytest.approx(100 * (draws < value).mean(), abs=0.5)


def test_weights_all_zero_are_refused():
    with pytest.raises(ModelError, match="no norms"):
        tabulate(np.ones(3, np.float32), np.zeros(3))


def make_people(*groups: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Person fits and numbers of answers of groups (answers, people); who answered more lies higher."""
    counts = np.repeat([answers for answers, _ in groups], [people for _, people in groups])
    return (np.random.default_rng(1).normal(size=len(counts)) + counts).astype(np.float32), counts


ENOUGH = FEWEST_TO_COMPARE


def test_fit_is_ranked_among_people_who_answered_as_many():
    fits, counts = make_people((3, 2000), (7, 2000), (9, 2000))
    norms = Norms({}, {}, tabulate_fits(fits, counts, np.ones(len(fits))))
    assert [fewest for fewest, _ in norms.fits] == [3, 7, 9]
    ranks = norms.rank_fit(fits, counts.astype(np.int16))
    for answers in (3, 7, 9):
        chosen = ranks[counts == answers]
        assert chosen.mean() == pytest.approx(50, abs=0.5)
        assert np.quantile(chosen, [0.1, 0.9]) == pytest.approx([10, 90], abs=1)
    # Numbers of answers that nobody had: compared with the next lower ones, below the lowest with those.
    asked = np.array([1, 3, 6, 8, 20], np.int16)
    middle = np.array([3, 3, 3, 7, 9], np.float32)
    assert norms.rank_fit(middle, asked) == pytest.approx(np.full(5, 50), abs=3)


@pytest.mark.parametrize(
    ("groups", "fewest"),
    [
        ([(5, ENOUGH - 1), (9, ENOUGH)], [5]),
        ([(5, ENOUGH), (9, ENOUGH - 1)], [5]),
        ([(5, ENOUGH), (9, ENOUGH)], [5, 9]),
        ([(2, 1), (4, ENOUGH - 1), (5, 1), (9, ENOUGH)], [2, 9]),
        ([(2, 1), (5, 3)], [2]),
    ],
)
def test_too_few_people_are_compared_with_the_nearest_others(groups, fewest):
    fits, counts = make_people(*groups)
    tables = tabulate_fits(fits, counts, np.ones(len(fits)))
    assert [number for number, _ in tables] == fewest


def test_people_without_weight_are_ranked_and_not_counted():
    fits, counts = make_people((2, ENOUGH), (5, ENOUGH), (9, ENOUGH))
    weights = np.where(counts == 9, 1.0, 0.0)
    [(fewest, table)] = tabulate_fits(fits, counts, weights)
    assert fewest == 2 and table == tabulate(fits[counts == 9], np.ones(ENOUGH))


def test_norms_come_back_from_json():
    profiles, traits = Table([0.0, 1.5], [10.0, 90.0]), Table([-2.0, 3.0], [1.0, 99.0])
    norms = Norms({"t": profiles}, {"t": traits}, [(2, Table([0.5], [50.0])), (7, Table([-1.0, 2], [1.0, 99]))])
    assert Norms.from_json(json.loads(json.dumps(norms.to_json()))) == norms
