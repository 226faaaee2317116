import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.errors import ModelError
from model.norms import Norms, tabulate_percentiles


def rank(values, weights, asked):
    means, percentiles = tabulate_percentiles(np.asarray(values, np.float32), np.asarray(weights, float))
    return Norms({"t": means}, {"t": percentiles}).rank("t", np.asarray(asked, np.float32)).tolist()


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
    means, percentiles = tabulate_percentiles(values, weights)
    assert (np.diff(means) > 0).all() and (np.diff(percentiles) > 0).all()
    assert percentiles[0] >= 0 and percentiles[-1] <= 100
    assert len(means) <= 203


def test_normal_population_gets_normal_percentiles():
    values = np.random.default_rng(1).normal(size=100_000)
    found = rank(values, np.ones(len(values)), [-1.959964, -0.674490, 0, 0.674490, 1.959964])
    assert found == pytest.approx([2.5, 25, 50, 75, 97.5], abs=0.5)


def test_weights_all_zero_are_refused():
    with pytest.raises(ModelError, match="no norms"):
        tabulate_percentiles(np.ones(3, np.float32), np.zeros(3))
