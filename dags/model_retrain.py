"""A new model, monthly and where a night has found that one is due; the gate decides whether it comes into force."""

from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, dag, task

from lake_tasks import CODEBOOK, DEFAULTS, LAKE, RETRAIN_DUE
from night_tasks import call_command

SCHEDULE = "0 12 1 * *"  # by day, when no night waits for it
LAST_NIGHT = "SELECT max(run_date)::VARCHAR FROM nights"

DOC = """
### A new model

`find_night` names the lake's last published night, and `train` has that night run once more, on the rows that it
accepted, with a training of its own. The gate compares the new model with the one in force: a better one comes into
force with the night's new release, a worse one stays in the registry with a model card, and the night's figures stay as
they were. The nights that follow use what is in force.

It runs monthly, and when `population_nightly` (with the param `retrain` set to `apart`) has found a model too old or
drifted away from.
"""


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable(SCHEDULE, timezone="UTC"), assets=[RETRAIN_DUE]),
    start_date=datetime(1970, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "codebook": CODEBOOK,
        "lake": LAKE,
        "reason": Param("a new model", type="string", minLength=1, description="Why the night is released again."),
    },
    default_args=DEFAULTS,
    doc_md=DOC,
    tags=["mindcensus"],
)
def model_retrain() -> None:
    @task
    def find_night(params: dict[str, Any]) -> str:
        """The date of the last published night, YYYY-MM-DD."""
        return call_command("query", [LAST_NIGHT, "--restricted", "--csv", f"--lake={params['lake']}"])

    night = find_night()
    TriggerDagRunOperator(
        task_id="train",
        trigger_dag_id="population_nightly",
        conf={
            "codebook": "{{ params.codebook }}",
            "lake": "{{ params.lake }}",
            "reason": "{{ params.reason }}",
            "run_date": night,
            "extract": None,
            "force_retrain": True,
        },
        wait_for_completion=True,
        deferrable=True,
        # It waits for other tasks, which may need the lake, and which are tried again by themselves.
        retries=0,
        pool="default_pool",
        execution_timeout=None,
    )


model_retrain()
