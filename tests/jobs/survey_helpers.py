"""Sums per PSU made by other means than Spark."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from expectations.outcomes import Outcome
from jobs.domain_sums import POWERS, Breakdown, Plan, add_people, name_rows
from jobs.survey import DomainSums


def sum_people(people: pd.DataFrame, outcome: str) -> DomainSums:
    """`DomainSums` of the people with a weight above zero; columns weight, stratum, psu and the outcome."""
    answered = people[(people["weight"] > 0) & people[outcome].notna()]
    w, y = answered["weight"], answered[outcome].astype(float)
    parts = answered[["stratum", "psu"]].assign(n=1, n_cases=(y == 1).astype(int), sum_w=w, sum_wy=w * y)
    summed = parts.assign(sum_wyy=w * y * y).groupby(["stratum", "psu"], sort=True).sum().reset_index()
    return DomainSums(**{name: summed[name].to_numpy() for name in summed.columns})


def sum_table(people: pd.DataFrame, outcomes: Sequence[Outcome], breakdowns: Sequence[Breakdown]) -> pa.Table:
    """The table of `domain_sums`; weights below 2^20, answers below 2^6, people below 2^9."""
    steps = {name: (2.0 ** (6 * power - 24), 2.0 ** (6 * power - 69)) for name, power in POWERS.items()}
    cohorts = tuple(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    plan = Plan(tuple(outcomes), tuple(breakdowns), cohorts, steps)
    return name_rows(add_people(pa.Table.from_pandas(people[plan.columns], preserve_index=False), plan), plan)
