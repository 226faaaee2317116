"""What exit codes mean to Airflow, with the real spark-submit and the real command."""

import os

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from night_tasks import SparkStageOperator, StageOperator, failure_of, take_key

SECRET = "an answer of somebody"


def run_through_spark_submit(tmp_path, exit_code, arguments=("--lake=x",)):
    script = tmp_path / "stage.py"
    script.write_text(f"import sys\nprint({SECRET!r})\nprint(sys.argv[1:])\nsys.exit({exit_code})\n")
    operator = SparkStageOperator(task_id="score", stage="score", arguments=list(arguments))
    operator.application = str(script)
    operator.execute({})


def test_a_broken_contract_ends_a_spark_task(tmp_path):
    with pytest.raises(AirflowFailException, match="score ended with exit code 3"):
        run_through_spark_submit(tmp_path, 3)


def test_a_fault_may_be_tried_again_and_its_exception_holds_nothing_of_the_output(tmp_path):
    with pytest.raises(AirflowException, match="score ended with exit code 1") as caught:
        run_through_spark_submit(tmp_path, 1)
    assert not isinstance(caught.value, AirflowFailException)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_a_spark_task_that_ends_well(tmp_path):
    run_through_spark_submit(tmp_path, "0 if sys.argv[1:] == ['score', '--lake=x'] else 9", ["--lake=x", ""])


def test_the_command_called_wrongly_ends_the_task():
    operator = StageOperator(task_id="report", stage="report", arguments=["--lake=/nowhere", ""])
    with pytest.raises(AirflowFailException, match="report ended with exit code 2"):
        operator.execute({})


@pytest.mark.parametrize(
    ("exit_code", "final"), [(1, False), (2, True), (3, True), (4, True), (5, False), (137, False), (None, False)]
)
def test_exit_codes(exit_code, final):
    assert isinstance(failure_of("score", exit_code), AirflowFailException) is final


@pytest.mark.parametrize("named", [False, True])
def test_the_key_comes_from_airflows_secrets_and_not_by_the_command_line(tmp_path, monkeypatch, named):
    monkeypatch.delenv("MINDCENSUS_KEY_FILE", raising=False)
    monkeypatch.setenv("MINDCENSUS_KEY", "from the environment")
    monkeypatch.setenv("AIRFLOW_VAR_MINDCENSUS_PSEUDONYM_KEY", "from the backend")
    if named:
        monkeypatch.setenv("MINDCENSUS_KEY_FILE", "/a/key/file")
    take_key()
    assert os.environ["MINDCENSUS_KEY"] == ("from the environment" if named else "from the backend")
