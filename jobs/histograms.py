"""Weighted distributions of scale totals by cell, of which quantiles are read; nobody is told apart in them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import SparkContext

from jobs.domain_sums import ROWS_PER_TASK, Breakdown, find_largest, name_breakdown
from jobs.work_items import Groups, deal_groups

Distribution = tuple[NDArray[np.float64], NDArray[np.float64]]  # rising values, and the weight of each
Histograms = Mapping[tuple[str, tuple[str, ...], str], Distribution]  # by breakdown, cell and source

# Weights are counted as whole numbers of this part of the largest one: then no order of adding can change a digit, and
# 10^8 people's weights can be added.
UNIT_BITS = 36


def find_histograms(
    spark: SparkContext, files: Sequence[Path], sources: Sequence[str], breakdowns: Sequence[Breakdown]
) -> dict[tuple[str, tuple[str, ...], str], Distribution]:
    """The weight of the people with each value of each source, by breakdown cell.

    The Parquet `files` have a row a person: `weight`, the cohorts (strings) and the sources (numbers, null where there
    is no answer). Weights are taken to 2^-36 of the largest one.
    """
    items = deal_groups(files, ROWS_PER_TASK)
    if not sources or not any(items):
        return {}
    unit = 2.0 ** (math.frexp(find_largest(files, [pq.read_metadata(file) for file in files], "weight"))[1] - UNIT_BITS)
    add = partial(_add_groups, sources=tuple(sources), breakdowns=tuple(breakdowns), unit=unit)
    counted = spark.parallelize(items, len(items)).map(add).treeReduce(add_histograms)
    return {
        (name_breakdown(breakdowns[number]), cell, sources[source]): distribution
        for (number, source), table in counted.items()
        for cell, distribution in _split_cells(table, unit)
    }


Counted = dict[tuple[int, int], pa.Table]  # by breakdown and source: cells' levels, value, units


def add_histograms(one: Counted, other: Counted) -> Counted:
    """The distributions of all people of two, no person in both."""
    return {key: _sum_units(pa.concat_tables([one[key], other[key]])) for key in one}


def _add_groups(groups: Groups, sources: tuple[str, ...], breakdowns: tuple[Breakdown, ...], unit: float) -> Counted:
    cohorts = list(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    parts = []
    for path, numbers in groups:
        with pq.ParquetFile(path) as file:
            parts.append(file.read_row_groups(list(numbers), [*cohorts, "weight", *sources], use_threads=False))
    people = pa.concat_tables(parts)
    people = people.filter(pc.greater(people["weight"], 0))
    units = pc.cast(pc.round(pc.divide(people["weight"], unit)), pa.int64())
    counted = {}
    for number, breakdown in enumerate(breakdowns):
        for place, source in enumerate(sources):
            columns = [people[name] for name in breakdown]
            values = people[source].cast(pa.float64())
            named = [f"c{i}" for i in range(len(breakdown))]
            table = pa.table([*columns, values, units], [*named, "value", "units"])
            counted[number, place] = _sum_units(table.drop_null())
    return counted


def _sum_units(table: pa.Table) -> pa.Table:
    keys = table.column_names[:-1]
    return table.group_by(keys).aggregate([("units", "sum")]).rename_columns([*keys, "units"])


def _split_cells(table: pa.Table, unit: float) -> Iterator[tuple[tuple[str, ...], Distribution]]:
    levels = table.column_names[:-2]
    cells: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for row in table.to_pylist():
        cells.setdefault(tuple(row[name] for name in levels), []).append((row["value"], row["units"] * unit))
    for cell, found in sorted(cells.items()):
        values, weights = np.array(sorted(found)).T
        yield cell, (values, weights)
