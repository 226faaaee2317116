"""Sums per PSU made by other means than Spark."""

import pandas as pd

from jobs.survey import DomainSums


def sum_people(people: pd.DataFrame, outcome: str) -> DomainSums:
    """`DomainSums` of the people with a weight above zero; columns weight, stratum, psu and the outcome."""
    answered = people[(people["weight"] > 0) & people[outcome].notna()]
    w, y = answered["weight"], answered[outcome].astype(float)
    parts = answered[["stratum", "psu"]].assign(n=1, n_cases=(y == 1).astype(int), sum_w=w, sum_wy=w * y)
    summed = parts.assign(sum_wyy=w * y * y).groupby(["stratum", "psu"], sort=True).sum().reset_index()
    return DomainSums(**{name: summed[name].to_numpy() for name in summed.columns})
