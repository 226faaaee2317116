"""`python docker/stack.py start --folder F`: the services of docker/compose.yaml as plain processes on this machine.

    start --folder F [--port N] [--lake DIR] [--landing DIR]   runs in the foreground until SIGTERM or Ctrl-C
    status --folder F                                          the services' states; ends with 0 where all are healthy
    stop --folder F                                            ends the stack of F, also one whose start was killed

F keeps everything: the PostgreSQL cluster, secrets, logs; started again, the stack goes on with them. Where no lake or
landing folder is named, they are F/lake and F/landing. MINDCENSUS_... of the caller are handed to all services.

For programs that drive a stack:
    F/status.json    {"ready": bool, "services": {NAME: {"state", "pid", "restarts"}}}; NAMEs are those of the compose
                     file, workers are spark-worker-1 and spark-worker-2; ready: all are healthy
    F/pids/NAME      the service's process id, the leader of a session of its own; gone while there is none
    F/stack.json     {"address": the API server's, "user", "password", "pid": of this program, "database": port}
    F/logs/NAME.log  what the service says; F/airflow/logs holds the tasks' logs
Every process of the stack, tasks and drivers included, has MINDCENSUS_STACK=F in its environment. A service that dies
is started again after half a second, then twice as long each time. PostgreSQL is restarted by SIGINT to its pid.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from stack_database import make_database
from stack_services import HERE, Place, find_ports, make_secrets, read_services
from stack_supervisor import TICK, Supervisor, end_marked

PORTS = ("api", "postgres", "master", "worker-1", "worker-2")
USER = "admin"
STOP_SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=("start", "status", "stop"))
    parser.add_argument("--folder", type=Path, default=Path(".stack"), metavar="F", help="default: .stack")
    parser.add_argument("--port", type=int, metavar="N", help="of the API server; default: a free one")
    parser.add_argument("--lake", type=Path, metavar="DIR", help="default: F/lake")
    parser.add_argument("--landing", type=Path, metavar="DIR", help="where extracts are delivered; default: F/landing")
    parser.add_argument("--spark-address", default=HERE, metavar="ADDRESS", help="this machine's, for Spark's workers")
    told = "a network namespace, and its address, for a Spark worker: once for each"
    parser.add_argument("--worker-in", action="append", default=[], metavar="NAMESPACE=ADDRESS", help=told)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    match arguments.command:
        case "start":
            return start(choose_place(folder, arguments))
        case "status":
            return print_status(folder)
        case _:
            return stop(folder)


def start(place: Place) -> int:
    folder = place.folder
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # PostgreSQL's user goes through
    os.umask(0o077)
    with (folder / "lock").open("a+") as lock:
        if not hold(lock):
            raise SystemExit(f"stack: the stack of {folder} runs already")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        end_marked(folder)  # what a stack that was killed has left
        for path in (folder / "airflow", place.landing):
            path.mkdir(parents=True, exist_ok=True)
        make_secrets(place)
        make_database(place)
        return supervise(place, Supervisor(folder, read_services(place)))


def choose_place(folder: Path, arguments: argparse.Namespace) -> Place:
    """Ports are chosen anew at each start."""
    return Place(
        folder,
        (arguments.lake or folder / "lake").resolve(),
        (arguments.landing or folder / "landing").resolve(),
        find_ports(arguments.port, PORTS),
        arguments.spark_address,
        tuple(tuple(machine.split("=", 1)) for machine in arguments.worker_in),
    )


def supervise(place: Place, supervisor: Supervisor) -> int:
    def end(number: int, frame: FrameType | None) -> None:
        supervisor.ending = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    print(f"stack: starting in {place.folder}; logs: {place.folder}/logs", flush=True)
    told = False
    try:
        while not supervisor.ending:
            supervisor.step()
            if supervisor.ready and not told:
                tell_address(place)
                told = True
            time.sleep(TICK)
    finally:
        print("stack: ending", flush=True)
        supervisor.end()
        (place.folder / "stack.json").unlink(missing_ok=True)
    return 0


def tell_address(place: Place) -> None:
    password = json.loads((place.folder / "airflow" / "passwords.json").read_text())[USER]
    known = {"address": place.address, "user": USER, "password": password, "pid": os.getpid()}
    (place.folder / "stack.json").write_text(json.dumps(known | {"database": place.ports["postgres"]}))
    print(f"stack: ready: {place.address}  user {USER}  password {password}", flush=True)


def print_status(folder: Path) -> int:
    file = folder / "status.json"
    if not file.exists():
        raise SystemExit(f"stack: there is no stack in {folder}: make stack")
    status = json.loads(file.read_text())
    for name, service in status["services"].items():
        pid = "" if service["pid"] is None else f"pid {service['pid']}"
        print(f"{name:16} {service['state']:10} {pid:12} restarts {service['restarts']}")
    return 0 if status["ready"] else 1


def stop(folder: Path) -> int:
    """Asks the program that started the stack to end it; where that was killed, ends what it left."""
    if not (folder / "lock").exists():
        raise SystemExit(f"stack: there is no stack in {folder}")
    with (folder / "lock").open("r+") as lock:
        deadline = time.monotonic() + STOP_SECONDS
        while not hold(lock) and time.monotonic() < deadline:
            lock.seek(0)
            with suppress(ValueError, ProcessLookupError):
                os.kill(int(lock.read()), signal.SIGTERM)
            time.sleep(TICK)
        end_marked(folder)
    print("stack: stopped")
    return 0


def hold(lock: TextIO) -> bool:
    """Whether the stack's lock is now held here; the kernel lets go of it when its holder ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
