"""Stage 4: a profile for every person. Spark deals out (file, row groups); rows never cross the JVM."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow.parquet as pq

from expectations.codebook import Codebook
from jobs.job import Job
from jobs.lake import StageRecord
from jobs.spark import spark_session
from jobs.tables import arrow_schema, profiles_columns
from jobs.train import build_spec
from model.errors import ModelError
from model.registry import load_model
from model.spec import compare_specs

# Half a million rows outweigh what a task costs; fixed, so that the output's files do not hang on the cores.
GROUPS_PER_TASK = 8


@dataclass(frozen=True)
class WorkItem:
    """Row groups of one features file, and where what is made of them goes."""

    source: str
    row_groups: tuple[int, ...]
    target: str


def run(job: Job) -> StageRecord:
    """Raises ModelError where the model is damaged, or its spec does not fit the features (the columns are named)."""
    trained = job.night.read("train")
    model = job.lake.root / trained.details["folder"]
    features = job.night.paths("preprocess", "features")
    check_model(model, features, job.book)
    scratch = job.night.scratch("score")
    items = deal_work(features, scratch, GROUPS_PER_TASK)
    schema = arrow_schema(profiles_columns(job.book)).serialize().to_pybytes()
    with spark_session(job.lake, "score") as spark:
        work = spark.sparkContext.parallelize(items, len(items))
        rows = work.map(lambda item: score_item(item, str(model), schema)).collect()
    tables = {"profiles": job.night.adopt([Path(item.target) for item in items], "profiles")}
    shutil.rmtree(scratch)
    inputs = job.night.digests("preprocess", "train")
    return StageRecord("score", inputs, tables, {"profiles": sum(rows)})


def check_model(folder: Path, features: Sequence[Path], book: Codebook) -> None:
    """Raises ModelError where the model is damaged or made for other columns, naming those that differ."""
    spec = load_model(folder).spec
    spec.check_columns(pq.read_schema(features[0]))
    differences = compare_specs(spec, build_spec(book))
    if differences:
        raise ModelError(f"the model {folder.name} does not fit the codebook ({'; '.join(differences)}): retrain it")


def deal_work(features: Sequence[Path], scratch: Path, groups_per_task: int) -> list[WorkItem]:
    items: list[WorkItem] = []
    for file in features:
        groups = range(pq.read_metadata(file).num_row_groups)
        for start in range(0, len(groups), groups_per_task):
            target = scratch / f"part-{len(items):06d}.parquet"
            items.append(WorkItem(str(file), tuple(groups[start : start + groups_per_task]), str(target)))
    return items


def score_item(item: WorkItem, model: str, schema: bytes) -> int:
    """Scores one work item in a Spark worker; returns its rows."""
    import pyarrow as pa

    from model.scoring import score_file

    columns, scorer = pa.ipc.read_schema(pa.py_buffer(schema)), load_scorer(model)
    return write_item(item, lambda file: score_file(scorer, Path(item.source), file, columns, item.row_groups))


def write_item(item: WorkItem, write: Callable[[Path], int]) -> int:
    """Has `write` make the item's file; a second attempt makes one of its own and replaces the first's in one step."""
    target = Path(item.target)
    attempt = target.with_suffix(f".{os.getpid()}")
    rows = write(attempt)
    attempt.replace(target)
    return rows


@lru_cache(maxsize=1)
def load_scorer(model: str):  # type: ignore[no-untyped-def]
    """The scorer, once a worker; frozen out of the garbage collection that runs after every task."""
    import gc

    from model.scoring import Scorer

    scorer = Scorer.load(Path(model))
    gc.collect()
    gc.freeze()
    return scorer
