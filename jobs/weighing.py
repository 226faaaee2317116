"""The weights that are estimated with: the delivered ones, adjusted for lost people and raked to known margins.

Replicate weights are raked one by one, as R's `calibrate` does on a replicate design, so that their variance has what
raking takes from it. The factors of lost people are the full weight's: who was lost has no replicate weight.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.codebook_parts import Margins
from expectations.errors import ContractBroken
from jobs.calibration import rake_cells
from jobs.nonresponse import Classes, find_factors, report_factors

FACTOR = "factor__"
EXACT = "decimal(38, 9)"  # sums of it hang on no order


Factors = Mapping[tuple[str | None, ...], Sequence[float]]


def weigh_people(
    features: DataFrame, classes: Classes, margins: Margins | None, replicates: Sequence[str] = ()
) -> tuple[DataFrame, dict[str, Any]]:
    """The features with the weights to estimate with, and what was done to them; `replicates` names their columns.

    `classes` may be empty, of a night that counted none: nobody is then stood for by another.
    Raises ContractBroken for margins that cannot be met, and names the replicate whose weights cannot meet them.
    """
    details: dict[str, Any] = {}
    told: Factors
    if classes:
        factors = find_factors(classes)
        details["nonresponse"] = report_factors(classes, factors)
        told = {(stratum,): [factor] for stratum, factor in factors.items() if factor != 1}
        features = multiply_weights(features, ["stratum"], told)
    if margins:
        cohorts, columns = list(margins.counts), [F.col("weight"), *map(_pick_replicate, range(len(replicates)))]
        sums = [F.sum(column.cast(EXACT)).alias(f"{FACTOR}{i}") for i, column in enumerate(columns)]
        cells = features.groupBy(*cohorts).agg(*sums).collect()
        cells.sort(key=lambda cell: [cell[name] or "" for name in cohorts])
        labels = [{name: cell[name] for name in cohorts} for cell in cells]
        weights = np.array([[float(cell[f"{FACTOR}{i}"]) for i in range(len(columns))] for cell in cells])
        factors_of_cells, details["raking"] = rake_replicates(labels, weights, margins, replicates)
        told = {tuple(cell.values()): row.tolist() for cell, row in zip(labels, factors_of_cells, strict=True)}
        features = multiply_weights(features, cohorts, told)
    return features, details


def rake_replicates(
    cells: Sequence[Mapping[str, str | None]], weights: NDArray[np.float64], margins: Margins, names: Sequence[str] = ()
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """The factors of each cell's sums of weights, the full one's and each replicate's, both (cells, 1 + R).

    A replicate that cannot meet the margins within the bounds, which keep the full weights from extremes, is raked
    without them. Raises ContractBroken, which says of which replicate, for margins that cannot be met at all.
    """
    bounds = margins.bounds or (0.0, math.inf)
    full = rake_cells(cells, weights[:, 0], margins.counts, bounds)
    report, columns, unbounded = dict(full.report(weights[:, 0])), [full.factors], 0
    for name, own in zip(names, weights.T[1:], strict=True):
        raking = None
        with suppress(ContractBroken):
            raking = rake_cells(cells, own, margins.counts, bounds)
        if raking is None:
            unbounded += 1
            try:
                raking = rake_cells(cells, own, margins.counts)
            except ContractBroken as error:
                raise ContractBroken(f"replicate weight {name}: {error}") from None
        report["largest_miss"] = max(report["largest_miss"], raking.largest_miss)
        columns.append(raking.factors)
    return np.column_stack(columns), report | ({"replicates_without_bounds": unbounded} if names else {})


def _pick_replicate(place: int) -> Column:
    return F.col("replicate_weights")[place]


def multiply_weights(features: DataFrame, keys: Sequence[str], factors: Factors) -> DataFrame:
    """Everybody's weight times the first factor of their `keys`, 1 where there are none.

    Replicate weights take the others, one each, or the first where it is alone.
    """
    if not factors:
        return features
    schema = ", ".join([*(f"`{FACTOR}{key}` string" for key in keys), f"{FACTOR} array<double>"])
    told = features.sparkSession.createDataFrame([(*labels, list(own)) for labels, own in factors.items()], schema)
    same = [features[key].eqNullSafe(told[FACTOR + key]) for key in keys]
    joined = features.join(F.broadcast(told), on=same, how="left")
    first = F.coalesce(F.col(FACTOR)[0], F.lit(1.0))
    if all(len(own) == 1 for own in factors.values()):
        replicates = F.transform("replicate_weights", lambda weight: weight * first)
    else:
        own = F.slice(F.col(FACTOR), 2, F.size(F.col(FACTOR)) - 1)
        replicates = F.zip_with("replicate_weights", own, lambda weight, factor: weight * factor)
    weighed = {"weight": F.col("weight") * first, "replicate_weights": replicates}
    return joined.select(*[weighed.get(name, F.col(name)).alias(name) for name in features.columns])
