"""Long work is heard of: lines while a stage is at work, Spark's tasks in them, and the model's own steps."""

import json
import logging
import threading
import time

import pytest
import structlog
from structlog.testing import capture_logs

from jobs.job import configure_logs
from jobs.progress import count_tasks, show_spark, watch_progress
from model import progress


def test_a_stage_at_work_says_so_until_it_has_ended():
    with capture_logs() as lines:
        with watch_progress(structlog.get_logger(), every=0.01):
            wait_for(lambda: len(lines) >= 2)
        told = len(lines)
        time.sleep(0.05)
    assert len(lines) == told
    assert {line["event"] for line in lines} == {"stage at work"}
    assert all("tasks" not in line for line in lines)


def test_sparks_tasks_are_counted(spark, tmp_path):
    context = spark.sparkContext
    with show_spark(context):
        assert count_tasks() == {}
        gate = str(tmp_path)

        def work(number: int) -> int:
            from pathlib import Path
            from time import sleep

            while number and not (Path(gate) / "open").exists():
                sleep(0.01)
            return number

        job = threading.Thread(target=lambda: context.parallelize(range(3), 3).map(work).collect())
        job.start()
        wait_for(lambda: count_tasks() == {"tasks_done": 1, "tasks_running": 2, "tasks": 3})
        (tmp_path / "open").touch()
        job.join()
    assert count_tasks() == {}


def test_the_models_steps_come_as_json_at_a_decent_rate(own_logs, monkeypatch, capsys):
    configure_logs()
    structlog.contextvars.bind_contextvars(stage="train", run_date="2026-03-01", token=7)
    heard = progress.Progress("training, 4 latents", 100)
    for step in range(100):
        heard.tell(step, epoch=1)
    assert capsys.readouterr().err == "", "it was quick"
    monkeypatch.setattr(progress, "EVERY", 0.0)
    heard.tell(50, epoch=2)
    structlog.contextvars.clear_contextvars()
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    told.pop("timestamp")
    assert told == {
        **{"event": "training, 4 latents", "level": "info", "done": 50, "total": 100, "epoch": 2},
        **{"stage": "train", "run_date": "2026-03-01", "token": 7},
    }


@pytest.fixture(autouse=True)
def quiet_again():
    yield
    logging.getLogger("model.progress").handlers = []


def wait_for(come_true) -> None:
    deadline = time.monotonic() + 60
    while not come_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
