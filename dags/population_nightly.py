"""The nightly run: an extract goes in, profiles and cohort estimates come out."""

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Param, TaskGroup, TriggerRule, dag, task

from night_tasks import SparkStageOperator, StageOperator, call_command

if TYPE_CHECKING:
    from airflow.sdk import DagRun

DOC = """
### One night of Mindcensus

`validate` judges the extract, `preprocess` makes one row a person of it, the group `training` makes a new model where
none is in force or a retrain is due, `score` profiles every person, `aggregate` estimates the cohorts, `report` writes
the page, and `publish` makes the night readable, all at once. Until then, the night before is what readers see.

* **Every task can be cleared** and runs again with the same result.
* **Exit codes 2, 3 and 4** (wrong call, broken contract, too much quarantined) fail a task at once: mend the extract,
  the codebook or the params, then start a new run of the date. So do 6 (a release waits to be signed off: clear
  `publish` once it is) and 7 (protected figures would be given away). Everything else is tried again.
* **Another date:** trigger with the param `run_date`. A date that is already published is superseded by its new night.
* **Spark** runs where the connection `spark_default` says: `local[*,2]` or a cluster, the driver always with the task.
"""

PARAMS = {
    "codebook": Param(
        os.environ.get("MINDCENSUS_CODEBOOK", "demo_population"),
        type="string",
        minLength=1,
        description="A codebook that ships, by its name, or the path of a YAML file.",
    ),
    "extract": Param(
        os.environ.get("MINDCENSUS_EXTRACT", "/data/landing/{run_date}"),
        type=["null", "string"],
        description="The extract's file or folder; {run_date} in it becomes the night's date. Empty: replay the night.",
    ),
    "lake": Param(
        os.environ.get("MINDCENSUS_LAKE", "/data/lake"),
        type="string",
        pattern="^/.*$",
        description="The lake's folder, as an absolute path.",
    ),
    "run_date": Param(
        None,
        type=["null", "string"],
        format="date",
        description="The night's date, YYYY-MM-DD. Empty: the run's logical date, else the day on which it was due.",
    ),
    "force_retrain": Param(False, type="boolean", description="Train a new model tonight, due or not."),
}

DEFAULTS = {
    # Long enough for a killed task's orphan, which holds the lake, to end.
    "retries": 3,
    "retry_delay": timedelta(minutes=3),
    "retry_exponential_backoff": 3,
    "max_retry_delay": timedelta(minutes=30),
}


def night_date(params: dict[str, Any], dag_run: "DagRun") -> str:
    """The date that every task is given, so that no stage looks at a clock. An asset's run has no logical one."""
    return params["run_date"] or (dag_run.logical_date or dag_run.run_after).strftime("%Y-%m-%d")


def night_extract(params: dict[str, Any], dag_run: "DagRun") -> str:
    return (params["extract"] or "").replace("{run_date}", night_date(params, dag_run))


# Rendered by Airflow for each task; what renders to nothing is left out.
ARGUMENTS = [
    "--lake={{ params.lake }}",
    "--run-date={{ night_date(params, dag_run) }}",
    "--codebook={{ params.codebook }}",
    "{{ '--extract=' ~ night_extract(params, dag_run) if params.extract else '' }}",
]

PROFILES = Asset(name="profiles", uri="x-mindcensus://restricted/profiles")
COHORTS = Asset(name="cohorts", uri="x-mindcensus://public/cohorts")


@dag(
    schedule="0 2 * * *",
    # Before any survey's date: Airflow runs no task of an earlier one, and calls the run a success.
    start_date=datetime(1970, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args=DEFAULTS,
    user_defined_macros={"night_date": night_date, "night_extract": night_extract},
    doc_md=DOC,
    tags=["mindcensus"],
)
def population_nightly() -> None:
    validate = SparkStageOperator(task_id="validate", stage="validate", arguments=ARGUMENTS)
    preprocess = SparkStageOperator(task_id="preprocess", stage="preprocess", arguments=ARGUMENTS)

    with TaskGroup("training", tooltip="Makes a model where none is in force or a retrain is due"):

        @task.branch(templates_dict={"arguments": ARGUMENTS})
        def decide(params: dict[str, Any], templates_dict: dict[str, Any]) -> str:
            """Names the task to follow; the stage itself judges from the lake whether a training is due."""
            if params["force_retrain"]:
                return "training.train"
            due = call_command("train", ["--check", *templates_dict["arguments"]]) == "due"
            return "training.train" if due else "training.keep_model"

        force = "{{ '--force-retrain' if params.force_retrain else '' }}"
        train = StageOperator(task_id="train", stage="train", arguments=[*ARGUMENTS, force])
        # The same command: where nothing is due it only records which model the night uses.
        keep_model = StageOperator(task_id="keep_model", stage="train", arguments=ARGUMENTS)
        decided = decide()

    # One of the two branches is always skipped.
    score = SparkStageOperator(
        task_id="score", stage="score", arguments=ARGUMENTS, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
    )
    aggregate = SparkStageOperator(task_id="aggregate", stage="aggregate", arguments=ARGUMENTS)
    report = StageOperator(task_id="report", stage="report", arguments=ARGUMENTS)
    # Nothing of a night can be read before this task: so the assets change here, not where their files are written.
    publish = StageOperator(task_id="publish", stage="publish", arguments=ARGUMENTS, outlets=[PROFILES, COHORTS])

    validate >> preprocess >> decided >> [train, keep_model] >> score >> aggregate >> report >> publish


population_nightly()
