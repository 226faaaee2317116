"""Which model a night uses, by the published nights: the one in force then, and none is made for the past."""

import json
from datetime import date
from types import SimpleNamespace

import pytest

from jobs.lake import Lake
from jobs.promotions import find_model
from jobs.train import DRIFT_LIMIT, DUE, KEPT, NEEDED, Drift, judge_need

# Night, and the model that it used.
NIGHTS = """
    2026-03-02  first
    2026-03-05  first
    2026-04-10  second
"""
BOOK = SimpleNamespace(retrain_days=30)
OLD = object()  # a model that can be used
DRIFTED = Drift({"mood_1": DRIFT_LIMIT + 0.01}, {"distress": 0.0})


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path)
    lake.prepare()
    for token, line in enumerate(NIGHTS.strip().splitlines(), 1):
        day, model = line.split()
        folder = lake.restricted / "runs" / f"run_date={day}"
        folder.mkdir()
        trained_on = "2026-03-02" if model == "first" else "2026-04-10"
        manifest = {"run_date": day, "token": token, "model": {"model_version": model, "trained_on": trained_on}}
        (folder / f"{token:08d}.json").write_text(json.dumps(manifest | {"stages": {}}))
    return lake


@pytest.mark.parametrize(
    ("day", "model"),
    [
        ("2026-02-01", "first"),  # older than the lake's first night: its model, and no series of its own
        ("2026-03-02", "first"),
        ("2026-04-09", "first"),
        ("2026-04-10", "second"),
        ("2026-05-01", "second"),
    ],
)
def test_the_model_in_force_at_a_date(lake, day, model):
    found = find_model(lake, date.fromisoformat(day))
    assert found is not None and found["model_version"] == model


def test_a_lake_without_a_night_has_no_model(tmp_path):
    assert find_model(Lake(tmp_path), date(2026, 3, 1)) is None


@pytest.mark.parametrize(
    ("day", "old", "drift", "need"),
    [
        ("2026-04-11", OLD, None, KEPT),
        ("2026-05-10", OLD, None, DUE),  # 30 days old
        ("2026-04-11", OLD, DRIFTED, DUE),
        ("2026-04-11", None, None, NEEDED),  # made for other answers
        ("2026-04-09", OLD, DRIFTED, KEPT),  # of the past: the first model was 38 days old then, and its items drifted
        ("2026-02-01", OLD, DRIFTED, KEPT),
        ("2026-02-01", None, None, NEEDED),
    ],
)
def test_whether_a_training_is_due(lake, day, old, drift, need):
    run_date = date.fromisoformat(day)
    found, reason = judge_need(lake, find_model(lake, run_date), old, run_date, BOOK, drift)
    assert found == need
    assert (reason is None) == (need == KEPT)
