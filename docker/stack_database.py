"""The stack's PostgreSQL cluster: made once, as the image's entry point makes it."""

import os
import pwd
import shutil
import subprocess

from stack_services import Place, find_postgres, postgres_user

DATABASE = USER = "airflow"


def make_database(place: Place) -> None:
    """A cluster with a user and a database of that name, and passwords alone. Raises SystemExit where that fails."""
    if (place.postgres / "made").exists():
        return
    shutil.rmtree(place.postgres, ignore_errors=True)  # an earlier attempt was broken off
    place.postgres.mkdir(mode=0o700)
    password = place.folder / ".initdb"
    shutil.copyfile(place.secrets / "postgres_password", password)
    user = postgres_user()
    try:
        password.chmod(0o600)
        for path in (place.postgres, password) if user else ():
            os.chown(path, pwd.getpwnam(user or "").pw_uid, -1)
        made = ["-D", str(place.postgres), f"--username={USER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        _run([find_postgres("initdb"), *made, "--encoding=UTF8", "--locale=C.UTF-8"], user)
    finally:
        password.unlink()
    _run(
        [find_postgres("postgres"), "--single", "-D", str(place.postgres), "postgres"],
        user,
        f"CREATE DATABASE {DATABASE}",
    )
    (place.postgres / "made").touch()


def _run(command: list[str], user: str | None, said: str = "") -> None:
    done = subprocess.run(command, user=user, input=said, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        where = f"; user {user} has to reach the folder" if user else ""
        raise SystemExit(f"stack: {command[0]} failed: {done.stderr.strip().splitlines()[-1]}{where}")
