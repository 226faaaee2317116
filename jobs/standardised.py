"""Standardised means and proportions: what each cell would have with the standard population's groups.

Each group of a cell is estimated by itself, and the groups are weighted as the standard population is (direct
standardisation, as R's svystandardize; people whose group is not known are left out).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from expectations.codebook_parts import Standard
from expectations.outcomes import Outcome
from jobs.domain_sums import Breakdown, name_breakdown, split_breakdown
from jobs.estimates import Cell, Survey, split_domains
from jobs.kinds import NO_DF, Sizes, leave_out, place_sums
from jobs.linearisation import score_standardised
from jobs.presentation import judge_mean, judge_proportion, korn_graubard, standardised_effective_n, t_interval
from jobs.replicates import vary_standardised
from jobs.survey import (
    CellKey,
    CohortRow,
    DomainSums,
    Estimate,
    LonelyPsu,
    explain_no_variance,
    keep_answered,
    sum_variance,
)

EMPTY_GROUP = "nobody in a group of the standard population answered"


@dataclass(frozen=True)
class Groups:
    """Of which cells standardised figures are made.

    `crossed` has, for each breakdown without the standard's cohort, the one with it; `unpublished` are the means and
    proportions of those of its cells that no breakdown of the codebook has.
    """

    standard: Standard
    crossed: Mapping[Breakdown, Breakdown]
    unpublished: Sequence[CohortRow] = ()

    def list_keys(self, row: CohortRow) -> list[CellKey]:
        """The cells of a row's groups, in the order of the shares."""
        cells = list_group_cells(row.breakdown, row.cell, self.crossed[row.breakdown], self.standard)
        return [(self.crossed[row.breakdown], cell, row.outcome) for cell in cells]


def cross_breakdowns(breakdowns: Sequence[Breakdown], standard: Standard) -> dict[Breakdown, Breakdown]:
    """For each breakdown without the standard's cohort the one with it: under the codebook's name, where it has one."""
    named = {frozenset(breakdown): breakdown for breakdown in breakdowns}
    without = [breakdown for breakdown in breakdowns if standard.cohort not in breakdown]
    return {b: named.get(frozenset((*b, standard.cohort)), (*b, standard.cohort)) for b in without}


def list_unpublished(breakdowns: Sequence[Breakdown], standard: Standard | None) -> list[Breakdown]:
    """What must be added up for standardised figures although the codebook does not publish it."""
    crossed = cross_breakdowns(breakdowns, standard).values() if standard else ()
    return [breakdown for breakdown in crossed if breakdown not in breakdowns]


def list_group_cells(breakdown: Breakdown, cell: Cell, crossed: Breakdown, standard: Standard) -> list[Cell]:
    """The cells of `crossed` that a cell consists of, one for each of the standard's groups."""
    levels = dict(zip(breakdown, cell, strict=True))
    return [tuple((levels | {standard.cohort: group})[name] for name in crossed) for group in standard.shares]


def estimate_standardised_rows(
    survey: Survey, sums: pa.Table, outcomes: Sequence[Outcome], breakdowns: Sequence[Breakdown], standard: Standard
) -> list[CohortRow]:
    """A row for each mean and proportion, traits apart, in each cell of each breakdown without the standard's cohort.

    `sums` are those of `domain_sums` for the breakdowns and for those of `list_unpublished`.
    Raises ContractBroken where a stratum has one PSU and `lonely_psu` is `fail`.
    """
    chosen = [outcome for outcome in outcomes if outcome.kind in ("mean", "proportion") and not outcome.latent]
    crossed, domains = cross_breakdowns(breakdowns, standard), split_domains(sums, survey.replicates)
    shares, sizes = np.array(list(standard.normalised.values())), survey.sizes
    rows = []
    for name, cell in domains:
        breakdown = split_breakdown(name)
        if breakdown not in crossed:
            continue
        cells = list_group_cells(breakdown, cell, crossed[breakdown], standard)
        groups = [domains.get((name_breakdown(crossed[breakdown]), one), {}) for one in cells]
        for outcome in chosen:
            parts = [group.get(outcome.name) for group in groups]
            figures = estimate_standardised(parts, shares, sizes, outcome.kind == "proportion", survey.lonely_psu)
            rows.append(CohortRow(breakdown, cell, outcome.name, figures))
    return rows


def estimate_standardised(
    groups: Sequence[DomainSums | None],
    shares: np.ndarray,
    sizes: Sizes,
    proportion: bool,
    lonely_psu: LonelyPsu = "fail",
) -> Estimate:
    """The standardised mean or proportion of one cell, from its groups' sums; `shares` (groups,) add up to 1.

    Intervals are t for means; Korn-Graubard for proportions, with n over the design effect, whose simple random sample
    is standardised too. Raises ContractBroken for a lonely PSU under `fail`.
    """
    parts = [keep_answered(group) for group in groups if group is not None]
    sizes_of_groups = [int(part.n.sum()) for part in parts]
    n, weight = sum(sizes_of_groups), math.fsum(w for part in parts for w in part.sum_w)
    cases_of_groups = [int(part.n_cases.sum()) for part in parts]
    cases = sum(cases_of_groups) if proportion else None
    if len(parts) < len(shares) or not all(sizes_of_groups):
        return leave_out("standardised", n, cases, weight, None, None, EMPTY_GROUP)
    psus = sorted({pair for part in parts for pair in zip(part.stratum.tolist(), part.psu.tolist(), strict=True)})
    stratum, psu = (np.array(names) for names in zip(*psus, strict=True))
    sum_w, sum_wy = (
        np.array([place_sums(part, getattr(part, name), stratum, psu) for part in parts])
        for name in ("sum_w", "sum_wy")
    )
    mean, scores = score_standardised(shares, sum_w, sum_wy)
    certain = proportion and cases in (0, n)
    if certain:
        mean = 1.0 if cases else 0.0  # exactly, whatever the last digit of the shares says
    variance: float | None
    if replicates := [part.replicates for part in parts if part.replicates]:
        variance, df = vary_standardised(replicates, shares)
    else:
        variance, df = sum_variance(stratum, scores, sizes, lonely_psu), len(psus) - len(np.unique(stratum))
    if variance is None:
        return leave_out("standardised", n, cases, weight, mean, df, explain_no_variance(parts[0]))
    se = 0.0 if certain else math.sqrt(variance)
    low: float | None
    high: float | None
    if proportion:
        # Cases of groups in which all or none are cases add no variance, to the last digit.
        p = [
            float(c > 0) if c in (0, m) else math.fsum(wy) / math.fsum(w)
            for c, m, wy, w in zip(cases_of_groups, sizes_of_groups, sum_wy, sum_w, strict=True)
        ]
        n_eff = standardised_effective_n(shares.tolist(), p, sizes_of_groups, se)
        low, high = korn_graubard(mean, se, n, df, n_eff) if df > 0 else (None, None)
        presentation, reason = judge_proportion(mean, se, n, df, n_eff)
        deff = n / n_eff if se > 0 else None
    else:
        low, high = t_interval(mean, se, df) if df > 0 else (None, None)
        presentation, reason = judge_mean(mean, se, n, df)
        deff = None
    method, reason = "korn-graubard" if proportion else "t", reason if df > 0 else NO_DF
    return Estimate("standardised", n, cases, weight, mean, se, df, low, high, method, deff, presentation, reason)
