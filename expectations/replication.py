"""How replicate weights make a variance: the scales of each method, as R's `svrepdesign` has them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["BRR", "Fay", "JK1", "JKn", "bootstrap", "ACS", "successive-difference"]

# The first and the last of columns that are numbered, with zeros before the number or without: repwt1-repwt80.
RUN = re.compile(r"(?P<stem>[A-Za-z][A-Za-z0-9_]*?)(?P<first>[0-9]{1,4})-(?P=stem)(?P<last>[0-9]{1,4})")


@dataclass(frozen=True)
class Replication:
    """The variance: `scale` x the sum of `rscales` (R,) x squares about the replicates' mean (`mse`: the estimate)."""

    scale: float
    rscales: NDArray[np.float64]
    mse: bool = False


def choose_scales(
    method: Method,
    replicates: int,
    rho: float | None = None,
    scale: float | None = None,
    rscales: Sequence[float] | None = None,
    mse: bool = False,
) -> Replication:
    """The scales of a method with so many replicates; the bootstrap and JK1 take others, JKn needs its own `rscales`.

    Raises ValueError for scales that are missing, too many, or that the method does not have.
    """
    if replicates < 2:
        raise ValueError(f"{replicates} columns of replicate weights, at least 2 are needed")
    if (method == "Fay") != (rho is not None):
        raise ValueError("`rho` is needed for Fay's method, and for no other")
    if method not in ("JK1", "JKn", "bootstrap") and not (scale is None and rscales is None):
        raise ValueError(f"{method} has its own scale: leave out `scale` and `rscales`")
    if method == "JKn" and rscales is None:
        raise ValueError("JKn needs `rscales`, (m - 1) / m of each replicate's stratum")
    if rscales is not None and len(rscales) != replicates:
        raise ValueError(f"{len(rscales)} `rscales` for {replicates} columns of replicate weights: give one each")
    own = {
        "BRR": 1 / replicates,
        "Fay": 1 / (replicates * (1 - (rho or 0.0)) ** 2),
        "JK1": (replicates - 1) / replicates,
        "JKn": 1.0,
        "bootstrap": 1 / (replicates - 1),
    }
    given = own.get(method, 4 / replicates) if scale is None else scale
    return Replication(given, np.ones(replicates) if rscales is None else np.array(rscales, dtype=np.float64), mse)


def spread_run(entry: str) -> tuple[str, ...]:
    """The columns that an entry names: one, or those of a run, first to last.

    Raises ValueError for a run that does not rise.
    """
    if "-" not in entry:
        return (entry,)
    run = RUN.fullmatch(entry)
    if not run or int(run["first"]) >= int(run["last"]):
        raise ValueError(f"`columns`: {entry} is no run of numbered columns, such as repwt1-repwt80")
    numbers = range(int(run["first"]), int(run["last"]) + 1)
    return tuple(f"{run['stem']}{number:0{len(run['first'])}d}" for number in numbers)
