"""What keeps a lake fit for years: people's old tables are removed, and its back-up is restored and checked."""

import os
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from lake_tasks import DEFAULTS, LAKE, night_date
from night_tasks import StageOperator, call_command

SCHEDULE = "0 14 * * 0"

DOC = """
### Housekeeping

* `retain` removes the tables of people of nights older than `keep_days`, and nights that were given up. Estimates,
  releases, manifests and models stay.
* `drill` restores the back-up to a scratch folder and checks it against its manifests. Without a back-up it is skipped.
"""

PARAMS = {
    "lake": LAKE,
    "keep_days": Param(
        int(os.environ.get("MINDCENSUS_KEEP_DAYS", "400")),
        type="integer",
        minimum=31,
        description="For how many days people's tables (accepted, quarantine, features, profiles) are kept.",
    ),
    "backup": Param(
        os.environ.get("MINDCENSUS_BACKUP") or None,
        type=["null", "string"],
        pattern="^/.*$",
        description="The folder of the lake's back-up, as an absolute path. Empty: no drill.",
    ),
}


@dag(
    schedule=CronTriggerTimetable(SCHEDULE, timezone="UTC"),
    start_date=datetime(1970, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args=DEFAULTS,
    user_defined_macros={"night_date": night_date},
    doc_md=DOC,
    tags=["mindcensus"],
)
def housekeeping() -> None:
    lake, today = "--lake={{ params.lake }}", "--run-date={{ night_date(params, dag_run) }}"
    retain = StageOperator(
        task_id="retain", stage="retain", arguments=[lake, today, "--keep-days={{ params.keep_days }}"]
    )

    @task
    def drill(params: dict[str, Any]) -> None:
        """Whether the back-up would do, if the lake were lost today."""
        if not params["backup"]:
            raise AirflowSkipException("no back-up is named: a lake without one is lost with its disk")
        call_command("drill", [f"--backup={params['backup']}", f"--lake={params['lake']}"])

    retain >> drill()


housekeeping()
