"""How a night's tasks call the `mindcensus` command, what its exit codes mean to Airflow, and what the log tells."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

COMMAND = "mindcensus"
SUBMIT_SCRIPT = str(Path(__file__).resolve().parent.parent / "jobs" / "submit.py")
LEVELS = ("debug", "info", "warning", "error", "critical")
STAMPS = ("timestamp", "level")  # of a stage's line: Airflow puts its own on every event

# Tried again, these would end in the same way.
FINAL_EXIT_CODES = {
    2: "the command was called wrongly: look at the run's params",
    3: "the contract is broken: the extract or the codebook has to be mended",
    4: "too much of the extract would be quarantined: ask its deliverer",
    6: "nobody has signed the release off: look at it, run mindcensus sign-off, and clear this task",
    7: "the public tables give protected figures away: look at this task's log",
}
KEY_VARIABLE = "mindcensus_pseudonym_key"  # Airflow's, wherever its secrets backend keeps it
PASSING_EXIT_CODES = {5: "another run holds the lake"}


def failure_of(stage: str, exit_code: int | None) -> AirflowException:
    """The exception of a stage that ended badly: final for a broken contract, open to a retry for the machine's faults.

    It never quotes the command's output: an executor's stack trace may hold a respondent's value.
    """
    if exit_code in FINAL_EXIT_CODES:
        return AirflowFailException(f"{stage} ended with exit code {exit_code}: {FINAL_EXIT_CODES[exit_code]}")
    reason = PASSING_EXIT_CODES.get(exit_code or 0, "a fault of the machine; this task's log says more")
    return AirflowException(f"{stage} ended with exit code {exit_code}: {reason}")


def supervised() -> dict[str, str]:
    """What a stage is told about this task's process: it ends when that is gone, however it went."""
    return {"MINDCENSUS_SUPERVISOR": str(os.getpid())}


def take_key() -> None:
    """Gives the key of Airflow's variable, where there is one, to the commands of this task's process.

    By their environment: what spark-submit is called with, any list of processes shows.
    """
    if "MINDCENSUS_KEY_FILE" not in os.environ and (key := Variable.get(KEY_VARIABLE, default=None)):
        os.environ["MINDCENSUS_KEY"] = key


class StageLog:
    """A hook's log in which a line of JSON, as stages write them, becomes an event with fields of its own.

    Airflow adds the run and the task to each.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("airflow.task.stage")

    def info(self, event: str, *arguments: Any, **fields: Any) -> None:
        line = event % arguments if arguments else event
        told = read_line(line)
        level = str(told.get("level", "info"))
        told = {name: value for name, value in told.items() if name not in STAMPS}
        getattr(self._log, level if level in LEVELS else "info")(told.pop("event"), **told, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def read_line(line: str) -> dict[str, Any]:
    """The fields of a line of a stage's log; any other line is an event without fields."""
    if line.startswith("{"):
        try:
            told = json.loads(line)
        except ValueError:
            return {"event": line}
        if isinstance(told, dict) and isinstance(told.get("event"), str):
            return told
    return {"event": line}


def call_command(stage: str, arguments: Sequence[str], hook: SubprocessHook | None = None) -> str:
    """Runs one stage of the command and returns its last line; empty arguments are left out. Raises `failure_of`."""
    hook = hook or SubprocessHook()
    hook._log = StageLog()
    result = hook.run_command([COMMAND, stage, *filter(None, arguments)], env=os.environ | supervised())
    if result.exit_code:
        raise failure_of(stage, result.exit_code)
    return result.output


class StageOperator(BaseOperator):
    """One stage as a subprocess of the `mindcensus` command."""

    template_fields = ("arguments",)
    ui_color = "#e8f0ea"

    def __init__(self, *, stage: str, arguments: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage, self.arguments = stage, list(arguments)
        self._subprocess = SubprocessHook()

    def execute(self, context: "Context") -> None:
        # Returns nothing, so that no line of output becomes an XCom.
        call_command(self.stage, self.arguments, self._subprocess)

    def on_kill(self) -> None:
        self._subprocess.send_sigterm()


class SparkStageOperator(SparkSubmitOperator):
    """One stage through spark-submit in client mode; the connection decides between this machine and a cluster."""

    ui_color = "#f3e9dc"

    def __init__(self, *, stage: str, arguments: Sequence[str], **kwargs: Any) -> None:
        super().__init__(
            application=SUBMIT_SCRIPT,
            application_args=[stage, *arguments],
            name=f"mindcensus {stage}",
            deploy_mode="client",
            # From the start, as jobs/spark.py sets it once there is a session.
            conf={"spark.log.level": "FATAL"},
            **kwargs,
        )
        self.stage = stage

    def execute(self, context: "Context") -> None:
        # Of the task's own machine: who only reads the DAG has neither.
        from jobs.machine import choose_heap

        self._driver_memory = choose_heap()
        self.application_args = list(filter(None, self.application_args or ()))
        self.env_vars = supervised()
        if self.stage == "validate":  # no other stage sees an id
            take_key()
        self._hook = self._get_hook()
        self._hook._log = StageLog()
        try:
            super().execute(context)
            return
        except AirflowException:
            # The driver runs here, so spark-submit's exit code is the stage's; None where it did not start.
            process = self._hook._submit_sp if self._hook else None
            if process is None:
                raise
        # Outside the handler, so that the hook's exception with the driver's last output is not chained to it.
        raise failure_of(self.stage, process.returncode)
