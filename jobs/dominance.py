"""Dominance: cells of a magnitude table in which one or two people make up nearly all, so that its figure tells theirs.

A person's contribution is their weight times their answer. The rules are those of the disclosure literature (Hundepool
et al., Statistical Disclosure Control, 2012, 4.2): (n,k) with n = 2, and p-percent, by which the second largest
contributor must not be able to find the largest one's to within that share of it.
"""

from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

from expectations.outcomes import Outcome
from jobs.disclosure_profiles import Profile
from jobs.domain_sums import Breakdown
from jobs.movement import connect_duckdb
from jobs.survey import CellKey, CohortRow

DOMINATED = "withheld: one or two people make up nearly all of it"


def find_dominated(
    files: Sequence[Path],
    breakdowns: Sequence[Breakdown],
    outcomes: Sequence[Outcome],
    profile: Profile,
    scratch: Path,
) -> set[CellKey]:
    """The cells whose mean may not be told, of the means of scales; none where the profile has no such rule.

    The Parquet `files` have a row a person, with `weight`, the cohorts and the outcomes' sources.
    """
    means = [outcome for outcome in outcomes if outcome.kind == "mean" and not outcome.latent]
    if profile.dominance_share is None or not means:
        return set()
    found = set[CellKey]()
    with connect_duckdb(scratch) as connection:
        people = connection.read_parquet([str(file) for file in files], hive_partitioning=False).filter("weight > 0")
        for breakdown in breakdowns:
            cohorts = [f'"{name}"' for name in breakdown]
            given = [f'weight * abs("{outcome.source}")' for outcome in means]
            asked = [f"max({one}, 2), sum({one})" for one in given]
            for row in people.aggregate(", ".join([*cohorts, *asked]), ", ".join(cohorts)).fetchall():
                cell, rest = row[: len(breakdown)], row[len(breakdown) :]
                for outcome, largest, total in zip(means, rest[::2], rest[1::2], strict=True):
                    if None not in cell and _is_dominated(largest or [], total or 0.0, profile):
                        found.add((breakdown, cell, outcome.name))
    return found


def mark_dominated(rows: Sequence[CohortRow], dominated: Set[CellKey]) -> list[CohortRow]:
    """The rows, means of these cells marked."""
    chosen = [row.figures.kind == "mean" and row.place in dominated for row in rows]
    return [replace(row, telling=DOMINATED) if one else row for row, one in zip(rows, chosen, strict=True)]


def _is_dominated(largest: Sequence[float], total: float, profile: Profile) -> bool:
    """Whether the two largest are too much of the total, or the others too little beside the largest."""
    if not total:
        return False  # everybody has none of it, which dominates nothing
    rest = total - sum(largest)
    share, ratio = profile.dominance_share, profile.p_ratio
    return (share is not None and sum(largest) > share * total) or (ratio is not None and rest < ratio * largest[0])
