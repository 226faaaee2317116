"""Weighting-class adjustment: eligible people of whom no row was accepted are stood for by those of their stratum.

A person is lost whose rows all broke a rule. Their weight goes to the accepted people of the stratum, in proportion to
theirs; who has no usable weight counts with the stratum's mean weight, and who has no stratum, or one without accepted
people, is stood for by everybody. Without it totals are too low (Kalton and Flores-Cervantes 2003).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from expectations.errors import ContractBroken

WHOLE = "all"  # the one stratum of an extract that has none


@dataclass(frozen=True)
class Class:
    """People of one stratum, and sums of their delivered weights; `unweighted` are lost people without a usable one."""

    kept: int = 0
    kept_weight: float = 0.0
    lost: int = 0
    lost_weight: float = 0.0
    unweighted: int = 0

    def __add__(self, other: "Class") -> "Class":
        return Class(*(one + two for one, two in zip(asdict(self).values(), asdict(other).values(), strict=True)))


Classes = dict[str | None, Class]  # by stratum; None = people without one


def count_classes(judged: pa.Table, weight: str, stratum: str | None, kept: str, lost: str) -> Classes:
    """The classes of judged rows that hold all rows of their people; `kept` and `lost` are the fates that count.

    All are of one class, WHOLE, where the extract has no strata.
    Of a lost person's rows the first with a usable weight speaks; the fields of a malformed row say nothing.
    """
    strata = judged[stratum].cast(pa.string()).combine_chunks() if stratum else pa.repeat(WHOLE, len(judged))
    places = strata.dictionary_encode()
    names: list[str | None] = [*places.dictionary.to_pylist(), None]
    place = places.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    weights = judged[weight].fill_null(math.nan).to_numpy()
    broken = judged["malformed"].fill_null(False).to_numpy()
    people = judged["person_id"].combine_chunks().dictionary_encode()
    person = people.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    is_kept, is_lost = (pc.equal(judged["fate"], fate).to_numpy() for fate in (kept, lost))
    is_lost &= ~np.isin(person, person[is_kept & (person >= 0)])
    usable = is_lost & ~broken & (place < len(names) - 1) & np.isfinite(weights) & (weights >= 0)
    rows = np.flatnonzero(is_lost)
    rows = rows[np.lexsort((~usable[rows], person[rows]))]
    first = np.append(True, person[rows][1:] != person[rows][:-1])[: len(rows)] | (person[rows] < 0)
    rows = rows[first]
    place = np.where(broken, len(names) - 1, place)

    def add(chosen: Any, values: Any = None) -> Any:
        return np.bincount(place[chosen], None if values is None else values[chosen], len(names))

    sums = (add(is_kept), add(is_kept, weights), add(rows), add(rows[usable[rows]], weights), add(rows[~usable[rows]]))
    found = zip(*(column.tolist() for column in sums), strict=True)
    return {name: Class(*row) for name, row in zip(names, found, strict=True) if row[0] or row[2]}


def add_classes(parts: Iterable[Classes]) -> Classes:
    """All classes, by name; None last."""
    total: Classes = {}
    for part in parts:
        for name, found in part.items():
            total[name] = total.get(name, Class()) + found
    return dict(sorted(total.items(), key=lambda pair: (pair[0] is None, pair[0] or "")))


def find_factors(classes: Mapping[str | None, Class]) -> dict[str, float]:
    """For each stratum with accepted people what their weights are multiplied by, 1 where nobody is lost.

    Raises ContractBroken where weights are too large to be added up, or all are 0.
    """
    holding = {name: found for name, found in classes.items() if name is not None and found.kept_weight > 0}
    if not holding:
        raise ContractBroken("no accepted row has a weight above 0: nobody can be estimated from")
    factors = {name: 1 + _lost_weight(found, found) / found.kept_weight for name, found in holding.items()}
    everybody = sum(holding.values(), Class())
    unplaced = math.fsum(_lost_weight(found, everybody) for name, found in classes.items() if name not in holding)
    whole = 1 + unplaced / math.fsum(factors[name] * found.kept_weight for name, found in holding.items())
    if not all(math.isfinite(factor * whole) for factor in factors.values()):
        raise ContractBroken("the weights are too large to be added up: have the extract corrected")
    return {name: factor * whole for name, factor in factors.items()}


def report_factors(classes: Mapping[str | None, Class], factors: Mapping[str, float]) -> dict[str, Any]:
    """For the stage's record."""
    return {
        "classes": len(factors),
        "classes_adjusted": sum(factor > 1 for factor in factors.values()),
        "least_factor": min(factors.values()),
        "largest_factor": max(factors.values()),
        "lost_people": sum(found.lost for found in classes.values()),
        "lost_people_without_class": sum(found.lost for name, found in classes.items() if name not in factors),
    }


def response_rates(classes: Mapping[str | None, Class]) -> tuple[int, int, float, float]:
    """Accepted people, eligible people, and the weights of both; unrounded."""
    everybody = sum(classes.values(), Class())
    lost = math.fsum(_lost_weight(found, everybody) for found in classes.values())
    return everybody.kept, everybody.kept + everybody.lost, everybody.kept_weight, everybody.kept_weight + lost


def classes_to_json(classes: Mapping[str | None, Class]) -> list[dict[str, Any]]:
    return [{"stratum": name, **asdict(found)} for name, found in classes.items()]


def classes_from_json(rows: Iterable[Mapping[str, Any]]) -> Classes:
    return {row["stratum"]: Class(**{name: row[name] for name in row if name != "stratum"}) for row in rows}


def _lost_weight(found: Class, typical: Class) -> float:
    """What the lost people stand for, those without a weight by the mean one of `typical`."""
    mean = typical.kept_weight / typical.kept if typical.kept else 0.0
    return found.lost_weight + found.unweighted * mean
