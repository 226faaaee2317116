"""`python -m benchmarks.scoring`: the population scored through Spark, without Spark, and in the documented ways.

Each way reads the same feature files and writes the same columns to Parquet; all are warmed up, then take turns.
Without Spark is the limit of what this machine can do: a process a core, each with its share of the very same work
items. The two take turns at all people; the documented ways, which are slower, at half of them, beside ours.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.environment import PeerError, prepare_environment
from benchmarks.night import make_lake
from benchmarks.plain_scoring import PlainScorer
from benchmarks.population import ROWS_PER_FILE, Population, make_population
from benchmarks.processes import list_session, read_cpu
from benchmarks.spark_ways import BATCH, map_in_arrow, pandas_udf, predict_batch_udf, split_columns
from jobs.lake import Lake
from jobs.machine import measure_machine
from jobs.score import ROWS_PER_TASK
from jobs.spark import LARGE_PAGES, spark_session
from jobs.work_items import WorkItem, deal_work, load_scorer, run_items, score_item
from model.arithmetic import choose_arithmetic
from model.registry import load_model
from model.spec import MISSING

ROOT = Path(__file__).resolve().parent.parent
OURS, LIMIT = "Spark deals out work items", "no Spark, a process a core"
PEERS = {
    "map_in_arrow": "mapInArrow, DataFrame.write",
    "pandas_udf": "pandas_udf, DataFrame.write",
    "predict_batch_udf": "predict_batch_udf, DataFrame.write",
}
MLFLOW = "MLflow's spark_udf, DataFrame.write"
PLAIN = "float32, plain PyTorch"
PEERS_SHARE = 2  # one part in so many of the people is scored in the documented ways


@dataclass(frozen=True)
class Way:
    """`score` writes a population's profiles into a new folder; `numbers` are what it reckons in."""

    name: str
    numbers: str
    score: Callable[[Population, Path], object]


def main() -> int:
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        make_lake(Path(name))
        print(
            json.dumps(measure_scoring(Path(name) / "first", Path(name), arguments.people, arguments.rounds), indent=1)
        )
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where features and profiles are made")
    return parser.parse_args()


def measure_scoring(lake: Path, folder: Path, people: int, rounds: int) -> dict[str, Any]:
    """Medians of every way: rows a second, processor seconds per million; and what its first run costs more."""
    os.environ["PYTHONPATH"] = str(ROOT)  # Spark's workers know the project, not its benchmarks
    os.environ["GLIBC_TUNABLES"] = LARGE_PAGES  # the limit's processes are to have what Spark's have
    cores, arithmetic = measure_machine().cores, choose_arithmetic()
    population = make_population(lake, folder / "features", people, ROWS_PER_FILE)
    part = make_population(lake, folder / "part", people // PEERS_SHARE, people // PEERS_SHARE // cores)
    few = make_population(lake, folder / "few", 2_000 * cores, 2_000)
    schema = population.schema.serialize().to_pybytes()
    scratch = folder / "profiles"
    numbers = str(arithmetic)
    score_ours = partial(score_item, model=str(population.model), schema=schema, arithmetic=arithmetic)
    start = time.monotonic()
    # The pool's processes start before there is a JVM or a thread to be copied.
    with (
        multiprocessing.get_context("spawn").Pool(cores, load_scorer, (str(population.model), arithmetic)) as pool,
        spark_session(Lake(lake), "benchmark") as spark,
    ):
        session_seconds = time.monotonic() - start

        def deal(people: Population, target: Path) -> list[WorkItem]:
            target.mkdir()
            return deal_work(people.features, target, min(ROWS_PER_TASK, -(-people.rows // cores)))

        limit = Way(LIMIT, numbers, lambda people, target: pool.map(score_ours, deal(people, target), chunksize=1))
        ours = Way(
            OURS, numbers, lambda people, target: run_items(spark.sparkContext, deal(people, target), score_ours)
        )
        beside_limit = take_turns([limit, ours], few, population, scratch, rounds)
        ways = [ours]
        for name, way in {
            "map_in_arrow": map_in_arrow,
            "pandas_udf": pandas_udf,
            "predict_batch_udf": predict_batch_udf,
        }.items():
            ways.append(Way(PEERS[name], PLAIN, partial(way, spark, None)))
            ways.append(Way(PEERS[name], numbers, partial(way, spark, arithmetic)))
        with start_mlflow(population, folder) as score_with_mlflow:
            ways.append(Way(MLFLOW, PLAIN, score_with_mlflow))
            beside_peers = take_turns(ways, few, part, scratch, rounds)
    return {
        "people": people,
        "rounds": rounds,
        "cores": cores,
        "share_of_limit": round(beside_limit[1]["rows_a_second"] / beside_limit[0]["rows_a_second"], 3),
        **compare(beside_peers),
        # Of a night: Spark's start, and what the first task of a worker costs more than a later one.
        "start_up_seconds": {
            "session": round(session_seconds, 2),
            "first_task": beside_limit[1]["first_run_seconds_more"],
        },
        "ways": [*beside_limit, *beside_peers[1:]],
    }


@contextmanager
def start_mlflow(population: Population, folder: Path) -> Iterator[Callable[[Population, Path], None]]:
    """MLflow in an environment, a process and a Spark of its own, which waits until it is asked to score."""
    python = prepare_environment(ROOT / ".bench", "mlflow")
    scorer = PlainScorer(load_model(population.model))
    people = torch.full((BATCH, len(scorer.spec.columns)), MISSING, dtype=torch.int8)
    with warnings.catch_warnings(action="ignore"):  # of what a trace holds fast: the size of a batch, and the tables
        torch.jit.save(torch.jit.trace(scorer, (people,), check_trace=False), folder / "plain.pt")  # type: ignore[no-untyped-call]
    size = measure_machine()
    told = {
        "model": str(folder / "plain.pt"),
        "batch": BATCH,
        "keys": list(scorer.spec.columns),
        "passed": split_columns(population, None)[0],
        "names": scorer.names,
        "cores": size.cores,
        "heap": f"{size.heap // 2**20}m",
    }
    environment = {**os.environ, "PYSPARK_PYTHON": str(python), "OMP_NUM_THREADS": "1"}
    environment.pop("SPARK_HOME", None)
    with subprocess.Popen(
        [str(python), "-m", "benchmarks.peers.mlflow_udf", json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        wait_for(process.stdout, "ready")

        def score(people: Population, target: Path) -> None:
            assert process.stdin is not None and process.stdout is not None
            features = [str(file.resolve()) for file in people.features]
            process.stdin.write(json.dumps({"features": features, "target": str(target.resolve())}) + "\n")
            process.stdin.flush()
            wait_for(process.stdout, "written")

        yield score
        process.stdin.close()


def wait_for(said: Iterable[str], word: str) -> None:
    """Raises PeerError where the process ends before it says the word."""
    if not any(line.strip() == word for line in said):
        raise PeerError(f"MLflow's process ended before it was {word}.")


@dataclass(frozen=True)
class Turn:
    seconds: float
    cpu: float


def take_turns(
    ways: Sequence[Way], few: Population, population: Population, scratch: Path, rounds: int
) -> list[dict[str, Any]]:
    """Figures of each way, by the median of `rounds`; the ways alternate.

    Before each turn a few people are scored: Spark drops workers that idle for a minute. The first few of all are
    scored cold, and tell what a start costs.
    """
    seen: dict[int, float] = {}
    warming: list[list[Turn]] = [[take_turn(way, few, scratch, seen)] for way in ways]
    taken: list[list[Turn]] = [[] for _ in ways]
    for number in range(rounds):
        for way, warm, turns in zip(ways, warming, taken, strict=True):
            warm.append(take_turn(way, few, scratch, seen))
            turns.append(take_turn(way, population, scratch, seen))
            said = f"{way.name}, {way.numbers}: {turns[-1].seconds:.1f} s, {turns[-1].cpu:.1f} CPU s"
            print(f"round {number + 1}, {population.rows:,} people: {said}", file=sys.stderr)
    return [describe(*figures, population.rows) for figures in zip(ways, warming, taken, strict=True)]


def take_turn(way: Way, people: Population, scratch: Path, seen: dict[int, float]) -> Turn:
    before, start = use_of_session(seen), time.monotonic()
    way.score(people, scratch)
    turn = Turn(time.monotonic() - start, use_of_session(seen) - before)
    shutil.rmtree(scratch)
    return turn


def use_of_session(seen: dict[int, float]) -> float:
    """Processor seconds so far of this session's processes, as last `seen`: Spark ends workers that have idled."""
    for process in list_session(os.getsid(0)):
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            seen[process] = read_cpu(process)
    return sum(seen.values())


def describe(way: Way, warming: Sequence[Turn], turns: Sequence[Turn], people: int) -> dict[str, Any]:
    seconds = median(turn.seconds for turn in turns)
    return {
        "way": way.name,
        "numbers": way.numbers,
        "people": people,
        "rows_a_second": round(people / seconds),
        "cpu_seconds_per_million": round(median(turn.cpu for turn in turns) / people * 1e6, 2),
        "first_run_seconds_more": round(warming[0].seconds - median(turn.seconds for turn in warming[1:]), 2),
    }


def compare(figures: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ours beside each documented way, in its recommended form and with the same numbers."""
    speed = {(figure["way"], figure["numbers"]): figure["rows_a_second"] for figure in figures}
    [(_, numbers)] = [key for key in speed if key[0] == OURS]
    ours = speed[OURS, numbers]
    found: dict[str, float] = {}
    for name, key in PEERS.items():
        found |= {f"over_{name}": ours / speed[key, PLAIN], f"over_{name}_same_numbers": ours / speed[key, numbers]}
    found["over_mlflow_spark_udf"] = ours / speed[MLFLOW, PLAIN]
    return {name: round(ratio, 3) for name, ratio in found.items()}


if __name__ == "__main__":
    sys.exit(main())
