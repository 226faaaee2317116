"""One Spark aggregation of people into the sums from which every design-based estimate is made.

What reaches the driver is cells x PSUs, never people. The sums are exact for the values that they add, so neither the
order of rows nor their partitions can change a digit of an estimate: each value is split into a coarse and a fine part
on fixed binary grids (pre-rounding, Demmel and Nguyen 2013), wide enough that adding doubles never rounds. What the
split drops is below 2^-57 of the largest value of any outcome.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from expectations.errors import ContractBroken

MANTISSA_BITS = 53
# Sums and the power of the answer that each adds up, weighted.
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
    people = _select_people(frame, list(outcomes.values()), cohorts)
    grids = _choose_grids(people, list(outcomes))
    if grids is None:
        return sums_schema(cohorts).empty_table()
    cells = [f"c{i}" for i in range(len(cohorts))]
    # A row an answer: sums of ten outcomes side by side make code too long for Spark to compile, and crawl.
    answers = people.select(*cells, "stratum", "psu", "w", F.posexplode("answers").alias("outcome", "y"))
    keys = ["outcome", "stratum", "psu"]
    sets = [[*(cells[cohorts.index(name)] for name in breakdown), *keys] for breakdown in breakdowns]
    sums = answers.groupingSets(sets, *cells, *keys).agg(
        *[F.grouping(cell).alias(f"out_{cell}") for cell in cells], *_sum_answers(grids)
    )
    for cell in cells:
        sums = sums.where((F.col(f"out_{cell}") == 1) | F.col(cell).isNotNull())
    return _name_rows(sums.toArrow(), list(outcomes), breakdowns, cohorts)


def _select_people(frame: DataFrame, outcomes: Sequence[Column | str], cohorts: Sequence[str]) -> DataFrame:
    """Columns under short names of our own, so that no cohort or outcome can clash with them."""
    answers = [(F.col(y) if isinstance(y, str) else y).cast("double") for y in outcomes]
    return frame.where(F.col("weight") > 0).select(
        *[F.col(name).cast("string").alias(f"c{i}") for i, name in enumerate(cohorts)],
        F.col("stratum").cast("string").alias("stratum"),
        F.col("psu").cast("string").alias("psu"),
        F.col("weight").cast("double").alias("w"),
        F.array(*answers).alias("answers"),
    )


def _choose_grids(people: DataFrame, outcomes: Sequence[str]) -> dict[str, tuple[float, float]] | None:
    """For every sum its coarse and fine step, powers of two; None where nobody has a weight."""
    largest = people.agg(
        F.count("*").alias("people"),
        F.count_if(F.col("stratum").isNull() | F.col("psu").isNull()).alias("homeless"),
        F.max("w").alias("w"),
        *[F.max(F.abs(F.col("answers")[j])).alias(f"y{j}") for j in range(len(outcomes))],
    ).first()
    if largest is None or not largest["people"]:
        return None
    if largest["homeless"]:
        raise ContractBroken(f"{largest['homeless']} people have a weight but no stratum or no PSU: give them one")
    if not math.isfinite(largest["w"]):
        raise ContractBroken("a weight is infinite or not a number: quarantine such rows before estimating")
    answers = [largest[f"y{j}"] or 0.0 for j in range(len(outcomes))]
    for outcome, y in zip(outcomes, answers, strict=True):
        if not math.isfinite(y):
            raise ContractBroken(f"outcome {outcome}: a value is infinite or not a number")
    bits = int(largest["people"]).bit_length()
    steps = {}
    if not math.isfinite(largest["w"] * max(answers) ** 2 * largest["people"]):
        raise ContractBroken(f"weights of up to {largest['w']:.3g} are too large to be added up: quarantine such rows")
    for name, power in POWERS.items():
        # Below 2^53 steps a sum of multiples of a step is exact; a fine part is half a coarse step at most.
        coarse = math.frexp(largest["w"] * max(answers) ** power)[1] + bits - MANTISSA_BITS
        steps[name] = (2.0**coarse, 2.0 ** (coarse - 1 + bits - MANTISSA_BITS))
    return steps


def _sum_answers(grids: Mapping[str, tuple[float, float]]) -> Iterator[Column]:
    w, y = F.col("w"), F.col("y")
    yield F.count(y).alias("n")
    yield F.count_if(y == 1).alias("n_cases")
    values = {"sum_w": F.when(y.isNotNull(), w), "sum_wy": w * y, "sum_wyy": w * y * y}
    for name, value in values.items():
        coarse_step, fine_step = grids[name]
        coarse = F.rint(value / coarse_step) * coarse_step
        yield F.sum(coarse).alias(name)
        yield F.sum(F.rint((value - coarse) / fine_step) * fine_step).alias(f"{name}_fine")


def _name_rows(
    sums: pa.Table, outcomes: Sequence[str], breakdowns: Sequence[Breakdown], cohorts: Sequence[str]
) -> pa.Table:
    """The rows under the names of `sums_schema`, labelled by breakdown, coarse and fine parts put together."""
    parts = []
    for breakdown in breakdowns:
        inside = pa.repeat(True, len(sums))
        for i, name in enumerate(cohorts):
            inside = pc.and_(inside, pc.equal(sums[f"out_c{i}"], 0 if name in breakdown else 1))
        rows = sums.filter(inside)
        columns = {
            "breakdown": pa.repeat(name_breakdown(breakdown), len(rows)),
            **{name: rows[f"c{i}"] for i, name in enumerate(cohorts)},
            "outcome": pc.take(pa.array(outcomes), rows["outcome"]),
            **{name: rows[name] for name in ("stratum", "psu", *COUNTS)},
            **{name: pc.fill_null(pc.add(rows[name], rows[f"{name}_fine"]), 0.0) for name in POWERS},
        }
        parts.append(pa.table(columns).cast(sums_schema(cohorts)))
    order = [(name, "ascending") for name in ("breakdown", *cohorts, "outcome", "stratum", "psu")]
    return pa.concat_tables(parts).sort_by(order)
