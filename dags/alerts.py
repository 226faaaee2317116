"""What people are told when a task has failed for good or a night is late: what happened, and what to do.

An alert is one event in the log, and one line of JSON to the command that MINDCENSUS_ALERT_COMMAND names (a mailer, a
pager), where one is named. It holds no output of a stage: that may quote an answer.
"""

import json
import os
import shlex
import subprocess
from typing import Any

import structlog

COMMAND = "MINDCENSUS_ALERT_COMMAND"
SECONDS = 30  # for that command
RUNBOOK = "docs/operations.md, Alerts: a runbook"
REMEDIES = {
    "wait_for_extract": "ask the deliverer for the extract and its SHA256SUMS; then clear this task",
    "validate": "mend what the sentence names (extract, codebook or params), then start a new run of the date",
    "training.train": "yesterday's night stays in force; look at the log, then clear this task",
    "publish": "nothing of the night can be read yet; do what the sentence says, then clear this task",
    "retain": "nothing that a night needs was removed; look at the log, then clear this task",
    "drill": "the back-up cannot be relied on: look at what is missing, make a new one, then clear this task",
}
REMEDY = "readers see the night before; look at the task's log, mend what it names, then clear this task"
LATE = "see which task waits or runs (grid view), and why; readers see the night before until the run has ended"


def tell_failure(context: dict[str, Any]) -> None:
    """For a task that has failed and is not tried again."""
    task, run = context["ti"], context["dag_run"]
    what, remedy = str(context.get("exception")), REMEDIES.get(task.task_id, REMEDY)
    tell("task failed", dag=task.dag_id, run=run.run_id, task=task.task_id, what=what, do=remedy)


def tell_late(context: dict[str, Any]) -> None:
    """For a run that has not ended when its deadline came."""
    run, what = context.get("dag_run") or {}, "the run has not ended in time"
    tell("deadline missed", dag=run.get("dag_id"), run=run.get("dag_run_id"), what=what, do=LATE)


def tell(alert: str, **facts: Any) -> None:
    """Never raises: an alert that does not get through is itself an event in the log."""
    log = structlog.get_logger("airflow.task.alerts")
    log.error(alert, **facts, runbook=RUNBOOK)
    command = shlex.split(os.environ.get(COMMAND, ""))
    if command:
        line = json.dumps({"alert": alert, **facts, "runbook": RUNBOOK}) + "\n"
        try:
            subprocess.run(command, input=line, text=True, timeout=SECONDS, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            log.error("the alert did not get through", command=command[0], error=type(error).__name__)
