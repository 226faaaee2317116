"""What people are told, through the command that they name."""

import json
import sys
from types import SimpleNamespace

import pytest
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk.exceptions import TaskDeferred

from alerts import tell_failure, tell_late
from deliveries import DeliverySensor
from night_tasks import StageLog, failure_of, read_line

RUN = {"dag_id": "population_nightly", "dag_run_id": "scheduled__2026-01-31"}


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Runs an alert, and returns what the command was handed."""
    file = tmp_path / "told"
    program = f"import sys; open({str(file)!r}, 'a').write(sys.stdin.read())"
    monkeypatch.setenv("MINDCENSUS_ALERT_COMMAND", f'{sys.executable} -c "{program}"')
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("task", "remedy"),
    [
        ("validate", "start a new run of the date"),
        ("wait_for_extract", "ask the deliverer"),
        ("score", "clear this task"),
    ],
)
def test_a_failed_task_is_told_with_what_to_do(told, task, remedy):
    tell_failure(
        {
            "ti": SimpleNamespace(dag_id="population_nightly", task_id=task),
            "dag_run": SimpleNamespace(run_id="scheduled__2026-01-31"),
            "exception": failure_of(task, 3),
        }
    )
    [alert] = told()
    assert (alert["alert"], alert["task"], alert["run"]) == ("task failed", task, "scheduled__2026-01-31")
    assert remedy in alert["do"] and "exit code 3" in alert["what"] and "runbook" in alert["runbook"]


def test_a_late_night_is_told(told):
    tell_late({"dag_run": RUN})
    [alert] = told()
    assert (alert["alert"], alert["dag"], alert["run"]) == ("deadline missed", RUN["dag_id"], RUN["dag_run_id"])


@pytest.mark.parametrize("command", ["/no/such/program", "false", ""])
def test_an_alert_that_does_not_get_through_fails_nothing(monkeypatch, command):
    monkeypatch.setenv("MINDCENSUS_ALERT_COMMAND", command)
    tell_late({})


def test_a_stages_line_becomes_an_event_with_its_fields():
    line = {"event": "stage done", "level": "info", "stage": "score", "run_date": "2026-01-31", "profiles": 20}
    assert read_line(json.dumps(line)) == line
    for plain in ("{not json", "[1]", '{"no": "event"}', "a line"):
        assert read_line(plain) == {"event": plain}
    log = StageLog()
    log.info("%s", json.dumps(line))
    log.info("a line with 100 % of nothing")


def test_a_delivery_is_waited_for_without_a_slot(tmp_path):
    marker = tmp_path / "a [b]" / "SHA256SUMS"
    sensor = DeliverySensor(task_id="wait", marker=str(marker), patience=None)
    with pytest.raises(TaskDeferred) as waiting:
        sensor.execute({})
    assert isinstance(waiting.value.trigger, FileTrigger)
    marker.parent.mkdir()
    marker.touch()
    sensor.execute({})
    DeliverySensor(task_id="none", marker="", patience=None).execute({})
