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

from population_nightly import night_date, night_extract, night_marker
from tests.dags.conftest import PROJECT

ORDER = """
    wait_for_extract    -> validate
    validate            -> preprocess
    preprocess          -> training.decide
    training.decide     -> training.train training.keep_model training.postpone
    training.train      -> score
    training.keep_model -> score
    training.postpone   -> score
    score               -> aggregate
    aggregate           -> report
    report              -> publish
    publish             ->
"""
SPARK_STAGES = {"validate", "preprocess", "score", "aggregate"}

PARSE = """
import json, sys
import population_nightly
print(json.dumps([name for name in ("torch", "pyspark", "pandas") if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    bag = DagBag(str(PROJECT / "dags"))
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture(scope="module")
def dag(dags) -> DAG:
    return dags["population_nightly"]


def test_the_dags(dags):
    assert sorted(dags) == ["housekeeping", "model_retrain", "population_nightly"]
    for dag in dags.values():
        assert dag.catchup is False
        assert dag.max_active_runs == 1
        assert dag.doc_md
        for name in dag.params:
            schema = dag.params.get_param(name)
            assert schema.description, name
            assert schema.schema.keys() - {"description"}, name
        for task in dag.tasks:
            assert task.on_failure_callback, task.task_id


def test_a_night_that_is_late_is_told(dag):
    [alert] = dag.deadline
    assert (type(alert.reference).__name__, alert.interval.total_seconds()) == ("DagRunQueuedAtDeadline", 6 * 3600)
    assert alert.callback.path == "alerts.tell_late"


def test_a_retrain_is_monthly_or_asked_for_by_a_night(dags, dag):
    retrain = dags["model_retrain"]
    assert [asset.name for asset in retrain.timetable.asset_condition.objects] == ["retrain_due"]
    assert [asset.name for asset in dag.get_task("training.postpone").outlets] == ["retrain_due"]
    assert retrain.get_task("train").trigger_dag_id == "population_nightly"
    assert retrain.get_task("train").conf["force_retrain"] is True


def test_housekeeping_calls_commands_that_there_are(dags):
    commands = [task.stage for task in dags["housekeeping"].tasks if task.task_type == "StageOperator"]
    for command in (*commands, "drill"):
        done = subprocess.run([sys.executable, "-m", "jobs.cli", command, "--help"], cwd=PROJECT, capture_output=True)
        assert done.returncode == 0


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
        if task.task_id == "wait_for_extract":
            continue
        arguments = (
            getattr(task, "application_args", None)
            or getattr(task, "arguments", None)
            or task.templates_dict["arguments"]
        )
        assert "--run-date={{ night_date(params, dag_run) }}" in arguments


def test_what_changes_the_assets(dag):
    outlets = {task.task_id: sorted(asset.name for asset in task.outlets) for task in dag.tasks if task.outlets}
    assert outlets == {"publish": ["cohorts", "profiles"], "training.postpone": ["retrain_due"]}


def test_failed_tasks_are_tried_again_later_and_later(dag):
    for task in dag.tasks:
        if task.task_id != "wait_for_extract":
            assert (task.retries, task.retry_exponential_backoff) == (3, 3)
            assert task.execution_timeout.total_seconds() > 0


JANUARY = datetime(2026, 1, 31, 2, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("param", "interval_end", "expected"),
    [
        ("2025-12-24", JANUARY, "2025-12-24"),
        (None, JANUARY, "2026-01-31"),
        (None, None, "2026-02-01"),  # started by an asset: the day on which it was due
    ],
)
def test_run_date(param, interval_end, expected):
    params = {"run_date": param, "extract": "/landing/{run_date}/wave.csv"}
    dag_run = SimpleNamespace(data_interval_end=interval_end, run_after=FEBRUARY)
    assert night_date(params, dag_run) == expected
    assert night_extract(params, dag_run) == f"/landing/{expected}/wave.csv"


def test_a_nights_interval_is_the_day_that_ends_when_it_begins(dag):
    assert (type(dag.timetable).__name__, dag.timetable.expression) == ("CronDataIntervalTimetable", "0 2 * * *")


@pytest.mark.parametrize(
    ("extract", "marker", "expected"),
    [
        ("/landing/{run_date}", "{extract}/SHA256SUMS", "/landing/2026-01-31/SHA256SUMS"),
        ("/landing/wave.sav", "/landing/{run_date}.done", "/landing/2026-01-31.done"),
        ("/landing/{run_date}", None, ""),
        (None, "{extract}/SHA256SUMS", ""),  # a replay
    ],
)
def test_what_a_night_waits_for(extract, marker, expected):
    params = {"run_date": None, "extract": extract, "marker": marker}
    assert night_marker(params, SimpleNamespace(data_interval_end=JANUARY, run_after=FEBRUARY)) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("run_date", "31.1.2026"), ("lake", "relative/lake"), ("force_retrain", "perhaps"), ("codebook", "")],
)
def test_params_are_checked(dag, name, value):
    with pytest.raises(ParamValidationError):
        dag.params[name] = value


def test_parsing_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PARSE], cwd=PROJECT / "dags", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
