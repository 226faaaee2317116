"""Where a person stands in a group: ranks by weight, and intervals among true traits."""

import numpy as np
import pytest
from scipy.special import ndtr

from model.standing import GroupNorms


def test_ranks_follow_the_weights_and_intervals_the_aggregate_posterior():
    rng = np.random.default_rng(1)
    true = rng.normal(0.5, 1.0, 5000)
    error = 0.5
    shrink = 1 / (1 + error**2)
    means = (0.5 + shrink * (true + rng.normal(0, error, 5000) - 0.5)).astype(np.float32)
    sds = np.full(5000, np.sqrt(1 - shrink), dtype=np.float32)
    norms = GroupNorms.of(means, sds, np.ones(5000))
    middle, low, high = norms.rank(0.5, -0.5, 2.5)
    assert middle == pytest.approx(50, abs=2)
    # True traits are normal about 0.5 with sd 1, whatever the profiles were drawn towards.
    assert low == pytest.approx(100 * ndtr(-1), abs=1.5) and high == pytest.approx(100 * ndtr(2), abs=1.5)
    heavy = GroupNorms.of(means, sds, np.where(means > 0.5, 3.0, 1.0))
    assert heavy.rank(0.5, -0.5, 2.5)[0] == pytest.approx(25, abs=2)
    doubled = GroupNorms.of(np.tile(means, 2), np.tile(sds, 2), np.repeat([1.0, 0.0], 5000))
    assert doubled.rank(0.1, -1, 1) == pytest.approx(norms.rank(0.1, -1, 1))


def test_an_interval_holds_its_rank():
    norms = GroupNorms.of(np.float32([0.0, 0.0, 0.0]), np.float32([0.1, 0.1, 0.1]), np.ones(3))
    low, middle, high = (norms.rank(0.5, 0.4, 0.6)[place] for place in (1, 0, 2))
    assert low <= middle <= high
