"""One pass over people that draws their plausible values and keeps their sums alone.

Spark deals out row groups; a worker draws in torch and adds up in NumPy, so plausible values are never written. As in
`jobs.domain_sums`, what is added up lies on fixed binary grids, wide enough that no sum of doubles rounds: neither the
order of rows nor their partitions can change a digit.
Shapes: N people, M values, T traits, B bins, G groups of people.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray
from pyspark import SparkContext

from jobs.replicate_sums import WEIGHTS
from jobs.replicated_traits import TraitSums, add_replicates
from jobs.work_items import Groups, deal_groups, load_scorer

if TYPE_CHECKING:
    from model.conditioning import Conditioning
    from model.plausible import Imputer, PlausibleValues

ROWS_PER_TASK = 500_000
ROWS_AT_ONCE = 32_768  # of them: their values and bins are what a worker holds
MANTISSA_BITS = 53
EDGES = np.arange(-3.0, 3.5, 0.5)  # of the bins, in reference sds; the first and the last bin are open

Breakdown = tuple[str, ...]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """What a worker needs; `steps` are the grids of weights times 1, a value, its square, and counts of values.

    `grids` are those of replicate weights, where the features have some.
    """

    imputer: "Imputer"
    breakdowns: tuple[Breakdown, ...]
    model: str
    steps: tuple[float, float, float, float]
    grids: tuple[float, float] | None = None

    @property
    def columns(self) -> list[str]:
        return [*self.imputer.conditioning.columns, *([WEIGHTS] if self.grids else [])]


@dataclass(frozen=True)
class Sums:
    """Sums of the people of G groups, named by rising `keys` (G): a row (columns) of each."""

    keys: Integers
    rows: Floats

    def add(self, other: "Sums") -> "Sums":
        keys, places = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        rows = np.zeros((len(keys), self.rows.shape[1]))
        np.add.at(rows, places, np.concatenate([self.rows, other.rows]))
        return Sums(keys, rows)


@dataclass(frozen=True)
class PlausibleSums:
    """Sums over people with a weight, and how many effective draws they have.

    `domains` has for each breakdown the groups of a cell and a PSU (key: cell x PSUs + PSU); columns: people, weight,
    weighted squares of each trait (T, mean of its M values), weighted values (M T, traits within values).
    `bins` has for everybody and each breakdown by one cohort the cells; columns: weighted counts of values (T B).
    """

    domains: tuple[Sums, ...]
    bins: tuple[Sums, ...]
    effective: Integers  # people by halves of an effective draw
    replicated: TraitSums | None = None

    def add(self, other: "PlausibleSums") -> "PlausibleSums":
        domains, bins = (
            tuple(one.add(two) for one, two in zip(mine, theirs, strict=True))
            for mine, theirs in ((self.domains, other.domains), (self.bins, other.bins))
        )
        replicated = self.replicated.add(other.replicated) if self.replicated and other.replicated else None
        return PlausibleSums(domains, bins, self.effective + other.effective, replicated)


def has_bins(breakdown: Breakdown) -> bool:
    return len(breakdown) < 2


def choose_steps(largest_weight: float, people: int, values: int) -> tuple[float, float, float, float]:
    """Grids on which sums of so many people are exact."""
    from model.plausible import FARTHEST

    bits = max(1, people).bit_length()
    sizes = (1.0, FARTHEST, FARTHEST**2, float(values))
    first, second, third, last = (
        2.0 ** (math.frexp(largest_weight * size)[1] + bits - MANTISSA_BITS) for size in sizes
    )
    return first, second, third, last


def add_up(spark: SparkContext, files: Sequence[Path], plan: Plan) -> PlausibleSums:
    """Sums of everybody in features files whose weight is above zero; some must be there."""
    items = deal_groups(files, ROWS_PER_TASK)
    found: PlausibleSums = spark.parallelize(items, len(items)).map(partial(add_groups, plan=plan)).treeReduce(_add)
    return found


def _add(one: PlausibleSums, other: PlausibleSums) -> PlausibleSums:
    return one.add(other)


def add_groups(groups: Groups, plan: Plan) -> PlausibleSums:
    """The sums of a work item's people, some at a time."""
    from model.arithmetic import EXACT
    from model.plausible import EffectiveDraws
    from model.rewriting import Piece, read_people
    from model.spec import PERSON

    network = load_scorer(plan.model, EXACT).model.network
    pieces = [Piece(Path(path), numbers) for path, numbers in groups]
    total: PlausibleSums | None = None
    for read in read_people(pieces, network.spec, [PERSON, *plan.columns], ROWS_AT_ONCE):
        people = read.filter(pc.greater(read["weight"], 0))
        drawn = plan.imputer.draw(network, people)
        effective = EffectiveDraws.of([drawn.effective]).counts
        part = add_people(people, drawn, plan, effective)
        total = part if total is None else total.add(part)
    assert total is not None  # a work item has people
    return total


def add_people(people: pa.Table, drawn: "PlausibleValues", plan: Plan, effective: Integers) -> PlausibleSums:
    conditioning = plan.imputer.conditioning
    weight = people["weight"].cast(pa.float64()).to_numpy()
    terms = conditioning.read(people)
    values = drawn.values.astype(np.float64)
    on_weight, on_value, on_square, on_count = plan.steps
    columns = [
        np.ones((len(weight), 1)),
        _round(weight, on_weight)[:, None],
        _round(weight[:, None] * np.square(values).mean(axis=1), on_square),
        _round(weight[:, None] * values.reshape(len(weight), math.prod(values.shape[1:])), on_value),
    ]
    measured = np.concatenate(columns, axis=1)
    counted = count_bins(drawn.values) * _round(weight, on_count)[:, None]
    domains, bins = [], []
    cells = [find_cells(conditioning, breakdown, terms.effects) for breakdown in plan.breakdowns]
    for breakdown, cell in zip(plan.breakdowns, cells, strict=True):
        domains.append(_sum_by(np.where(cell < 0, -1, cell * len(conditioning.psus) + terms.psu), measured))
        if has_bins(breakdown):
            bins.append(_sum_by(cell, counted))
    replicated = add_replicates(people, drawn.values, cells, plan.grids) if plan.grids else None
    return PlausibleSums(tuple(domains), tuple(bins), effective, replicated)


def _round(values: Floats, step: float) -> Floats:
    return np.rint(values / step) * step


def count_bins(values: NDArray[np.float32]) -> Floats:
    """How many of a person's values lie in each bin of each trait: (N, T B) from (N, M, T)."""
    place = np.searchsorted(EDGES.astype(np.float32), values, side="right").astype(np.int8)
    counts = [(place == position).sum(axis=1, dtype=np.int8) for position in range(len(EDGES) + 1)]
    return np.stack(counts, axis=2).reshape(len(values), -1).astype(np.float64)


def find_cells(conditioning: "Conditioning", breakdown: Breakdown, effects: Integers) -> Integers:
    """The number of everybody's cell (N), -1 for who has no level of one of the cohorts."""
    if not breakdown:
        return np.zeros(len(effects), dtype=np.int64)
    place = conditioning.cells.index(breakdown)
    cell = effects[:, 1 + place] - conditioning.starts[place]
    inside, rest = np.ones(len(cell), dtype=bool), cell
    for name in reversed(breakdown):
        size = len(conditioning.levels[name])
        rest, level = np.divmod(rest, size + 1)
        inside &= level < size
    return np.where(inside, cell, -1)


def name_cell(conditioning: "Conditioning", breakdown: Breakdown, cell: int) -> tuple[str, ...]:
    """The levels of a cell that `find_cells` numbered."""
    names = []
    for name in reversed(breakdown):
        levels = conditioning.levels[name]
        cell, level = divmod(cell, len(levels) + 1)
        names.append(levels[level])
    return tuple(reversed(names))


def _sum_by(groups: Integers, measured: Floats) -> Sums:
    """Sums of everybody's columns by group; who is in group -1 is in none."""
    kept = groups >= 0
    keys, places = np.unique(groups[kept], return_inverse=True)
    members = sp.csr_array((np.ones(len(places)), (places, np.flatnonzero(kept))), shape=(len(keys), len(groups)))
    return Sums(keys, np.asarray(members @ measured))
