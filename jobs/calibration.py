"""Weights that meet known margins of the population: raking, with bounds on what it may do to a weight.

People who are alike in all margins get the same factor, so cells take the place of people. The factors are those of
R's `calibrate(calfun = "raking")`, and without bounds those at which `rake` settles: clip(exp(x b), low, high) with
x the cell's margins and b such that the weights meet them (Deville, Särndal and Sautory 1993).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from expectations.errors import ContractBroken

Floats = NDArray[np.float64]
Margins = Mapping[str, Mapping[str, float]]  # cohort -> group -> people in the population
Bounds = tuple[float, float]

CLOSE = 1e-10  # largest relative miss of a margin, to stop at
MET = 1e-6  # largest that is still called met
SAME_PEOPLE = 1e-3  # by which the totals of two margins may differ
MOST_ROUNDS = 100
AT_A_BOUND = 1e-3  # how much a cell whose factor does not move counts in a step, so that no direction is lost


@dataclass(frozen=True)
class Raking:
    """A factor for each cell, and how it was found: rounds, and the largest relative miss of a margin."""

    factors: Floats
    rounds: int
    largest_miss: float

    def report(self, weights: Floats) -> dict[str, float]:
        """For the stage's record; `deff` is what unequal factors alone do to a variance (Kish)."""
        held = weights > 0
        factors, weights = self.factors[held], weights[held]
        mean = math.fsum(weights * factors) / math.fsum(weights)
        squares = math.fsum(weights * factors**2) / math.fsum(weights)
        return {
            "rounds": self.rounds,
            "largest_miss": self.largest_miss,
            "least_factor": float(factors.min()),
            "largest_factor": float(factors.max()),
            "deff": squares / mean**2,
        }


def rake_cells(
    cells: Sequence[Mapping[str, str | None]], weights: Floats, margins: Margins, bounds: Bounds = (0.0, math.inf)
) -> Raking:
    """The factors by which the cells' weights meet all margins.

    A cell has the group of each cohort; `weights` (cells,) are the sums of its people's. Margins whose totals differ by
    rounding are brought to the first one's. Raises ContractBroken that names cohort and group: people outside the
    margin, a margin without people, margins of different populations, and margins that the bounds keep from being met.
    """
    names, inside, wanted = _read_margins(cells, weights, margins)
    population = math.fsum(next(iter(margins.values())).values())
    start = math.log(population / math.fsum(weights))
    slopes = np.zeros(len(names))
    slopes[: len(next(iter(margins.values())))] = start  # everybody is in one group of the first margin
    rounds, miss = 0, math.inf
    while rounds < MOST_ROUNDS:
        factors = _read_factors(inside, slopes, bounds)
        short = wanted - inside.T @ (weights * factors)
        miss = float(np.max(np.abs(short) / wanted))
        if miss <= CLOSE:
            break
        held = np.where((factors > bounds[0]) & (factors < bounds[1]), 1.0, AT_A_BOUND)
        step = _find_step(inside, weights * factors * held, short)
        slopes, improved = _search_line(inside, weights, wanted, slopes, step, bounds)
        rounds += 1
        if not improved:
            break
    factors = _read_factors(inside, slopes, bounds)
    short = wanted - inside.T @ (weights * factors)
    misses = np.abs(short) / wanted
    worst = int(np.argmax(misses))
    if misses[worst] > MET:
        cohort, group = names[worst]
        reached = wanted[worst] - short[worst]
        limits = "" if bounds == (0.0, math.inf) else f" with factors of {bounds[0]:g} to {bounds[1]:g}"
        raise ContractBroken(
            f"the margins cannot be met{limits}: {cohort} = {group} comes to {reached:,.0f} people of "
            f"{wanted[worst]:,.0f} after {rounds} rounds: widen `margins.bounds`, or join groups"
        )
    return Raking(factors, rounds, float(misses[worst]))


def _read_margins(
    cells: Sequence[Mapping[str, str | None]], weights: Floats, margins: Margins
) -> tuple[list[tuple[str, str]], Floats, Floats]:
    """The margins' names (K,), whether each cell is in each (cells, K), and the people wanted in each (K,)."""
    names = [(cohort, group) for cohort, groups in margins.items() for group in groups]
    inside = np.array([[float(cell[cohort] == group) for cohort, group in names] for cell in cells])
    people = inside.T @ weights
    for (cohort, group), held in zip(names, people, strict=True):
        if not held > 0:
            raise ContractBroken(
                f"nobody is in {cohort} = {group}, for which `margins` has a count: join it to another"
            )
    population, first = 0.0, ""
    for cohort, groups in margins.items():
        strange = sorted({str(cell[cohort]) for cell, w in zip(cells, weights, strict=True) if w > 0} - set(groups))
        if strange:
            words = "people of no group" if strange == ["None"] else f"people in {cohort} = {strange[-1]}"
            raise ContractBroken(f"there are {words} for whom `margins` has no count of {cohort}: give one")
        total = math.fsum(groups.values())
        population, first = population or total, first or cohort
        if abs(total / population - 1) > SAME_PEOPLE:
            raise ContractBroken(
                f"the margins of {first} and {cohort} are of {population:,.0f} and {total:,.0f} people: "
                "they must be of the same population"
            )
    totals = {cohort: math.fsum(groups.values()) for cohort, groups in margins.items()}
    wanted = [margins[cohort][group] * population / totals[cohort] for cohort, group in names]
    return names, inside, np.array(wanted, dtype=np.float64)


def _read_factors(inside: Floats, slopes: Floats, bounds: Bounds) -> Floats:
    return np.clip(np.exp(np.minimum(inside @ slopes, 700.0)), *bounds)


def _find_step(inside: Floats, weights: Floats, short: Floats) -> Floats:
    """Newton's, of least length, since margins of one population hang together."""
    return np.asarray(np.linalg.lstsq(inside.T @ (weights[:, None] * inside), short, rcond=1e-12)[0])


def _search_line(
    inside: Floats, weights: Floats, wanted: Floats, slopes: Floats, step: Floats, bounds: Bounds
) -> tuple[Floats, bool]:
    """The slopes after a step that is halved until the dual's slope along it has not turned round."""

    def ahead(share: float) -> float:
        factors = _read_factors(inside, slopes + share * step, bounds)
        return float(step @ (wanted - inside.T @ (weights * factors)))

    before, share = ahead(0.0), 1.0
    while share > 1e-6 and abs(ahead(share)) > before:
        share /= 2
    return slopes + share * step, before > 0
