"""Starts services in order, restarts what dies, and ends all of it: what Docker does for the compose file."""

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stack_services import MARK, Service

TICK = 0.2  # seconds
ASK_EVERY = 1.0  # seconds from one health check to the next, until a service is healthy
ASK_LIMIT = 15.0  # seconds for one health check
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a restart, doubled each time
CALM = 10.0  # seconds after which a run counts as one that went well
GRACE = 10.0  # seconds to end in by oneself
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Asks the kernel to end this process when the one that started it is gone, however that ended."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Run:
    """A service's present: `state` is waiting, starting, healthy, unhealthy, completed, failed or stopped."""

    service: Service
    state: str = "waiting"
    process: "subprocess.Popen[bytes] | None" = None
    check: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    asked: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE
    restarts: int = 0


class Supervisor:
    """One stack's processes. Logs go to <folder>/logs, process ids to <folder>/pids, states to <folder>/status.json."""

    def __init__(self, folder: Path, services: Sequence[Service]) -> None:
        self.folder, self.ending = folder, False
        self.runs = {service.name: Run(service) for service in services}
        for name in ("logs", "pids"):
            (folder / name).mkdir(exist_ok=True)

    @property
    def ready(self) -> bool:
        return all(run.state in ("healthy", "completed") for run in self.runs.values())

    def step(self) -> None:
        """Looks after every service once. Raises SystemExit where one that is to end well did not."""
        for run in self.runs.values():
            if run.process is None:
                if time.monotonic() >= run.due and run.state != "completed" and self._may_start(run.service):
                    self._start(run)
            elif run.process.poll() is not None:
                self._note_end(run)
            else:
                self._ask(run)
        self._write_status()

    def end(self) -> None:
        """Ends the services, those that others need last, and whatever their processes have left."""
        for run in reversed(self.runs.values()):
            if run.process and run.process.poll() is None:
                # PostgreSQL's word for: break the connections off and write everything down.
                sign = signal.SIGINT if run.service.name == "postgres" else signal.SIGTERM
                _signal_group(run.process, sign)
                if run.service.name in ("postgres", "scheduler"):
                    with suppress(subprocess.TimeoutExpired):
                        run.process.wait(GRACE)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(r.process and r.process.poll() is None for r in self.runs.values()):
            time.sleep(TICK)
        end_marked(self.folder)
        for run in self.runs.values():
            if run.process:
                run.process.wait()
            run.state, run.process = "stopped", None
            (self.folder / "pids" / run.service.name).unlink(missing_ok=True)
        self._write_status()

    def _may_start(self, service: Service) -> bool:
        wanted = {
            "service_started": ("starting", "healthy", "unhealthy"),
            "service_healthy": ("healthy",),
            "service_completed_successfully": ("completed",),
        }
        if self.runs[service.name].restarts:
            return True  # as with compose, the order is that of the first start
        # A service of several copies is needed by none.
        return all(self.runs[name].state in wanted[condition] for name, condition in service.needs.items())

    def _start(self, run: Run) -> None:
        with (self.folder / "logs" / f"{run.service.name}.log").open("ab") as log:
            run.process = subprocess.Popen(
                run.service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=dict(run.service.environment),
                user=run.service.user,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        run.state, run.started, run.asked = "starting", time.monotonic(), 0.0
        _replace(self.folder / "pids" / run.service.name, str(run.process.pid))

    def _note_end(self, run: Run) -> None:
        assert run.process is not None
        # As a container's end does. Of a killed scheduler the workers would go on, and with the connection that they
        # have from it they would hold its lock in the database: no other scheduler could queue a task.
        with suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        code, run.process, run.check = run.process.returncode, None, None
        (self.folder / "pids" / run.service.name).unlink(missing_ok=True)
        if not run.service.restarts:
            if code:
                raise SystemExit(
                    f"stack: {run.service.name} ended with {code}: {self.folder}/logs/{run.service.name}.log"
                )
            run.state = "completed"
            return
        if time.monotonic() - run.started > CALM:
            run.pause = FIRST_PAUSE
        run.due, run.pause = time.monotonic() + run.pause, min(2 * run.pause, LONGEST_PAUSE)
        run.state, run.restarts = "failed", run.restarts + 1
        print(f"stack: {run.service.name} ended with {code} and is started again", flush=True)

    def _ask(self, run: Run) -> None:
        now = time.monotonic()
        if not run.service.health:
            run.state = "healthy" if run.service.restarts else run.state
        elif run.check is None:
            if now - run.asked >= (run.service.health_every if run.state == "healthy" else ASK_EVERY):
                null, environment = subprocess.DEVNULL, dict(run.service.environment)
                run.check = subprocess.Popen(
                    run.service.health,
                    env=environment,
                    cwd="/",
                    stdin=null,
                    stdout=null,
                    stderr=null,
                    preexec_fn=die_with_parent,
                )
                run.asked = now
        elif run.check.poll() is not None:
            healthy = run.check.returncode == 0
            run.state = "healthy" if healthy else "starting" if run.state == "starting" else "unhealthy"
            run.check = None
        elif now - run.asked > ASK_LIMIT:
            run.check.kill()

    def _write_status(self) -> None:
        services = {
            name: {"state": run.state, "pid": run.process.pid if run.process else None, "restarts": run.restarts}
            for name, run in self.runs.items()
        }
        text = json.dumps({"ready": self.ready, "services": services}, indent=1)
        file = self.folder / "status.json"
        if not file.exists() or file.read_text() != text:
            _replace(file, text)


def find_marked(folder: Path) -> list[int]:
    """Every living process that was started, by however many others, by the stack of this folder."""
    mark, found = f"{MARK}={folder}\0".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and mark in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def end_marked(folder: Path) -> None:
    """Kills all of them, until none comes after."""
    while left := find_marked(folder):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(TICK)


def _signal_group(process: "subprocess.Popen[bytes]", sign: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        # PostgreSQL's own children are the postmaster's to end.
        os.kill(process.pid, sign) if sign is signal.SIGINT else os.killpg(process.pid, sign)


def _replace(file: Path, text: str) -> None:
    scratch = file.with_name(f".{file.name}.tmp")
    scratch.write_text(text)
    scratch.replace(file)
