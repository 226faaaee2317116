"""`python -m benchmarks.cluster`: nights on a Spark cluster whose master and workers have a network namespace each.

nhanes    the same night here and there: equal row for row, all of R's figures, and no key where others could see it
killed    a worker's daemon and executor are killed while it scores: the night completes, and equals the local one
training  spread over both workers, beside the same training in one process
The last line is JSON.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.endings import find_left, read_manifest
from benchmarks.namespaces import NamespaceError
from benchmarks.nhanes_figures import SHIPPED, count_figures, write_codebook
from benchmarks.spark_cluster import WORKERS, Cluster, read_command, start_cluster, wait_until

DEMO = "demo_population"
FIRST, NIGHT, NHANES_NIGHT = "2026-01-01", "2026-01-02", "2020-03-01"
# One night that trains a model; one of two work items, the smallest number; one of three row groups for two ranks.
FIRST_PEOPLE, KILLED_PEOPLE, TRAINING_PEOPLE = 20_000, 600_000, 270_000
HALFWAY = 0.4  # of the first work item's file: it is written a row group at a time
SECONDS = 3_600.0
Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all of them")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where extracts and lakes are made")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="where NHANES and R's figures are")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found: Figures = {}
    try:
        for part in arguments.parts or PARTS:
            with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=f"cluster-{part}-") as folder:
                found[part] = PARTS[part](Path(folder).resolve(), arguments.shared)
            print(part, json.dumps(found[part]), file=sys.stderr, flush=True)
    except NamespaceError as error:
        sys.exit(f"cluster: {error}")
    print(json.dumps(found))
    return 0


def compare_nhanes(folder: Path, shared: Path) -> Figures:
    """The night of NHANES 2017-2018 on this machine and on the cluster."""
    key = make_key(folder)
    local, lake = folder / "local", folder / "lake"
    book, extract = write_codebook(folder / "every_figure.yaml"), shared.resolve() / "data" / SHIPPED
    named = ["--run-date", NHANES_NIGHT, "--codebook", str(book), "--extract", str(extract)]
    run_command("run", "--lake", str(local), *named, MINDCENSUS_KEY_FILE=str(key))
    events = folder / "events"
    events.mkdir()
    more = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{events}"}
    with start_cluster(folder / "cluster", lake, more) as cluster:
        hidden = [key.read_text().strip(), read_secret(cluster)]
        with watching_commands(hidden) as seen:
            run_command("run", "--lake", str(lake), *named, MINDCENSUS_KEY_FILE=str(key), **cluster.environment())
    logs = [file for place in (events, folder / "cluster") for file in place.rglob("*") if file.is_file()]
    logs = [file for file in logs if file.name != "spark-defaults.conf"]
    seen += [str(file) for file in logs for word in hidden if word.encode() in file.read_bytes()]
    return {
        **compare_lakes(local, lake, NHANES_NIGHT),
        "figures_of_r": count_figures(lake, shared / "reference" / f"{SHIPPED}_reference.csv"),
        "event_logs": len([file for file in logs if events in file.parents]),
        "keys_seen": len(seen),
        "left": len(find_left(lake)),
    }


def kill_while_scoring(folder: Path, _: Path) -> Figures:
    """A night with a model given, of two work items; who makes the larger one is killed over it."""
    key = make_key(folder)
    first, local, lake = (folder / name for name in ("first", "local", "lake"))
    for people, day in ((FIRST_PEOPLE, FIRST), (KILLED_PEOPLE, NIGHT)):
        run_command("demo", "--people", str(people), "--run-date", day, "--out", str(folder / day))
    night = [["--run-date", day, "--codebook", DEMO, "--extract", str(folder / day)] for day in (FIRST, NIGHT)]
    run_command("run", "--lake", str(first), *night[0], MINDCENSUS_KEY_FILE=str(key))
    shutil.copytree(first, local)
    shutil.copytree(first, lake)
    run_command("run", "--lake", str(local), *night[1], MINDCENSUS_KEY_FILE=str(key))
    with start_cluster(folder / "cluster", lake) as cluster:
        command = ["run", "--lake", str(lake), *night[1]]
        process = start_command(*command, MINDCENSUS_KEY_FILE=str(key), **cluster.environment())
        try:
            landed = kill_scorer(cluster, process, int(HALFWAY * read_first_size(local)))
            if code := process.wait(SECONDS):
                sys.exit(f"the night whose worker was killed ended with {code}")
        finally:
            process.kill()
        running = cluster.network.pids(landed["worker"])
    return {
        **compare_lakes(local, lake, NIGHT),
        **landed,
        "share_written": round(landed["bytes_written"] / read_first_size(lake), 3),
        "left_processes": len(running),
        "left": len(find_left(lake)),
    }


def read_first_size(lake: Path) -> int:
    """Bytes of what the first work item makes."""
    return int(read_manifest(lake, NIGHT)["stages"]["score"]["tables"]["profiles"][0]["size"])


def kill_scorer(cluster: Cluster, process: "subprocess.Popen[bytes]", least: int) -> Figures:
    """Kills the worker, and its executor, whose Python process has written `least` bytes of the first work item."""
    found: list[tuple[str, Path]] = []

    def look() -> bool:
        if process.poll() is not None:
            sys.exit(f"the night ended with {process.returncode} before anybody was seen to score")
        found[:] = [(name, file) for name in WORKERS for file in list_open(cluster, name) if is_written(file, least)]
        return bool(found)

    wait_until(look, "an executor scores", SECONDS)
    worker, file = found[0]
    size = file.stat().st_size
    killed = cluster.kill(worker, "executor", "worker")
    scored = list((cluster.lake / "restricted" / "staging").glob("*/score.json"))
    # Its Python processes are nobody's children now: they have to end by themselves.
    wait_until(lambda: not cluster.network.pids(worker), "the dead worker's Python processes end", 60.0)
    return {"worker": worker, "killed": len(killed), "landed": not scored and len(killed) == 2, "bytes_written": size}


def is_written(file: Path, least: int) -> bool:
    with suppress(FileNotFoundError):  # it was done in this moment
        return file.stat().st_size >= least
    return False


def list_open(cluster: Cluster, name: str) -> Iterator[Path]:
    """The first work item's file, where a Python process of that machine writes it."""
    for pid in cluster.pids(name, "python"):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                file = link.readlink()
                if "/scratch/score/" in str(file) and file.name.startswith("part-000000-") and file.exists():
                    yield file


def compare_training(folder: Path, _: Path) -> Figures:
    """The first model of a series, by one process and by both workers, judged on the same held-out people."""
    key = make_key(folder)
    local, lake = folder / "local", folder / "lake"
    named = ["--run-date", FIRST, "--codebook", DEMO]
    run_command("demo", "--people", str(TRAINING_PEOPLE), "--run-date", FIRST, "--out", str(folder / "extract"))
    for stage in ("validate", "preprocess"):
        extract = ["--extract", str(folder / "extract")]
        run_command(stage, "--lake", str(local), *named, *extract, MINDCENSUS_KEY_FILE=str(key))
    shutil.copytree(local, lake)
    run_command("train", "--lake", str(local), *named, MINDCENSUS_KEY_FILE=str(key))
    with start_cluster(folder / "cluster", lake) as cluster:
        run_command("train", "--lake", str(lake), *named, MINDCENSUS_KEY_FILE=str(key), **cluster.environment())
    one, many = (read_training(each) for each in (local, lake))
    return {
        "one_process": one,
        "cluster": many,
        "nats_per_answer_more": round(many["nats_per_answer"] - one["nats_per_answer"], 6),
    }


def read_training(lake: Path) -> Figures:
    """How many ranks trained, and the cost of a held-out person's hidden answer, in nats."""
    (record,) = (json.loads(file.read_text()) for file in (lake / "restricted" / "staging").glob("*/train.json"))
    report = json.loads((lake / record["details"]["folder"] / "report.json").read_text())
    return {"ranks": report["settings"]["ranks"], **record["details"]["validation"], "epochs": report["best_epoch"]}


PARTS: dict[str, Callable[[Path, Path], Figures]] = {
    "nhanes": compare_nhanes,
    "killed": kill_while_scoring,
    "training": compare_training,
}


def make_key(folder: Path) -> Path:
    """One key for both lakes, so that everybody has one pseudonym."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    return key


def start_command(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.Popen(command, env={**os.environ, **environment})


def run_command(*arguments: str, **environment: str) -> None:
    if code := start_command(*arguments, **environment).wait(SECONDS):
        sys.exit(f"mindcensus {' '.join(arguments)} ended with {code}")


def compare_lakes(local: Path, lake: Path, run_date: str) -> Figures:
    """Rows of the date's tables, and how many of them the other lake does not have."""
    here, there = read_manifest(local, run_date)["stages"], read_manifest(lake, run_date)["stages"]
    rows, differing = 0, 0
    for stage, record in here.items():
        for table, files in record["tables"].items():
            ours, theirs = (
                [str(root / each["path"]) for each in found]
                for root, found in ((local, files), (lake, there[stage]["tables"][table]))
            )
            rows += sum(each["rows"] for each in files)
            differing += count_missing(ours, theirs) + count_missing(theirs, ours)
    return {"rows": rows, "differing_rows": differing, "equal": rows > 0 and differing == 0}


def count_missing(ours: list[str], theirs: list[str]) -> int:
    query = "SELECT count(*) FROM (FROM read_parquet(?) EXCEPT ALL FROM read_parquet(?))"
    with duckdb.connect() as connection:
        found = connection.execute(query, [ours, theirs]).fetchone()
    assert found
    return int(found[0])


def read_secret(cluster: Cluster) -> str:
    lines = (cluster.settings / "spark-defaults.conf").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)["spark.authenticate.secret"]


@contextmanager
def watching_commands(hidden: list[str]) -> Iterator[list[str]]:
    """Looks through all processes' command lines while the block runs; the list has those that held a hidden word."""
    seen: list[str] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
            commands = [read_command(pid) for pid in pids]
            seen.extend(command.split(" ")[0] for command in commands if any(word in command for word in hidden))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
