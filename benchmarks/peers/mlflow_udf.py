"""MLflow's spark_udf around a traced model, in a Spark of its own: one line of standard input, one run.

The first argument is JSON: the model's file and how many people it takes at once, the item columns, those passed
through, those that the model makes, cores and heap. Each line is JSON, too: the feature files, and the folder to write.
It is answered by a line when that is written.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, StructField, StructType

MISSING = -1


class Profiles(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The traced model takes a batch of one size."""

    def load_context(self, context: Any) -> None:
        torch.set_num_threads(1)
        self.model = torch.jit.load(context.artifacts["model"])  # type: ignore[no-untyped-call]
        self.names, self.keys, self.batch = (context.model_config[key] for key in ("names", "keys", "batch"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        codes = torch.from_numpy(model_input[self.keys].to_numpy(dtype="int8"))
        padded = torch.nn.functional.pad(codes, (0, 0, 0, -len(codes) % self.batch), value=MISSING)
        found = torch.cat([self.model(block) for block in torch.split(padded, self.batch)])[: len(codes)]
        return pd.DataFrame(found.numpy(), columns=self.names)


def main() -> None:
    told = json.loads(sys.argv[1])
    builder = SparkSession.builder.master(f"local[{told['cores']}]").config("spark.driver.memory", told["heap"])
    builder = builder.config("spark.sql.execution.arrow.pyspark.enabled", "true").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.parquet.compression.codec", "zstd").config("spark.log.level", "ERROR")
    spark = builder.getOrCreate()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        mlflow.pyfunc.save_model(
            folder,
            python_model=Profiles(),
            artifacts={"model": told["model"]},
            model_config={key: told[key] for key in ("names", "keys", "batch")},
            pip_requirements=["torch"],
        )
        kinds = StructType([StructField(name, FloatType()) for name in told["names"]])
        profile = mlflow.pyfunc.spark_udf(spark, str(folder), result_type=kinds, env_manager="local")
        print("ready", flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            people = spark.read.parquet(*asked["features"])
            scored = people.select(*told["passed"], profile(F.struct(*told["keys"])).alias("profile"))
            scored.select(*told["passed"], "profile.*").write.parquet(asked["target"])
            print("written", flush=True)


if __name__ == "__main__":
    main()
