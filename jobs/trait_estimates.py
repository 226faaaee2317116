"""Estimates of traits' means from sums of plausible values: a design-based one of each value, then Rubin's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from expectations.replication import Replication
from jobs.imputation import combine
from jobs.plausible_sums import Breakdown, PlausibleSums, Sums, name_cell
from jobs.presentation import judge_mean, t_interval
from jobs.survey import CohortRow, DomainSums, Estimate, LonelyPsu, estimate_domain

if TYPE_CHECKING:
    from model.conditioning import Conditioning

Floats = NDArray[np.float64]

MEAN = "_mean"


def estimate_traits(
    sums: PlausibleSums,
    conditioning: "Conditioning",
    strata: Mapping[str, str],
    breakdowns: Sequence[Breakdown],
    traits: Sequence[str],
    design_sizes: Mapping[str, int],
    lonely_psu: LonelyPsu = "fail",
    replication: Replication | None = None,
) -> list[CohortRow]:
    """`<trait>_mean` for every cell that has people; `strata` gives each PSU's, `design_sizes` PSUs of each stratum.

    Of sums with replicate weights the variance is theirs, by how they were made (`replication`).
    """
    names = np.array(conditioning.psus)
    homes = np.array([strata[psu] for psu in conditioning.psus])
    rows = []
    for place, (breakdown, found) in enumerate(zip(breakdowns, sums.domains, strict=True)):
        cells, psus = np.divmod(found.keys, len(names))
        for cell in np.unique(cells):
            inside = cells == cell
            domain = Sums(psus[inside], found.rows[inside])
            levels = name_cell(conditioning, breakdown, int(cell))
            for number, trait in enumerate(traits):
                values = split_values(domain, homes[psus[inside]], names[psus[inside]], len(traits), number)
                if sums.replicated and replication:
                    parts = sums.replicated.split((place, int(cell)), len(traits), number, replication)
                    values = [replace(one, replicates=part) for one, part in zip(values, parts, strict=True)]
                figures = combine_values([estimate_domain(v, design_sizes, "mean", lonely_psu) for v in values])
                rows.append(CohortRow(breakdown, levels, trait + MEAN, figures))
    return rows


def split_values(
    domain: Sums, stratum: NDArray[np.str_], psu: NDArray[np.str_], traits: int, trait: int
) -> list[DomainSums]:
    """The sums per PSU of each plausible value of a trait, as those of an outcome."""
    people = domain.rows[:, 0].astype(np.int64)
    weighted = domain.rows[:, 2 + traits :].reshape(len(people), -1, traits)[:, :, trait]
    return [
        DomainSums(stratum, psu, people, np.zeros_like(people), domain.rows[:, 1], wy, domain.rows[:, 2 + trait])
        for wy in weighted.T
    ]


def combine_values(figures: Sequence[Estimate]) -> Estimate:
    """One figure of those of all plausible values; df is Barnard and Rubin's rounded down, but 1 at least.

    The design effect is that of the values, times what not knowing the traits adds to the variance.
    """
    first = figures[0]
    estimates = [figure.estimate for figure in figures if figure.estimate is not None]
    if first.se is None or first.df is None or first.estimate is None:
        mean = float(np.mean(estimates)) if estimates else None
        return replace(first, estimate=mean, n_cases=None)
    errors = [figure.se or 0.0 for figure in figures]
    found = combine(estimates, [error**2 for error in errors], first.df)
    df = max(1, int(found.df)) if first.df > 0 else 0
    low, high = t_interval(found.estimate, found.se, df) if df else (None, None)
    presentation, reason = judge_mean(found.estimate, found.se, first.n or 0, df, signed=True)
    effects = [figure.deff for figure in figures if figure.deff is not None]
    within = float(np.mean(np.square(errors)))
    grown = found.se**2 / within if within > 0 else None
    return replace(
        first,
        n_cases=None,
        estimate=found.estimate,
        se=found.se,
        df=df,
        ci_low=low,
        ci_high=high,
        ci_method="t",
        deff=float(np.mean(effects)) * grown if effects and grown is not None else None,
        presentation=presentation,
        reason="no degrees of freedom, so no interval" if df == 0 else reason,
    )
