"""A pass over the features for the sums with every replicate weight, of each outcome in each breakdown cell.

As in `jobs.domain_sums` a worker adds up row groups in Arrow and NumPy, and the sums are exact for the values that they
add, so that the order of rows and files changes no digit. For the degrees of freedom a cell keeps of its people's
weights what has the same products of columns: the people themselves, or a triangle of R rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import SparkContext
from scipy.sparse import csr_array

from expectations.outcomes import Outcome
from expectations.replication import Replication
from jobs.domain_sums import (
    EVERYBODY,
    ROWS_PER_TASK,
    Breakdown,
    Steps,
    choose_steps,
    encode_texts,
    group_people,
    name_breakdown,
    read_answers,
    split_values,
)
from jobs.replicates import ReplicateSums
from jobs.work_items import Groups, deal_groups

WEIGHTS = "replicate_weights"
NOBODY = np.empty((0, 0))
VALUES_AT_ONCE = 2**20  # weights that a worker has in hand, several times over

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Texts = tuple[NDArray[np.int64], pa.Array]  # of `encode_texts`
Cell = tuple[str, ...]
Key = tuple[str, Cell, str]  # a breakdown's name, the levels of its cohorts, an outcome
Replicated = Mapping[Key, ReplicateSums]


@dataclass(frozen=True)
class Shares:
    """For each stratum (C,) what one who answered stands for, with each weight: factors (C, 1 + R)."""

    strata: tuple[str, ...]
    factors: Floats


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know; `shares` are of the outcomes whose whole total is asked for.

    `degrees`: whether the degrees of freedom are.
    """

    outcomes: tuple[Outcome, ...]
    breakdowns: tuple[Breakdown, ...]
    steps: Steps
    shares: Mapping[str, Shares]
    degrees: bool = True

    @property
    def columns(self) -> list[str]:
        asked = [name for outcome in self.outcomes for name in (outcome.source, outcome.also) if name]
        cohorts = [name for breakdown in self.breakdowns for name in breakdown]
        return list(dict.fromkeys(["weight", WEIGHTS, "stratum", *cohorts, *asked]))


@dataclass
class Sums:
    """By breakdown's number, cell and outcome the sums of w, wy and the whole total, each coarse and fine: (6, 1 + R).

    `weights` are of the people of a cell with an answer to an outcome's columns: at most R rows.
    """

    sums: dict[tuple[int, Cell, str], Floats] = field(default_factory=dict)
    weights: dict[tuple[int, Cell, tuple[str, str | None]], Floats] = field(default_factory=dict)

    def add(self, other: "Sums") -> "Sums":
        for key, found in other.sums.items():
            self.sums[key] = self.sums[key] + found if key in self.sums else found
        for place, rows in other.weights.items():
            self.weights[place] = shorten(np.vstack([self.weights[place], rows])) if place in self.weights else rows
        return self


@dataclass(frozen=True)
class ReplicatePass:
    """The features files of a night, which have a row a person with `replicate_weights`, and what they were made by."""

    spark: SparkContext
    files: Sequence[Path]
    replication: Replication

    def add_up(
        self, outcomes: Sequence[Outcome], breakdowns: Sequence[Breakdown], totals: Sequence[Outcome] = ()
    ) -> Replicated:
        """The sums of every outcome in each cell, and the whole totals of those of them that are among `totals`.

        In a whole total those who answered stand for the others of their stratum, with each weight by itself.
        Raises ContractBroken for weights or answers that cannot be added up.
        """
        shares = {}
        if totals:
            strata = self._pass(Plan((EVERYBODY, *totals), (("stratum",),), self._choose_steps(totals), {}, False))
            shares = {outcome.name: _find_shares(strata, outcome.name) for outcome in totals}
        return self._pass(Plan(tuple(outcomes), tuple(breakdowns), self._choose_steps(outcomes), shares))

    def _choose_steps(self, outcomes: Sequence[Outcome]) -> Steps:
        return choose_steps(self.files, outcomes, ("weight", WEIGHTS))

    def _pass(self, plan: Plan) -> Replicated:
        items = deal_groups(self.files, ROWS_PER_TASK)
        if not plan.outcomes or not any(items):
            return {}
        total = self.spark.parallelize(items, len(items)).map(partial(_add_groups, plan=plan)).treeReduce(Sums.add)
        return name_sums(total, plan, self.replication)


def _find_shares(strata: Replicated, outcome: str) -> Shares:
    """As `linearisation.score_whole_total`: those of a stratum without answers are stood for by all who answered."""
    names = tuple(sorted(cell[0] for _, cell, name in strata if name == EVERYBODY.name))
    people, answered = (
        np.array([strata["stratum", (name,), which].sum_w for name in names]) for which in (EVERYBODY.name, outcome)
    )
    known = answered > 0
    whole = answered.sum(axis=0)
    orphans = np.where(known, 0.0, people).sum(axis=0) / np.where(whole > 0, whole, 1.0)
    return Shares(names, np.where(known, people / np.where(known, answered, 1.0), 0.0) + orphans)


def name_sums(total: Sums, plan: Plan, replication: Replication) -> Replicated:
    columns = {outcome.name: (outcome.source, outcome.also) for outcome in plan.outcomes}
    found = {}
    for (number, cell, outcome), parts in total.sums.items():
        w, wy, whole = parts[::2] + parts[1::2]
        whole = whole if outcome in plan.shares else wy
        rows = total.weights.get((number, cell, columns[outcome]), NOBODY)
        found[name_breakdown(plan.breakdowns[number]), cell, outcome] = ReplicateSums(w, wy, whole, rows, replication)
    return found


def shorten(rows: Floats) -> Floats:
    """At most R rows with the same products of columns."""
    return np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows


def _add_groups(groups: Groups, plan: Plan) -> Sums:
    total = Sums()
    for path, numbers in groups:
        with pq.ParquetFile(path) as file:
            for number in numbers:
                for people in _slice(file.read_row_group(number, plan.columns, use_threads=False)):
                    total.add(add_people(people, plan))
    return total


def _slice(people: pa.Table) -> Iterator[pa.Table]:
    people = people.filter(pc.greater(people["weight"], 0))
    if len(people):
        rows = max(1, VALUES_AT_ONCE // (1 + len(people[WEIGHTS][0])))
        yield from (people.slice(start, rows) for start in range(0, len(people), rows))


def add_people(people: pa.Table, plan: Plan) -> Sums:
    """The sums of some people, whose weight is above 0."""
    replicates = pc.list_flatten(people[WEIGHTS]).to_numpy().reshape(len(people), -1)
    weights = np.column_stack([people["weight"].to_numpy(), replicates])
    cohorts = [name for breakdown in plan.breakdowns for name in breakdown]
    coded = {name: encode_texts(people[name]) for name in dict.fromkeys(["stratum", *cohorts])}
    cells = [_find_cells(coded, breakdown, number) for number, breakdown in enumerate(plan.breakdowns)]
    total = Sums()
    parts = split_values(weights, plan.steps["sum_w"])
    for outcome in plan.outcomes:
        known, y = read_answers(people, outcome)
        y = np.where(known, y, 0.0)
        wy, whole, picked = parts, None, y == 1
        if outcome.cut is None:
            wy, picked = split_values(weights * y[:, None], plan.steps["sum_wy"]), known
        if outcome.name in plan.shares:
            whole = _stand_for(weights, coded["stratum"], plan.shares[outcome.name], plan.steps["sum_w"])
        for places, keys in cells:
            sums = [_sum(places, known, part) for part in parts] + [_sum(places, picked, part) for part in wy]
            sums += [_sum(places, picked, part) for part in whole] if whole else [np.zeros_like(sums[0])] * 2
            total.sums |= {(*key, outcome.name): found for key, found in zip(keys, np.stack(sums, 1), strict=True)}
            if plan.degrees:
                _keep_weights(total, replicates, known, places, keys, (outcome.source, outcome.also))
    return total


def _find_cells(
    coded: Mapping[str, Texts], breakdown: Breakdown, number: int
) -> tuple[csr_array, list[tuple[int, Cell]]]:
    """Who is in which cell, as a matrix (cells, people) of ones, and the cells' keys."""
    places, labels = group_people(coded, breakdown)
    columns = [labels[name].to_pylist() for name in breakdown]
    keys = [(number, cell) for cell in (zip(*columns, strict=True) if columns else [()])]
    inside = np.flatnonzero(places < len(keys))
    ones = np.ones(len(inside))
    return csr_array((ones, (places[inside], inside)), shape=(len(keys), len(places))), keys


def _sum(places: csr_array, picked: Flags, values: Floats) -> Floats:
    """The sums (cells, 1 + R) of the values (people, 1 + R) of those who are picked."""
    chosen = csr_array((places.data * picked[places.indices], places.indices, places.indptr), shape=places.shape)
    return np.asarray(chosen @ values)


def _stand_for(weights: Floats, strata: Texts, shares: Shares, steps: tuple[float, float]) -> tuple[Floats, Floats]:
    """What everybody stands for, with each weight, split on a grid that is as much wider as the factors are large."""
    codes, names = strata
    place = {name: number for number, name in enumerate(shares.strata)}
    factors = shares.factors[np.array([place[name] for name in names.to_pylist()])[codes]]
    wider = 2.0 ** math.frexp(max(1.0, float(shares.factors.max())))[1]
    return split_values(weights * factors, (steps[0] * wider, steps[1] * wider))


def _keep_weights(
    total: Sums,
    replicates: Floats,
    known: Flags,
    places: csr_array,
    keys: Sequence[tuple[int, Cell]],
    columns: tuple[str, str | None],
) -> None:
    for key, start, stop in zip(keys, places.indptr, places.indptr[1:], strict=False):
        people = places.indices[start:stop]
        if (*key, columns) not in total.weights:
            total.weights[*key, columns] = shorten(replicates[people[known[people]]])
