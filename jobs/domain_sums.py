"""One pass over people for the sums from which every design-based estimate is made.

Spark deals out row groups; a worker adds them up in Arrow and NumPy for all breakdowns and outcomes, and what the
workers found is added up pair by pair. What reaches the driver is cells x PSUs, never people. The sums are exact for
the values that they add, so neither the order of rows nor their partitions can change a digit of an estimate: each
value is split into a coarse and a fine part on fixed binary grids (pre-rounding, Demmel and Nguyen 2013), wide enough
that adding doubles never rounds. What the split drops is below 2^-57 of the largest value of any outcome.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import SparkContext

from expectations.errors import ContractBroken
from expectations.outcomes import Outcome
from jobs.work_items import Groups, deal_groups

ROWS_PER_TASK = 500_000  # what a worker holds at once, in the columns that it needs
MANTISSA_BITS = 53
# Sums and the power of the answer that each adds up, weighted.
POWERS = {"sum_w": 0, "sum_wy": 1, "sum_wyy": 2}
PARTS = tuple(name + part for name in POWERS for part in ("", "_fine"))
COUNTS = ("n", "n_cases")
# Beside them, of a worker: people in the cell, and those with a weight or an answer that is no number.
CHECKS = ("people", "wrong")

# The weight of everybody, whatever they answered: what those who gave an answer stand for.
EVERYBODY = Outcome("everybody", "proportion", "weight", ">=", 0)

Breakdown = tuple[str, ...]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Steps = Mapping[str, tuple[float, float]]  # for every sum its coarse and fine step, powers of two


def name_breakdown(breakdown: Breakdown) -> str:
    return "*".join(breakdown) or "all"


def split_breakdown(name: str) -> Breakdown:
    """The cohorts of a breakdown's name."""
    return () if name == "all" else tuple(name.split("*"))


def sums_schema(cohorts: Sequence[str]) -> pa.Schema:
    """`n` people with an answer, `n_cases` of them with an answer of 1; sums over their weights w and answers y."""
    return pa.schema(
        [("breakdown", pa.string())]
        + [(name, pa.string()) for name in cohorts]
        + [(name, pa.string()) for name in ("outcome", "stratum", "psu")]
        + [(name, pa.int64()) for name in COUNTS]
        + [(name, pa.float64()) for name in POWERS]
    )


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know to add up its row groups."""

    outcomes: tuple[Outcome, ...]
    breakdowns: tuple[Breakdown, ...]
    cohorts: tuple[str, ...]
    steps: Steps

    @property
    def columns(self) -> list[str]:
        asked = [name for outcome in self.outcomes for name in (outcome.source, outcome.also) if name]
        return list(dict.fromkeys([*self.cohorts, "stratum", "psu", "weight", *asked]))

    @property
    def schema(self) -> pa.Schema:
        """Of a worker's rows: breakdown and outcome by their numbers, cohorts outside the breakdown null."""
        return pa.schema(
            [("breakdown", pa.int32()), ("outcome", pa.int32())]
            + [(f"c{i}", pa.string()) for i in range(len(self.cohorts))]
            + [(name, pa.string()) for name in ("stratum", "psu")]
            + [(name, pa.int64()) for name in (*CHECKS, *COUNTS)]
            + [(name, pa.float64()) for name in PARTS]
        )


def domain_sums(
    spark: SparkContext, files: Sequence[Path], outcomes: Sequence[Outcome], breakdowns: Sequence[Breakdown]
) -> pa.Table:
    """Sums per breakdown cell, outcome, stratum and PSU of the people whose weight is above zero.

    The Parquet `files` have a row a person: `weight`, `stratum`, `psu`, the cohorts (strings), and the outcomes'
    sources, numbers, null where there is no answer. A person with a null in one of a breakdown's cohorts is in none of
    its cells. A PSU of a cell in which nobody answered has a row with n = 0.
    Returns a table of `sums_schema`, sorted.

    Raises ContractBroken for a weight or an outcome that is not finite and for people without a stratum or PSU,
    ValueError for a breakdown given twice.
    """
    if len({frozenset(b) for b in breakdowns}) != len(breakdowns):
        raise ValueError(f"a breakdown is given twice: {', '.join(map(name_breakdown, breakdowns))}")
    cohorts = tuple(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    plan = Plan(tuple(outcomes), tuple(breakdowns), cohorts, choose_steps(files, outcomes))
    items = deal_groups(files, ROWS_PER_TASK)
    if not outcomes or not any(items):
        return sums_schema(cohorts).empty_table()
    sums = spark.parallelize(items, len(items)).map(partial(_add_groups, plan=plan)).treeReduce(add_sums)
    _check(sums, plan)
    return name_rows(sums, plan)


def choose_steps(
    files: Sequence[Path], outcomes: Sequence[Outcome], weights: Sequence[str] = ("weight",)
) -> dict[str, tuple[float, float]]:
    """The grids of all sums, from the files' footers; `weights` are the columns that hold weights.

    Raises ContractBroken where a weight or an outcome is infinite, or so large that sums would be.
    """
    footers = [pq.read_metadata(file) for file in files]
    bits = max(1, sum(footer.num_rows for footer in footers)).bit_length()
    weight = max(find_largest(files, footers, column) for column in weights)
    if not math.isfinite(weight):
        raise ContractBroken("a weight is infinite or not a number: quarantine such rows before estimating")
    largest = 0.0
    for outcome in outcomes:
        found = 1.0 if outcome.cut is not None else find_largest(files, footers, outcome.source)
        if not math.isfinite(found):
            raise ContractBroken(f"outcome {outcome.name}: a value is infinite or not a number")
        largest = max(largest, found)
    if not math.isfinite(weight * max(1.0, largest) ** 2 * 2.0**bits):
        raise ContractBroken(f"weights of up to {weight:.3g} are too large to be added up: quarantine such rows")
    steps = {}
    for name, power in POWERS.items():
        # Below 2^53 steps a sum of multiples of a step is exact; a fine part is half a coarse step at most.
        coarse = math.frexp(weight * largest**power)[1] + bits - MANTISSA_BITS
        steps[name] = (2.0**coarse, 2.0 ** (coarse - 1 + bits - MANTISSA_BITS))
    return steps


def find_largest(files: Sequence[Path], footers: Sequence[Any], column: str) -> float:
    """The largest absolute value of a column, those that are no number apart."""
    largest = 0.0
    for file, footer in zip(files, footers, strict=True):
        place = footer.schema.to_arrow_schema().get_field_index(column)
        for group in range(footer.num_row_groups):
            statistics = footer.row_group(group).column(place).statistics
            if statistics is not None and statistics.has_min_max:
                bounds = statistics.min, statistics.max
            else:
                found = pc.min_max(pq.ParquetFile(file).read_row_group(group, [column])[column])
                bounds = found["min"].as_py() or 0.0, found["max"].as_py() or 0.0
            largest = max(largest, *(abs(float(bound)) for bound in bounds))
    return largest


def _add_groups(groups: Groups, plan: Plan) -> pa.Table:
    parts = []
    for path, numbers in groups:
        with pq.ParquetFile(path) as file:
            parts.append(file.read_row_groups(list(numbers), columns=plan.columns, use_threads=False))
    return add_people(pa.concat_tables(parts), plan)


def add_sums(one: pa.Table, other: pa.Table) -> pa.Table:
    """The sums of all people of two tables of a plan's schema, no person in both."""
    sums = [*CHECKS, *COUNTS, *PARTS]
    keys = [name for name in one.column_names if name not in sums]
    added = pa.concat_tables([one, other]).group_by(keys).aggregate([(name, "sum") for name in sums])
    return added.rename_columns([*keys, *sums]).select(one.column_names)


def add_people(people: pa.Table, plan: Plan) -> pa.Table:
    """The sums of some people, as a table of `plan.schema`."""
    weight = people["weight"].cast(pa.float64()).to_numpy()
    kept = ~(weight <= 0)  # what is no number stays, and is counted
    people, weight = people.filter(pa.array(kept)), weight[kept]
    coded = {name: encode_texts(people[name]) for name in (*plan.cohorts, "stratum", "psu")}
    sets = [group_people(coded, breakdown, ("stratum", "psu")) for breakdown in plan.breakdowns]
    parts = []
    for position, outcome in enumerate(plan.outcomes):
        values = _measure(people, outcome, weight, plan.steps)
        for number, (places, labels) in enumerate(sets):
            rows = len(labels["psu"])
            columns = [pa.repeat(pa.scalar(key, pa.int32()), rows) for key in (number, position)]
            columns += [labels.get(name, pa.nulls(rows, pa.string())) for name in (*plan.cohorts, "stratum", "psu")]
            columns += [pa.array(np.bincount(places, value, rows + 1)[:rows]) for value in values]
            parts.append(pa.table(columns, plan.schema.names).cast(plan.schema))
    return pa.concat_tables(parts)


def encode_texts(column: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
    """The number of every row's text, -1 for null, and the texts."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def group_people(
    coded: Mapping[str, tuple[Integers, pa.Array]], breakdown: Breakdown, parts: Sequence[str] = ()
) -> tuple[Integers, dict[str, pa.Array]]:
    """Everybody's group, a cell or one of its `parts` (a PSU, say), and the groups' labels, of which there are some.

    Who is in no cell is in the group past the last. `coded` has what `encode_texts` makes of each column.
    """
    inside = np.ones(len(next(iter(coded.values()))[0]), dtype=bool)
    for name in breakdown:
        inside &= coded[name][0] >= 0
    names, keys = (*breakdown, *parts), np.zeros(len(inside), dtype=np.int64)
    for name in names:
        codes, texts = coded[name]
        keys = keys * (len(texts) + 1) + codes + 1
    found = pa.array(keys, mask=~inside).dictionary_encode()
    groups = found.dictionary.to_numpy()
    places = found.indices.fill_null(len(groups)).to_numpy(zero_copy_only=False).astype(np.int64)
    labels = {}
    for name in reversed(names):
        texts = coded[name][1]
        groups, code = np.divmod(groups, len(texts) + 1)
        labels[name] = texts.take(pa.array(code - 1, mask=code == 0))
    return places, labels


def _measure(people: pa.Table, outcome: Outcome, weight: Floats, steps: Steps) -> list[Floats]:
    """For everyone what is added up, in the order of the plan's schema."""
    known, y = read_answers(people, outcome)
    right = np.isfinite(weight) & np.isfinite(y)
    known, w = known & right, np.where(known & right, weight, 0.0)
    y = np.where(known, y, 0.0)
    values = [column.astype(np.float64) for column in (np.ones(len(y)), ~right, known, known & (y == 1))]
    for name, power in POWERS.items():
        values += split_values(w * y**power, steps[name])
    return values


def read_answers(people: pa.Table, outcome: Outcome) -> tuple[NDArray[np.bool_], Floats]:
    """Who answered, and the answers, 1 or 0 of a proportion; they mean nothing of those who gave none."""
    answer = people[outcome.source].cast(pa.float64())
    known = answer.is_valid().to_numpy()
    if outcome.also:
        known = known & people[outcome.also].is_valid().to_numpy()
    y = answer.fill_null(0.0).to_numpy()
    if outcome.cut is not None:
        y = np.where(np.isfinite(y), y >= outcome.cut if outcome.side == ">=" else y <= outcome.cut, y)
    return known, y


def split_values(values: Floats, steps: tuple[float, float]) -> tuple[Floats, Floats]:
    """The coarse and the fine part of each value."""
    coarse_step, fine_step = steps
    coarse = np.rint(values / coarse_step) * coarse_step
    return coarse, np.rint((values - coarse) / fine_step) * fine_step


def _check(sums: pa.Table, plan: Plan) -> None:
    homeless = sums.filter(pc.or_(pc.is_null(sums["stratum"]), pc.is_null(sums["psu"])))
    if len(homeless):
        # Everybody is in a breakdown once for each outcome, unless a cohort of theirs is not known.
        once = homeless.filter(pc.equal(homeless["outcome"], 0)).group_by("breakdown").aggregate([("people", "sum")])
        people = pc.max(once["people_sum"]).as_py()
        raise ContractBroken(f"{people} people have a weight but no stratum or no PSU: give them one")
    wrong = sums.filter(pc.greater(sums["wrong"], 0))
    if len(wrong):
        name = plan.outcomes[wrong["outcome"][0].as_py()].name
        raise ContractBroken(f"outcome {name}: a value, or its weight, is infinite or not a number")


def name_rows(sums: pa.Table, plan: Plan) -> pa.Table:
    """The rows under the names of `sums_schema`, coarse and fine parts put together."""
    schema = sums_schema(plan.cohorts)
    columns = {
        "breakdown": pc.take(pa.array([name_breakdown(b) for b in plan.breakdowns], pa.string()), sums["breakdown"]),
        **{name: sums[f"c{i}"] for i, name in enumerate(plan.cohorts)},
        "outcome": pc.take(pa.array([outcome.name for outcome in plan.outcomes], pa.string()), sums["outcome"]),
        **{name: sums[name] for name in ("stratum", "psu", *COUNTS)},
        **{name: pc.add(sums[name], sums[f"{name}_fine"]) for name in POWERS},
    }
    order = [(name, "ascending") for name in ("breakdown", *plan.cohorts, "outcome", "stratum", "psu")]
    return pa.table(columns).cast(schema).sort_by(order)
