"""Stage 4: a profile for every person. Spark deals out (file, row groups); rows never cross the JVM.

Who gave the same answers to the same model the night before keeps the profile; the table is the same, bit for bit, as
if everybody were scored.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jobs.job import Job
from jobs.keeping import NothingKept, describe_making, find_kept
from jobs.lake import StageRecord
from jobs.model_spec import check_model
from jobs.spark import spark_session
from jobs.tables import arrow_schema, profiles_columns
from jobs.work_items import Made, WorkItem, deal_work, run_items, score_item
from model.arithmetic import EXACT, choose_arithmetic
from model.exactness import Deviation, measure_deviation
from model.scoring import Scorer

# They outweigh what a task costs.
ROWS_PER_TASK = 500_000
FILES_COMPARED = 8  # with float32, where other numbers or a GPU made the profiles


def run(job: Job) -> StageRecord:
    """Raises ModelError where the model is damaged, its spec does not fit the features (the columns are named), or the
    profiles lie too far off those in float32."""
    trained = job.night.read("train")
    model = job.lake.root / trained.details["folder"]
    features = job.night.paths("preprocess", "features")
    check_model(model, features, job.book)
    scratch = job.night.scratch("score")
    items = deal_work(features, scratch, ROWS_PER_TASK)
    arithmetic = choose_arithmetic()
    schema = arrow_schema(profiles_columns(job.book)).serialize().to_pybytes()
    made_with, rescored = describe_making(job, model, arithmetic), None
    try:
        items = find_kept(job, items, made_with)
    except NothingKept as told:
        rescored = str(told)
    with spark_session(job.lake, "score") as spark:
        score = partial(score_item, model=str(model), schema=schema, arithmetic=arithmetic)
        made = run_items(spark.sparkContext, items, score)
    details: dict[str, Any] = {"arithmetic": asdict(arithmetic), "made_with": made_with, "rescored": rescored}
    if arithmetic != EXACT:
        deviation = compare_with_exact(model, items, made)
        deviation.check(arithmetic)
        details["deviation"] = asdict(deviation)
    tables = {"profiles": job.night.adopt([Path(part.file) for part in made], "profiles")}
    shutil.rmtree(scratch)
    counts = {"profiles": sum(part.rows for part in made), "kept": sum(part.kept for part in made)}
    counts["scored"] = counts["profiles"] - counts["kept"]
    seconds = round(sum(part.seconds for part in made), 3)
    job.log.info("profiles made", **counts, rescored=rescored, inference_cpu_seconds=seconds)
    return StageRecord("score", job.night.digests("preprocess", "train"), tables, counts, details)


def compare_with_exact(model: Path, items: Sequence[WorkItem], made: Sequence[Made]) -> Deviation:
    """Of some files, spread over the night's, the first people in float32 beside what was written of them."""
    every = -(-len(items) // FILES_COMPARED) or 1
    pairs = zip(items[::every], made[::every], strict=True)
    return measure_deviation(Scorer.load(model), ((item.read_pieces(), Path(part.file)) for item, part in pairs))
