import math

import pytest
from scipy.stats import t

from jobs.imputation import combine


def test_rubins_rules_by_hand():
    found = combine([1.0, 2.0, 3.0], [0.5, 0.6, 0.7], 10)
    total = 0.6 + 4 / 3 * 1.0
    share = (4 / 3) / total
    observed = 11 / 13 * 10 * (1 - share)
    df = 1 / (share**2 / 2 + 1 / observed)
    assert (found.estimate, found.se) == (2.0, pytest.approx(math.sqrt(total)))
    assert found.df == pytest.approx(df) and found.missing == pytest.approx(share)
    assert found.interval[1] - 2 == pytest.approx(t.ppf(0.975, df) * math.sqrt(total))


def test_values_that_agree_leave_the_designs_degrees_of_freedom_but_for_barnard_and_rubins_shrinkage():
    found = combine([1.0] * 20, [0.25] * 20, 30)
    assert (found.se, found.missing) == (0.5, 0.0)
    assert found.df == pytest.approx(31 / 33 * 30)


def test_no_design_variance_has_no_degrees_of_freedom():
    assert combine([1.0, 2.0], [0.0, 0.0], 5).df == 0.0
