"""A stack's Airflow as its users see it: by its REST API, nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
TRIES, PAUSE = 60, 2.0  # seconds: services come and go while faults happen
FINAL = ("success", "failed")


@dataclass
class AirflowApi:
    """The API of the stack in a folder; a call that fails is made again, for the server may be starting."""

    stack: Path
    _token: str = field(default="", repr=False)

    def pause(self, dag: str, paused: bool) -> None:
        self.call("PATCH", f"dags/{dag}", {"is_paused": paused})

    def trigger(self, dag: str, params: dict[str, Any]) -> str:
        """Starts a run without a logical date; returns its id."""
        run: str = self.call("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": params})["dag_run_id"]
        return run

    def list_runs(self, dag: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.call("GET", f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return runs

    def end_others(self, dag: str, kept: str = "") -> None:
        """Gives up all other runs: those that an ended program left, and what the schedule began."""
        for run in self.list_runs(dag):
            if run["dag_run_id"] != kept and run["state"] not in FINAL:
                self.call("PATCH", f"dags/{dag}/dagRuns/{run['dag_run_id']}", {"state": "failed"})

    def read_run(self, dag: str, run: str) -> dict[str, Any]:
        return self.call("GET", f"dags/{dag}/dagRuns/{run}")

    def read_tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = self.call("GET", f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return tasks

    def call(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        """Raises OSError where the server does not answer in two minutes, or refuses what it is asked."""
        last = ""
        for left in reversed(range(TRIES)):
            try:
                return self._ask(method, f"api/v2/{path}", content, self._token or self.log_in())
            except urllib.error.HTTPError as error:
                # What the server refuses it will refuse again; 404: a DAG that has not been read yet.
                if error.code < 500 and error.code not in (401, 404):
                    raise OSError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from None
                self._token, last = "", str(error)
            except OSError as error:
                last = str(error)
            if left:
                time.sleep(PAUSE)
        raise OSError(f"{method} {path}: {last}")

    def log_in(self) -> str:
        known = json.loads((self.stack / "stack.json").read_text())
        made = self._ask("POST", "auth/token", {"username": known["user"], "password": known["password"]}, "")
        self._token = str(made["access_token"])
        return self._token

    def _ask(self, method: str, path: str, content: Any, token: str) -> dict[str, Any]:
        address = json.loads((self.stack / "stack.json").read_text())["address"]
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if content is None else json.dumps(content).encode()
        asked = urllib.request.Request(f"{address}/{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            told: dict[str, Any] = json.loads(answer.read() or "{}")
            return told


@contextmanager
def running_stack(folder: Path, options: Sequence[str] = (), **environment: str) -> Iterator[AirflowApi]:
    """The stack of docker/ in a folder, with what its services are told besides, until the end of the block.

    Raises SystemExit where it does not start.
    """
    command = [sys.executable, str(PROJECT / "docker" / "stack.py"), "start", "--folder", str(folder), *options]
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        while not (folder / "stack.json").exists():
            if process.poll() is not None:
                sys.exit(f"the stack did not start: {folder}/logs")
            time.sleep(1)
        yield AirflowApi(folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
