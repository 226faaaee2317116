"""The services of docker/compose.yaml as plain processes: one file of settings for containers and for `make stack`."""

import os
import re
import secrets
import shlex
import socket
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
COMPOSE = PROJECT / "docker" / "compose.yaml"
POSTGRES_PROGRAMS = "/usr/lib/postgresql/*/bin"  # where Debian has them
HERE = "127.0.0.1"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")
# Of the caller's own environment: nothing of another Airflow, Spark or Python may leak in.
FOREIGN = ("AIRFLOW", "SPARK", "PYSPARK", "PYTHON", "POSTGRES", "PG", "MINDCENSUS_KEY")
# Without the secret nobody has a part in the cluster, and what crosses its network is encrypted.
SPARK_DEFAULTS = """\
spark.authenticate true
spark.authenticate.secret {secret}
spark.network.crypto.enabled true
spark.master.rest.enabled false
"""
MARK = "MINDCENSUS_STACK"  # in the environment of every process of a stack: the stack's folder


@dataclass(frozen=True)
class Service:
    """One process: how it is started, what it waits for, and how its health is asked.

    `needs` maps services to compose's condition (service_started, _healthy, _completed_successfully); times in seconds.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: str | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()
    health_every: float = 15.0
    restarts: bool = True


@dataclass(frozen=True)
class Place:
    """Where one stack lives: its folder, the lake and the extracts, and its ports."""

    folder: Path
    lake: Path
    landing: Path
    ports: Mapping[str, int]
    spark: str = HERE  # the address at which Spark's workers find master and drivers
    machines: tuple[tuple[str, str], ...] = ()  # of the workers, where they are not this one: namespace and address

    @property
    def address(self) -> str:
        return f"http://{HERE}:{self.ports['api']}"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"


def read_services(place: Place) -> list[Service]:
    """Every process of the compose file, replicas one by one, in the file's order."""
    services = []
    for name, found in read_compose(place)["services"].items():
        copies = found.get("deploy", {}).get("replicas", 1)
        if copies == 1:
            services.append(read_service(name, found, place))
        for copy in range(1, copies + 1) if copies > 1 else ():
            own = read_compose(place, STACK_WORKER_PORT=str(place.ports[f"worker-{copy}"]))
            service = read_service(f"{name}-{copy}", own["services"][name], place)
            services.append(move(service, *place.machines[copy - 1]) if place.machines else service)
    return services


def read_compose(place: Place, **more: str) -> dict[str, Any]:
    filled: dict[str, Any] = yaml.safe_load(
        fill_in(COMPOSE.read_text(), describe_place(place) | find_settings() | more)
    )
    return filled


def read_service(name: str, found: Mapping[str, Any], place: Place) -> Service:
    # A variable that is set to nothing is YAML's null.
    told = {key: "" if value is None else str(value) for key, value in found.get("environment", {}).items()}
    environment = base_environment(place) | told
    check = found.get("healthcheck", {})
    command, user = tuple(shlex.split(found.get("command", ""))), None
    if name == "postgres":
        # What the image's entry point does, besides making the cluster.
        command = (find_postgres("postgres"), "-D", str(place.postgres), "-p", str(place.ports["postgres"]))
        command += ("-c", f"listen_addresses={HERE}", "-c", "unix_socket_directories=")
        user = postgres_user()
    return Service(
        name,
        command,
        environment,
        user,
        {needed: how["condition"] for needed, how in found.get("depends_on", {}).items()},
        tuple(check.get("test", ["CMD"])[1:]),
        float(check.get("interval", "15s").removesuffix("s")),
        restarts=found.get("restart") != "no",
    )


def move(service: Service, namespace: str, address: str) -> Service:
    """The Spark worker in a network namespace, at its address there."""
    enter = ("nsenter", f"--net=/run/netns/{namespace}")
    command = (*enter, *service.command[:-1], "--host", address, service.command[-1])
    environment = {**service.environment, "SPARK_LOCAL_IP": address}
    health = tuple(word.replace("localhost", address) for word in service.health)
    return replace(service, command=command, environment=environment, health=(*enter, *health))


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """compose's own way with ${NAME:-default}."""
    return VARIABLE.sub(lambda found: values.get(found["name"]) or found["default"] or "", text)


def describe_place(place: Place) -> dict[str, str]:
    """The variables by which the compose file's addresses and folders become those of this machine."""
    return {
        "STACK_PROJECT": str(PROJECT),
        "STACK_SECRETS": str(place.secrets),
        "STACK_USERS": str(place.folder / "airflow"),
        "STACK_LAKE": str(place.lake),
        "STACK_LANDING": str(place.landing),
        "STACK_WORK": str(place.folder / "spark"),
        "STACK_BIND": HERE,
        "STACK_API_HOST": HERE,
        "STACK_API_PORT": str(place.ports["api"]),
        "STACK_MASTER_HOST": place.spark,
        "STACK_MASTER_PORT": str(place.ports["master"]),
        "STACK_POSTGRES_HOST": HERE,
        "STACK_POSTGRES_PORT": str(place.ports["postgres"]),
    }


def find_settings() -> dict[str, str]:
    """compose's other variables, from the caller; both workers share this machine's cores."""
    return {"WORKER_CORES": str(max(1, len(os.sched_getaffinity(0)) // 2)), "WORKER_MEMORY": "2g", **os.environ}


def base_environment(place: Place) -> dict[str, str]:
    """What the images set, for this machine. MINDCENSUS_... of the caller stay, so that a trial can shorten waits."""
    programs, package = Path(sys.executable).parent, Path(sys.prefix, "lib/python3.11/site-packages/pyspark")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = os.pathsep.join([str(programs), str(Path(find_postgres("pg_isready")).parent), os.environ["PATH"]])
    return kept | {
        "PATH": path,
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_HOME": str(package),
        "SPARK_LOCAL_IP": place.spark,
        "AIRFLOW_HOME": str(place.folder / "airflow"),
        MARK: str(place.folder),
    }


def find_postgres(program: str) -> str:
    """A program of the newest PostgreSQL that Debian has put here. Raises SystemExit where there is none."""
    folders = sorted(Path("/").glob(POSTGRES_PROGRAMS.lstrip("/")), key=lambda folder: int(folder.parent.name))
    if not folders:
        raise SystemExit("stack: PostgreSQL is missing: install it (Debian: apt-get install postgresql)")
    return str(folders[-1] / program)


def postgres_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


def find_ports(wanted: int | None, names: tuple[str, ...]) -> dict[str, int]:
    """Free ports, all different; the first one as it is wanted."""
    sockets = [socket.socket() for _ in names]
    try:
        for index, one in enumerate(sockets):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((HERE, (wanted or 0) if index == 0 else 0))
            except OSError:
                raise SystemExit(f"stack: port {wanted} is in use: name another by --port") from None
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    finally:
        for one in sockets:
            one.close()


def make_secrets(place: Place) -> None:
    """The files that the compose file's `secrets` names, made once; readable by their owner alone."""
    place.secrets.mkdir(mode=0o700, exist_ok=True)
    password = _keep_secret(place.secrets / "postgres_password", secrets.token_urlsafe(24))
    _keep_secret(place.secrets / "fernet_key", urlsafe_b64encode(secrets.token_bytes(32)).decode())
    for name in ("api_secret_key", "jwt_secret"):
        _keep_secret(place.secrets / name, secrets.token_urlsafe(48))
    # A lake that has made itself a key goes on with it.
    own = place.lake / "restricted" / "keys" / "pseudonym.key"
    _keep_secret(place.secrets / "pseudonym_key", own.read_text() if own.exists() else secrets.token_urlsafe(48))
    _keep_secret(place.secrets / "spark-defaults.conf", SPARK_DEFAULTS.format(secret=secrets.token_hex(32)))
    address = f"postgresql+psycopg2://airflow:{password}@{HERE}:{place.ports['postgres']}/airflow"
    (place.secrets / "database_url").unlink(missing_ok=True)  # the port may be another one
    _keep_secret(place.secrets / "database_url", address)


def _keep_secret(file: Path, value: str) -> str:
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(value)
    return file.read_text()
