"""Strata and PSUs of a synthetic extract: the survey's under new names, none of too few people."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jobs.errors import StageError
from model.cells import SMALLEST, Integers

FEWEST_PSUS = 2  # of a stratum


def join_psus(
    strata: npt.NDArray[np.str_], psus: npt.NDArray[np.str_], random: np.random.Generator
) -> tuple[Integers, Integers]:
    """The number of each person's (N) PSU, and the stratum of each PSU, both in a random order.

    PSUs of fewer than SMALLEST people are joined within their stratum, and strata of as few or with one PSU among
    themselves.
    Raises StageError where that leaves no stratum with two PSUs.
    """
    _, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    place = join_small(sizes.tolist(), SMALLEST)[place]
    units = np.zeros_like(place)
    homes: list[int] = []
    for number in range(int(place.max()) + 1):
        here = place == number
        _, unit, sizes = np.unique(psus[here], return_inverse=True, return_counts=True)
        joined = join_small(sizes.tolist(), SMALLEST)
        units[here] = len(homes) + joined[unit]
        homes += [number] * (int(joined.max()) + 1)
    if len(homes) < FEWEST_PSUS:
        raise StageError(f"there are too few people: a synthetic extract needs two PSUs of {SMALLEST}")
    home = join_small(np.bincount(homes).tolist(), FEWEST_PSUS)[homes]
    order, order_of_strata = random.permutation(len(homes)), random.permutation(int(home.max()) + 1)
    renamed = np.empty_like(home)
    renamed[order] = order_of_strata[home]
    return order[units], renamed


def join_small(sizes: Sequence[int], least: int) -> Integers:
    """A group for each size, neighbours joined until the group has `least`; what is left goes to the last group."""
    groups, group, held = [], 0, 0
    for size in sizes:
        if held >= least:
            group, held = group + 1, 0
        groups.append(group)
        held += size
    if held < least and group:
        groups = [min(one, group - 1) for one in groups]
    return np.array(groups, dtype=np.int64)
