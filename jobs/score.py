"""Stage 4: a profile for every person. Spark deals out (file, row groups); rows never cross the JVM."""

import shutil
from functools import partial
from pathlib import Path

from jobs.job import Job
from jobs.lake import StageRecord
from jobs.model_spec import check_model
from jobs.spark import spark_session
from jobs.tables import arrow_schema, profiles_columns
from jobs.work_items import deal_work, run_items, score_item

# They outweigh what a task costs.
ROWS_PER_TASK = 500_000


def run(job: Job) -> StageRecord:
    """Raises ModelError where the model is damaged, or its spec does not fit the features (the columns are named)."""
    trained = job.night.read("train")
    model = job.lake.root / trained.details["folder"]
    features = job.night.paths("preprocess", "features")
    check_model(model, features, job.book)
    scratch = job.night.scratch("score")
    items = deal_work(features, scratch, ROWS_PER_TASK)
    schema = arrow_schema(profiles_columns(job.book)).serialize().to_pybytes()
    with spark_session(job.lake, "score") as spark:
        made = run_items(spark.sparkContext, items, partial(score_item, model=str(model), schema=schema))
    tables = {"profiles": job.night.adopt([Path(part.file) for part in made], "profiles")}
    shutil.rmtree(scratch)
    inputs = job.night.digests("preprocess", "train")
    return StageRecord("score", inputs, tables, {"profiles": sum(part.rows for part in made)})
