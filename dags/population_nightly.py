"""The nightly run: an extract goes in, profiles and cohort estimates come out."""

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    SyncCallback,
    TaskGroup,
    TriggerRule,
    dag,
    task,
)

from alerts import tell_late
from deliveries import DeliverySensor
from lake_tasks import CODEBOOK, COHORTS, DEFAULTS, LAKE, PROFILES, RETRAIN_DUE, night_date
from night_metrics import tell_metrics
from night_tasks import SparkStageOperator, StageOperator, call_command

if TYPE_CHECKING:
    from airflow.sdk import DagRun

SCHEDULE = "0 2 * * *"
# Nights since this date are caught up when the DAG is unpaused; unset, the last one that was due alone.
CATCH_UP_FROM = os.environ.get("MINDCENSUS_CATCH_UP_FROM", "")
PATIENCE = timedelta(hours=12)  # with the extract
# From the moment when the run comes up. Set by the stack: `airflow dags test` falls over a DAG that has one.
DEADLINE_HOURS = os.environ.get("MINDCENSUS_DEADLINE_HOURS", "")
DEADLINE = (
    DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=float(DEADLINE_HOURS)),
        callback=SyncCallback(tell_late),
    )
    if DEADLINE_HOURS
    else None
)

DOC = """
### One night of Mindcensus

`wait_for_extract` waits for the marker of the date's delivery, `validate` judges the extract, `preprocess` makes one
row a person of it, the group `training` makes a new model where none is in force or a retrain is due, `score` profiles
every person, `aggregate` estimates the cohorts, `report` writes the page, and `publish` makes the night readable, all
at once. Until then, the night before is what readers see.

* **Every task can be cleared** and runs again with the same result.
* **Exit codes 2, 3 and 4** (wrong call, broken contract, too much quarantined) fail a task at once: mend the extract,
  the codebook or the params, then start a new run of the date. So do 6 (a release waits to be signed off: clear
  `publish` once it is) and 7 (protected figures would be given away). Everything else is tried again.
* **Another date:** trigger with the param `run_date`. A date that is already published is superseded by its new night.
* **A range of past dates:** a backfill, one run at a time. Each night uses the model that was in force then, or the
  lake's first one where the date is older; no model is made for the past.
* **Spark** runs where the connection `spark_default` says: `local[*,2]` or a cluster, the driver always with the task.
"""

PARAMS = {
    "codebook": CODEBOOK,
    "extract": Param(
        os.environ.get("MINDCENSUS_EXTRACT", "/data/landing/{run_date}"),
        type=["null", "string"],
        description="The extract's file or folder; {run_date} in it becomes the night's date. Empty: replay the night.",
    ),
    "marker": Param(
        os.environ.get("MINDCENSUS_MARKER", "{extract}/SHA256SUMS"),
        type=["null", "string"],
        description="The file that ends a delivery, which the night waits for; {extract} and {run_date} are filled in. "
        "Empty: the extract is taken as it is.",
    ),
    "lake": LAKE,
    "run_date": Param(
        None,
        type=["null", "string"],
        format="date",
        description="The night's date, YYYY-MM-DD. Empty: the end of the run's data interval, else the day it was due.",
    ),
    "retrain": Param(
        os.environ.get("MINDCENSUS_RETRAIN", "tonight"),
        enum=["tonight", "apart"],
        description="Where a retrain is due: train tonight, or keep the model and leave it to the DAG model_retrain. "
        "A lake without a model trains tonight.",
    ),
    "force_retrain": Param(False, type="boolean", description="Train a new model tonight, due or not."),
    "reason": Param(
        None,
        type=["null", "string"],
        description="Why a published date is corrected, where the codebook wants releases to be signed off.",
    ),
}


def night_extract(params: dict[str, Any], dag_run: "DagRun") -> str:
    return (params["extract"] or "").replace("{run_date}", night_date(params, dag_run))


def night_marker(params: dict[str, Any], dag_run: "DagRun") -> str:
    """Nothing where the night is replayed, or deliveries have no marker."""
    extract = night_extract(params, dag_run)
    filled = (params["marker"] or "").replace("{extract}", extract).replace("{run_date}", night_date(params, dag_run))
    return filled if extract else ""


# Rendered by Airflow for each task; what renders to nothing is left out.
ARGUMENTS = [
    "--lake={{ params.lake }}",
    "--run-date={{ night_date(params, dag_run) }}",
    "--codebook={{ params.codebook }}",
    "{{ '--extract=' ~ night_extract(params, dag_run) if params.extract else '' }}",
]
REASON = "{{ '--reason=' ~ params.reason if params.reason else '' }}"


@dag(
    # A night's interval is the day that ends when it begins.
    schedule=CronDataIntervalTimetable(SCHEDULE, timezone="UTC"),
    # The first interval begins the day before. Unset, the start is before any survey's date: Airflow runs no task of
    # an earlier one, and calls the run a success.
    start_date=datetime.fromisoformat(CATCH_UP_FROM or "1970-01-02").replace(tzinfo=UTC) - timedelta(days=1),
    catchup=bool(CATCH_UP_FROM),
    max_active_runs=1,
    params=PARAMS,
    default_args=DEFAULTS,
    deadline=DEADLINE,
    user_defined_macros={"night_date": night_date, "night_extract": night_extract, "night_marker": night_marker},
    doc_md=DOC,
    tags=["mindcensus"],
)
def population_nightly() -> None:
    wait_for_extract = DeliverySensor(
        task_id="wait_for_extract",
        marker="{{ night_marker(params, dag_run) }}",
        patience=PATIENCE,
        retries=0,
        execution_timeout=None,
        pool="default_pool",
    )
    validate = SparkStageOperator(task_id="validate", stage="validate", arguments=ARGUMENTS)
    preprocess = SparkStageOperator(task_id="preprocess", stage="preprocess", arguments=ARGUMENTS)

    with TaskGroup("training", tooltip="Makes a model where none is in force or a retrain is due"):

        @task.branch(templates_dict={"arguments": ARGUMENTS})
        def decide(params: dict[str, Any], templates_dict: dict[str, Any]) -> str:
            """Names the task to follow; the stage itself judges from the lake whether a training is due."""
            if params["force_retrain"]:
                return "training.train"
            need = call_command("train", ["--check", *templates_dict["arguments"]])
            if need == "due" and params["retrain"] == "apart":
                return "training.postpone"
            return "training.keep_model" if need == "kept" else "training.train"

        force = "{{ '--force-retrain' if params.force_retrain else '' }}"
        train = StageOperator(task_id="train", stage="train", arguments=[*ARGUMENTS, force])
        # The same command: where nothing is due it only records which model the night uses.
        keep_model = StageOperator(task_id="keep_model", stage="train", arguments=ARGUMENTS)
        postpone = StageOperator(
            task_id="postpone", stage="train", arguments=[*ARGUMENTS, "--keep-model"], outlets=[RETRAIN_DUE]
        )
        decided = decide()

    # All but one of the branches are always skipped.
    score = SparkStageOperator(
        task_id="score", stage="score", arguments=ARGUMENTS, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
    )
    aggregate = SparkStageOperator(task_id="aggregate", stage="aggregate", arguments=ARGUMENTS)
    report = StageOperator(task_id="report", stage="report", arguments=ARGUMENTS)
    publish = StageOperator(
        task_id="publish",
        stage="publish",
        arguments=[*ARGUMENTS, REASON],
        outlets=[PROFILES, COHORTS],
        post_execute=tell_metrics,
    )

    wait_for_extract >> validate >> preprocess >> decided >> [train, keep_model, postpone] >> score
    score >> aggregate >> report >> publish


population_nightly()
