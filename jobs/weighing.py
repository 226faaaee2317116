"""The weights that are estimated with: the delivered ones, adjusted for lost people and raked to known margins."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from expectations.codebook_parts import Margins
from jobs.calibration import rake_cells
from jobs.nonresponse import Classes, find_factors, report_factors

FACTOR = "factor__"
EXACT = "decimal(38, 9)"  # sums of it hang on no order


def weigh_people(features: DataFrame, classes: Classes, margins: Margins | None) -> tuple[DataFrame, dict[str, Any]]:
    """The features with the weights to estimate with, and what was done to them.

    `classes` may be empty, of a night that counted none: nobody is then stood for by another. Replicate weights are
    multiplied by the same factors as their person's weight, so that what the factors themselves add to the variance, or
    take from it, is not counted.
    Raises ContractBroken for margins that cannot be met.
    """
    details: dict[str, Any] = {}
    told: Mapping[tuple[str | None, ...], float]
    if classes:
        factors = find_factors(classes)
        details["nonresponse"] = report_factors(classes, factors)
        told = {(stratum,): factor for stratum, factor in factors.items() if factor != 1}
        features = multiply_weights(features, ["stratum"], told)
    if margins:
        cohorts = list(margins.counts)
        cells = features.groupBy(*cohorts).agg(F.sum(F.col("weight").cast(EXACT)).alias("weight")).collect()
        cells.sort(key=lambda cell: [cell[name] or "" for name in cohorts])
        labels = [{name: cell[name] for name in cohorts} for cell in cells]
        weights = np.array([float(cell["weight"]) for cell in cells])
        raking = rake_cells(labels, weights, margins.counts, margins.bounds or (0.0, math.inf))
        details["raking"] = raking.report(weights)
        told = {tuple(cell.values()): float(f) for cell, f in zip(labels, raking.factors, strict=True)}
        features = multiply_weights(features, cohorts, told)
    return features, details


def multiply_weights(
    features: DataFrame, keys: Sequence[str], factors: Mapping[tuple[str | None, ...], float]
) -> DataFrame:
    """Everybody's weight, and replicate weights, times the factor of their `keys`, 1 where there is none."""
    if not factors:
        return features
    schema = ", ".join([*(f"`{FACTOR}{key}` string" for key in keys), f"{FACTOR} double"])
    told = features.sparkSession.createDataFrame([(*labels, factor) for labels, factor in factors.items()], schema)
    same = [features[key].eqNullSafe(told[FACTOR + key]) for key in keys]
    joined = features.join(F.broadcast(told), on=same, how="left")
    factor = F.coalesce(F.col(FACTOR), F.lit(1.0))
    weighed = {
        "weight": F.col("weight") * factor,
        "replicate_weights": F.transform("replicate_weights", lambda weight: weight * factor),
    }
    return joined.select(*[weighed.get(name, F.col(name)).alias(name) for name in features.columns])
