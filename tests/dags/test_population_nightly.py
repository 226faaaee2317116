"""The DAG as Airflow sees it: what follows what, what each task is called with, what parsing costs."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError

from population_nightly import night_date, night_extract
from tests.dags.conftest import PROJECT

ORDER = """
    validate            -> preprocess
    preprocess          -> training.decide
    training.decide     -> training.train training.keep_model
    training.train      -> score
    training.keep_model -> score
    score               -> aggregate
    aggregate           -> report
    report              -> publish
    publish             ->
"""
SPARK_STAGES = {"validate", "preprocess", "score", "aggregate"}

# Imports of the DAG's file, timed after Airflow's own.
PARSE = """
import json, sys, time
import airflow.sdk
start = time.perf_counter()
import population_nightly
seconds = time.perf_counter() - start
print(json.dumps([seconds, [name for name in ("torch", "pyspark", "pandas") if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def dag() -> DAG:
    bag = DagBag(str(PROJECT / "dags"))
    assert bag.import_errors == {}
    assert list(bag.dags) == ["population_nightly"]
    return bag.dags["population_nightly"]


def test_order_of_the_stages(dag):
    expected = {}
    for line in ORDER.strip().splitlines():
        task, followers = line.split("->")
        expected[task.strip()] = set(followers.split())
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == expected


def test_a_skipped_branch_of_the_training_does_not_skip_the_scoring(dag):
    assert dag.get_task("score").trigger_rule == "none_failed_min_one_success"
    others = {task.trigger_rule for task in dag.tasks if task.task_id != "score"}
    assert others == {"all_success"}


def test_spark_stages_go_through_spark_submit_in_client_mode(dag):
    through_spark = {task.task_id: task for task in dag.tasks if task.task_type == "SparkStageOperator"}
    assert set(through_spark) == SPARK_STAGES
    for stage, task in through_spark.items():
        assert task.application == str(PROJECT / "jobs" / "submit.py")
        assert task.application_args[0] == stage
        assert task._deploy_mode == "client"


def test_every_task_is_given_its_run_date(dag):
    for task in dag.tasks:
        arguments = (
            getattr(task, "application_args", None)
            or getattr(task, "arguments", None)
            or task.templates_dict["arguments"]
        )
        assert "--run-date={{ night_date(params, dag_run) }}" in arguments


def test_only_publishing_changes_the_assets(dag):
    outlets = {task.task_id: sorted(asset.name for asset in task.outlets) for task in dag.tasks if task.outlets}
    assert outlets == {"publish": ["cohorts", "profiles"]}


def test_failed_tasks_are_tried_again_later_and_later(dag):
    for task in dag.tasks:
        assert (task.retries, task.retry_exponential_backoff) == (3, 3)


JANUARY = datetime(2026, 1, 31, 2, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("param", "logical_date", "expected"),
    [
        ("2025-12-24", JANUARY, "2025-12-24"),
        (None, JANUARY, "2026-01-31"),
        (None, None, "2026-02-01"),  # started by an asset: the day on which it was due
    ],
)
def test_run_date(param, logical_date, expected):
    params = {"run_date": param, "extract": "/landing/{run_date}/wave.csv"}
    dag_run = SimpleNamespace(logical_date=logical_date, run_after=FEBRUARY)
    assert night_date(params, dag_run) == expected
    assert night_extract(params, dag_run) == f"/landing/{expected}/wave.csv"


@pytest.mark.parametrize(
    ("name", "value"),
    [("run_date", "31.1.2026"), ("lake", "relative/lake"), ("force_retrain", "perhaps"), ("codebook", "")],
)
def test_params_are_checked(dag, name, value):
    with pytest.raises(ParamValidationError):
        dag.params[name] = value


def test_parsing_takes_less_than_a_second_and_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PARSE], cwd=PROJECT / "dags", capture_output=True, text=True, check=True
    )
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert seconds < 1
