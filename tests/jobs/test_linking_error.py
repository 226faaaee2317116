import pytest

from jobs.linking_error import linking_variance

FIRST = {"model_version": "a", "series": "a", "linking_errors": {}}
SECOND = {"model_version": "b", "series": "a", "linking_errors": {"mood": 0.03}}
THIRD = {"model_version": "c", "series": "a", "linking_errors": {"mood": 0.04}}
OTHER = {"model_version": "d", "series": "d", "linking_errors": {}}


@pytest.mark.parametrize(
    ("now", "then", "variance"),
    [(SECOND, FIRST, 0.0009), (THIRD, SECOND, 0.0025), (SECOND, SECOND, 0.0), (OTHER, FIRST, None)],
)
def test_linking_errors_add_up_within_a_series(now, then, variance):
    assert linking_variance("mood", now, then) == (None if variance is None else pytest.approx(variance))


def test_a_trait_without_a_link_has_no_variance():
    assert linking_variance("sleep", SECOND, FIRST) is None
