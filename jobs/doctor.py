"""`mindcensus doctor`: whether this machine has what a night needs, each finding one sentence with its remedy."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs.machine import GIB, choose_heap, measure_machine, memory_limit

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
PYTHON = (3, 11)
JAVA_RELEASES = (17, 21)
JAVA_MODULE = "jdk.incubator.vector"
TORCH = "2.13.0"
CHECKED_PACKAGES = ("pyspark", "pyarrow", "pandas", "numpy", "great-expectations", "petastorm", "duckdb")
MEMORY_GIB = 6
DISK_GIB = 2
COMMAND_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its name, whether a night can run with it, and what was found or is to be done."""

    name: str
    ok: bool
    sentence: str


def check_machine(lake: Path | None = None) -> list[Finding]:
    """All findings; `lake` is the lake's folder, which need not be there yet (None: the current folder)."""
    place = nearest_folder(lake or Path.cwd())
    findings = [check_python(), check_java(), check_torch()]
    findings += [check_package(name, wanted) for name, wanted in read_lock().items() if name in CHECKED_PACKAGES]
    findings += [check_spark_submit(), check_spark_size(), check_arithmetic()]
    return [*findings, check_memory(), check_disk(place), check_writing(place)]


def check_python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        return Finding("python", True, f"Python {found}")
    return Finding("python", False, f"Python {found} runs this, install Python 3.11 and run `make run` again")


def check_java(java: str | None = None) -> Finding:
    """Java 17 or 21 with the module that Spark starts with; `java` is the program, else JAVA_HOME's or the PATH's."""
    program = java or find_java()
    if program is None:
        return Finding("java", False, "no Java is found: install Java 17 or 21, or set JAVA_HOME")
    code, output = run_program([program, "-XshowSettings:properties", "-version"])
    release = next((line.split("=")[1].strip() for line in output if "java.specification.version =" in line), "")
    if code != 0 or release not in map(str, JAVA_RELEASES):
        found = f"{program} is Java {release}" if release and code == 0 else f"{program} does not run"
        return Finding("java", False, f"{found}: install Java 17 or 21, or set JAVA_HOME to it")
    _, modules = run_program([program, "--list-modules"])
    if not any(line.startswith(JAVA_MODULE) for line in modules):
        return Finding(
            "java", False, f"{program} lacks {JAVA_MODULE}: install a full Java {release}, not a cut-down one"
        )
    return Finding("java", True, f"Java {release} ({program})")


def find_java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else shutil.which("java")


def check_torch() -> Finding:
    # The build (CPU or CUDA) is the machine's choice, the release is not.
    return check_package("torch", TORCH, lambda found: found.split("+")[0])


def check_package(name: str, wanted: str, release: Callable[[str], str] = str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, False, f"{name} {wanted} is not installed: run `make setup`")
    if release(found) != wanted:
        return Finding(name, False, f"{name} {found} is installed, {wanted} is wanted: run `make clean setup`")
    return Finding(name, True, f"{name} {found}")


def read_lock(lock: Path = LOCK) -> dict[str, str]:
    """Package names and versions of the lock; empty where the project is installed without its folder."""
    lines = lock.read_text().splitlines() if lock.exists() else []
    pins = (line.split(";")[0].split("==") for line in lines if "==" in line)
    return {name.strip(): pinned.strip() for name, pinned in pins}


def check_spark_submit() -> Finding:
    program = shutil.which("spark-submit") or shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    if program is None:
        return Finding("spark-submit", False, "spark-submit is not found: put the environment's bin folder on the PATH")
    bin_folder = Path(sys.executable).parent
    # Without this folder, spark-submit asks a python3 that has no pyspark where Spark is.
    code, output = run_program(
        [program, "--version"], {"PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    )
    if code != 0:
        last = output[-1] if output else "it prints nothing"
        return Finding("spark-submit", False, f"{program} does not run ({last}): check Java, SPARK_HOME and the PATH")
    return Finding("spark-submit", True, f"{program} runs")


def check_spark_size() -> Finding:
    return Finding("spark", True, f"a session takes {measure_machine().cores} cores and a heap of {choose_heap()}")


def check_arithmetic() -> Finding:
    try:
        from model.arithmetic import choose_arithmetic
        from model.errors import ModelError
    except ImportError:
        return Finding("arithmetic", False, "torch cannot be loaded: run `make clean setup`")
    try:
        return Finding("arithmetic", True, f"profiles are reckoned in {choose_arithmetic()}")
    except ModelError as error:
        return Finding("arithmetic", False, str(error))


def check_memory() -> Finding:
    size = memory_limit() / GIB
    if size < MEMORY_GIB:
        return Finding("memory", False, f"{size:.1f} GiB of memory, a night takes {MEMORY_GIB}: use a larger machine")
    return Finding("memory", True, f"{size:.1f} GiB")


def check_disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free / GIB
    if free < DISK_GIB:
        return Finding("disk", False, f"{free:.1f} GiB free at {place}, a night takes {DISK_GIB}: free some space")
    return Finding("disk", True, f"{free:.1f} GiB free at {place}")


def check_writing(place: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"1")
    except OSError as error:
        remedy = f"{place} cannot be written ({error.strerror}): give this user the folder, or name another lake"
        return Finding("writing", False, remedy)
    return Finding("writing", True, f"{place} can be written")


def nearest_folder(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def run_program(command: list[str], environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """A program's exit code and its lines, both streams together; -1 where it does not start or end."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            timeout=COMMAND_SECONDS,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, [type(error).__name__]
    return done.returncode, [line.strip() for line in done.stdout.splitlines() if line.strip()]
