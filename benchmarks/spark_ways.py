"""The documented ways of scoring in Spark: a function of the user's, and DataFrame.write.

Without an `arithmetic` the function reckons as one would at first (benchmarks/plain_scoring.py), the recommended form
of such code; with one it is the project's own scorer, so that what is left is the way itself. The model is loaded once
a worker, and kept out of the garbage collection after each task, as in the project's own way.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.ml.functions import predict_batch_udf as predict_udf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from benchmarks.population import Population
from model.arithmetic import EXACT, Arithmetic
from model.heap import keep_freed_memory
from model.scoring import BLOCK

BATCH = 512  # people: of 256 to 4,096, what plain code is quickest with

Score = Callable[[npt.NDArray[np.int8]], dict[str, npt.NDArray[np.generic]]]


@lru_cache(maxsize=2)
def load(model: str, arithmetic: Arithmetic | None) -> tuple[Score, list[str]]:
    """What gives columns of codes (rows, items), and the items' columns; once a worker."""
    import gc

    import torch

    from benchmarks.plain_scoring import PlainScorer
    from model.scoring import Scorer

    torch.set_num_threads(1)
    if arithmetic:
        keep_freed_memory()
    scorer = Scorer.load(Path(model), arithmetic or EXACT)
    keys = scorer.model.spec.columns
    plain_scorer = PlainScorer(scorer.model)

    def score_with_project(codes: npt.NDArray[np.int8]) -> dict[str, npt.NDArray[np.generic]]:
        table = scorer.score(pa.table({key: codes[:, place] for place, key in enumerate(keys)}))
        return {name: table.column(name).to_numpy() for name in table.column_names}

    def score_plainly(codes: npt.NDArray[np.int8]) -> dict[str, npt.NDArray[np.generic]]:
        found = torch.cat([plain_scorer(block) for block in torch.split(torch.from_numpy(codes), BATCH)]).numpy()
        return {name: found[:, place] for place, name in enumerate(plain_scorer.names)}

    gc.collect()
    gc.freeze()
    return (score_with_project if arithmetic else score_plainly), list(keys)


def map_in_arrow(spark: SparkSession, arithmetic: Arithmetic | None, population: Population, target: Path) -> None:
    passed, made = split_columns(population, arithmetic)
    model = str(population.model)
    fields = [population.schema.field(name) for name in [*passed, *made]]
    schema = pa.schema([pa.field(field.name, field.type) for field in fields])

    def score(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        function, keys = load(model, arithmetic)
        for batch in batches:
            codes = np.column_stack([batch.column(key).to_numpy() for key in keys])
            columns = function(codes)
            arrays = [batch.column(name) for name in passed] + [pa.array(columns[name]) for name in made]
            yield pa.RecordBatch.from_arrays(
                [a.cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema
            )

    _read(spark, population).mapInArrow(score, from_arrow_schema(schema)).write.parquet(str(target))


def pandas_udf(spark: SparkSession, arithmetic: Arithmetic | None, population: Population, target: Path) -> None:
    passed, made = split_columns(population, arithmetic)
    model = str(population.model)

    @F.pandas_udf(_struct(population, made))  # type: ignore[attr-defined, untyped-decorator]
    def score(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        function, keys = load(model, arithmetic)
        for part in parts:
            columns = function(part[keys].to_numpy(dtype=np.int8))
            yield pd.DataFrame({name: columns[name] for name in made})

    keys = load(model, arithmetic)[1]
    _write(_read(spark, population).select(*passed, score(F.struct(*keys)).alias("profile")), passed, target)


def predict_batch_udf(spark: SparkSession, arithmetic: Arithmetic | None, population: Population, target: Path) -> None:
    passed, made = split_columns(population, arithmetic)
    model = str(population.model)

    def make() -> Any:
        function, _ = load(model, arithmetic)
        return lambda codes: {name: column for name, column in function(codes.astype(np.int8)).items() if name in made}

    keys = load(model, arithmetic)[1]
    batch = BLOCK if arithmetic else BATCH
    predict = predict_udf(
        make, return_type=_struct(population, made), batch_size=batch, input_tensor_shapes=[[len(keys)]]
    )
    _write(_read(spark, population).select(*passed, predict(F.array(*keys)).alias("profile")), passed, target)


def split_columns(population: Population, arithmetic: Arithmetic | None) -> tuple[list[str], list[str]]:
    """Columns passed through from the features, and columns of numbers that the function makes."""
    function, keys = load(str(population.model), arithmetic)
    made = {name for name, column in function(np.zeros((2, len(keys)), np.int8)).items() if column.dtype == np.float32}
    names = [name for name in population.schema.names if name not in ("model_version", "items_answered")]
    return [name for name in names if name not in made], [name for name in names if name in made]


def _struct(population: Population, names: list[str]) -> Any:
    return from_arrow_schema(pa.schema([pa.field(name, population.schema.field(name).type) for name in names]))


def _read(spark: SparkSession, population: Population) -> DataFrame:
    # Batches that fill the scorer's blocks; to plain code it makes no difference, which cuts its own.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", BLOCK)
    return spark.read.parquet(*map(str, population.features))


def _write(scored: DataFrame, passed: list[str], target: Path) -> None:
    scored.select(*passed, "profile.*").write.parquet(str(target))
