"""One Spark aggregation of people into the sums from which every design-based estimate is made.

What reaches the driver is cells x PSUs, never people. The sums are exact for the values that they add, so neither the
order of rows nor their partitions can change a digit of an estimate: each value is split into a coarse and a fine part
on fixed binary grids (pre-rounding, Demmel and Nguyen 2013), wide enough that adding doubles never rounds. What the
split drops lies below 2^-50 of the largest value, whatever the number of people up to 2^26.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.errors import ContractBroken

MANTISSA_BITS = 53
POWERS = {"sum_w": 0, "sum_wy": 1, "sum_wyy": 2}
COUNTS = ("n", "n_cases")

Breakdown = tuple[str, ...]


def name_breakdown(breakdown: Breakdown) -> str:
    return "*".join(breakdown) or "all"


def sums_schema(cohorts: Sequence[str]) -> pa.Schema:
    """`n` people with an answer, `n_cases` of them with an answer of 1; sums over their weights w and answers y."""
    return pa.schema(
        [("breakdown", pa.string())]
        + [(name, pa.string()) for name in cohorts]
        + [(name, pa.string()) for name in ("outcome", "stratum", "psu")]
        + [(name, pa.int64()) for name in COUNTS]
        + [(name, pa.float64()) for name in POWERS]
    )


def domain_sums(frame: DataFrame, outcomes: Mapping[str, Column | str], breakdowns: Sequence[Breakdown]) -> pa.Table:
    """Sums per breakdown cell, outcome, stratum and PSU of the people whose weight is above zero.

    `frame` has a row a person: `weight` (double), `stratum`, `psu` and the cohorts (strings). An outcome is a column
    or an expression, null where there is no answer. A person with a null in one of a breakdown's cohorts is in none of
    its cells. A PSU of a cell in which nobody answered has a row with n = 0.
    Returns a table of `sums_schema`, sorted. Reads `frame` twice: for the largest values, then for the sums.

    Raises ContractBroken for a weight or an outcome that is not finite, ValueError for a breakdown given twice.
    """
    if len({frozenset(b) for b in breakdowns}) != len(breakdowns):
        raise ValueError(f"a breakdown is given twice: {', '.join(map(name_breakdown, breakdowns))}")
    cohorts = list(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    people = _select_people(frame, outcomes, cohorts)
    grids = _choose_grids(people, list(outcomes))
    if grids is None:
        return sums_schema(cohorts).empty_table()
    keys = [f"c{i}" for i in range(len(cohorts))]
    cells = people.groupBy(*keys, "stratum", "psu").agg(*_sum_answers(len(outcomes), grids))
    sets = [[*(keys[cohorts.index(name)] for name in b), "stratum", "psu"] for b in breakdowns]
    names = [name for name in cells.columns if name not in {*keys, "stratum", "psu"}]
    rolled = cells.groupingSets(sets, *keys, "stratum", "psu").agg(
        *[F.grouping(key).alias(f"out_{key}") for key in keys], *[F.sum(name).alias(name) for name in names]
    )
    for key in keys:
        rolled = rolled.where((F.col(f"out_{key}") == 1) | F.col(key).isNotNull())
    return _unpivot(rolled.toArrow(), list(outcomes), breakdowns, cohorts)


def _select_people(frame: DataFrame, outcomes: Mapping[str, Column | str], cohorts: Sequence[str]) -> DataFrame:
    """Columns under short names of our own, so that no cohort or outcome can clash with them."""
    answers = [F.col(y) if isinstance(y, str) else y for y in outcomes.values()]
    return frame.where(F.col("weight") > 0).select(
        *[F.col(name).cast("string").alias(f"c{i}") for i, name in enumerate(cohorts)],
        F.col("stratum").cast("string").alias("stratum"),
        F.col("psu").cast("string").alias("psu"),
        F.col("weight").cast("double").alias("w"),
        *[y.cast("double").alias(f"y{j}") for j, y in enumerate(answers)],
    )


def _choose_grids(people: DataFrame, outcomes: Sequence[str]) -> dict[tuple[int, str], tuple[float, float]] | None:
    """For every sum the coarse and the fine step, powers of two; None where nobody has a weight."""
    largest = people.agg(
        F.count("*").alias("people"),
        F.count_if(F.col("stratum").isNull() | F.col("psu").isNull()).alias("homeless"),
        F.max("w").alias("w"),
        *[F.max(F.abs(f"y{j}")).alias(f"y{j}") for j in range(len(outcomes))],
    ).first()
    if largest is None or not largest["people"]:
        return None
    if largest["homeless"]:
        raise ContractBroken(f"{largest['homeless']} people have a weight but no stratum or no PSU: give them one")
    if not math.isfinite(largest["w"]):
        raise ContractBroken("a weight is infinite or not a number: quarantine such rows before estimating")
    bits = int(largest["people"]).bit_length()
    steps = {}
    for j, outcome in enumerate(outcomes):
        y = largest[f"y{j}"] or 0.0
        if not math.isfinite(y):
            raise ContractBroken(f"outcome {outcome}: a value is infinite or not a number")
        for name, power in POWERS.items():
            top = math.frexp(largest["w"] * y**power)[1] + bits
            coarse = top - MANTISSA_BITS
            steps[j, name] = (2.0**coarse, 2.0 ** (coarse + bits - 1 - MANTISSA_BITS))
    return steps


def _sum_answers(outcomes: int, grids: Mapping[tuple[int, str], tuple[float, float]]) -> Iterator[Column]:
    w = F.col("w")
    for j in range(outcomes):
        y = F.col(f"y{j}")
        yield F.count(y).alias(f"n_{j}")
        yield F.count_if(y == 1).alias(f"n_cases_{j}")
        values = {"sum_w": F.when(y.isNotNull(), w), "sum_wy": w * y, "sum_wyy": w * y * y}
        for name, value in values.items():
            coarse_step, fine_step = grids[j, name]
            coarse = F.rint(value / coarse_step) * coarse_step
            fine = F.rint((value - coarse) / fine_step) * fine_step
            yield F.sum(coarse).alias(f"{name}_{j}")
            yield F.sum(fine).alias(f"{name}_fine_{j}")


def _unpivot(
    wide: pa.Table, outcomes: Sequence[str], breakdowns: Sequence[Breakdown], cohorts: Sequence[str]
) -> pa.Table:
    """From a row per cell and PSU to a row per cell, PSU and outcome, under the names of `sums_schema`."""
    schema, parts = sums_schema(cohorts), []
    for breakdown in breakdowns:
        inside = pa.array([True] * len(wide))
        for i, name in enumerate(cohorts):
            inside = pc.and_(inside, pc.equal(wide[f"out_c{i}"], 0 if name in breakdown else 1))
        rows = wide.filter(inside)
        for j, outcome in enumerate(outcomes):
            columns = {
                "breakdown": pa.repeat(name_breakdown(breakdown), len(rows)),
                **{name: rows[f"c{i}"] for i, name in enumerate(cohorts)},
                "outcome": pa.repeat(outcome, len(rows)),
                "stratum": rows["stratum"],
                "psu": rows["psu"],
                **{name: rows[f"{name}_{j}"] for name in COUNTS},
                **{name: pc.fill_null(pc.add(rows[f"{name}_{j}"], rows[f"{name}_fine_{j}"]), 0.0) for name in POWERS},
            }
            parts.append(pa.table(columns).cast(schema))
    order = [(name, "ascending") for name in ("breakdown", *cohorts, "outcome", "stratum", "psu")]
    return pa.concat_tables(parts).sort_by(order)
