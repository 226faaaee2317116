"""Cells of internal estimates that are of some people alone: what stands in them is what these people answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

CELLS = ("cohort_sums", "cohorts_internal")  # the tables whose rows are cells, with their people in `n`
OF_PSU = ("stratum", "psu")


def leave_out_cells(cells: pa.Table, people: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The cells that have others than these people, who are rows of features, and cells of nobody."""
    placed = [name for name in OF_PSU if name in cells.column_names]
    counted: dict[tuple[str, ...], Counter[tuple[Any, ...]]] = {}
    kept = []
    for cell in cells.to_pylist():
        names = (*(name for name in cell["breakdown"].split("*") if name != "all"), *placed)
        if names not in counted:
            counted[names] = Counter(tuple(person.get(name) for name in names) for person in people)
        kept.append(not 0 < (cell["n"] or 0) <= counted[names][tuple(cell[name] for name in names)])
    return cells.filter(pa.array(kept, pa.bool_()))
