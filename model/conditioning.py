"""What a latent regression conditions on: every published cell, the PSU, and the weight.

A person's row of effects is a sum: an intercept, one of each cohort's and of each breakdown's cell (who has no level
of a cohort has a level of its own), the slope on the log weight, and the PSU's. Shapes: N people, Q effects of the
regression, P PSUs, K effects that a person has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.errors import ModelError

FARTHEST = 4.0  # sds of a log weight: beyond it a slope says nothing

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Terms:
    """What some people (N) condition on: which effects of the regression (N, K), log weight and PSU (N)."""

    effects: Integers
    log_weight: Floats  # standardised
    psu: Integers


@dataclass(frozen=True)
class Conditioning:
    """`cells` are cohorts, and groups of cohorts that are crossed; `levels` those of each cohort.

    `weight_mean` and `weight_sd` are of the log weight.
    """

    cells: tuple[tuple[str, ...], ...]
    levels: Mapping[str, tuple[str, ...]]
    psus: tuple[str, ...]
    weight_mean: float
    weight_sd: float

    @property
    def columns(self) -> list[str]:
        return [*self.levels, "psu", "weight"]

    @cached_property
    def starts(self) -> list[int]:
        """The first effect of each of `cells`; the intercept is effect 0, and the last start is the log weight's."""
        sizes = [prod(len(self.levels[name]) + 1 for name in cell) for cell in self.cells]
        return [1 + sum(sizes[:place]) for place in range(len(sizes) + 1)]

    @property
    def size(self) -> int:
        """Q."""
        return self.starts[-1] + 1

    def read(self, people: pa.Table) -> Terms:
        """Raises ModelError for people without a PSU, or with one that the design lacks."""
        coded = {name: _place(people[name], levels) for name, levels in self.levels.items()}
        effects = np.zeros((len(people), 1 + len(self.cells)), dtype=np.int64)
        for number, (cell, start) in enumerate(zip(self.cells, self.starts, strict=False)):
            place = np.zeros(len(people), dtype=np.int64)
            for name in cell:
                place = place * (len(self.levels[name]) + 1) + coded[name]
            effects[:, 1 + number] = start + place
        psu = _place(people["psu"], self.psus)
        if (lost := int((psu == len(self.psus)).sum())) > 0:
            raise ModelError(f"{lost:,} people with a weight are in no PSU of the design: give them one.")
        log_weight = np.log(people["weight"].to_numpy()) - self.weight_mean
        scaled = (log_weight / self.weight_sd).clip(-FARTHEST, FARTHEST) if self.weight_sd > 0 else 0.0 * log_weight
        return Terms(effects, scaled, psu)


def _place(column: pa.ChunkedArray, levels: Sequence[str]) -> Integers:
    """The position of every text among the levels, and after the last for null and what is none of them."""
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(levels, pa.string()))
    return np.asarray(found.fill_null(len(levels)).to_numpy(), dtype=np.int64)


def condition_on(
    breakdowns: Sequence[Sequence[str]], levels: Mapping[str, Sequence[str]], psus: Sequence[str], weights: Floats
) -> Conditioning:
    """The conditioning of the breakdowns' cells; `weights` (N), all above zero, place the log weight."""
    names = list(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    crossed = [tuple(breakdown) for breakdown in breakdowns if len(breakdown) > 1]
    logs = np.log(weights)
    return Conditioning(
        cells=(*((name,) for name in names), *crossed),
        levels={name: tuple(levels[name]) for name in names},
        psus=tuple(psus),
        weight_mean=float(logs.mean()),
        weight_sd=float(logs.std()) if np.ptp(logs) > 0 else 0.0,
    )
