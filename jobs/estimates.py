"""Every estimate of a night: each outcome in each cell of each breakdown, in each kind that it has."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from expectations.outcomes import Outcome
from jobs.domain_sums import EVERYBODY, Breakdown, name_breakdown, split_breakdown
from jobs.kinds import Design, Linearised, Response, estimate_change, estimate_ratio, estimate_total, linearise
from jobs.replicate_sums import Replicated
from jobs.survey import SUMS, CohortRow, DesignSizes, DomainSums, Estimate, Kind, LonelyPsu, count_psus, estimate_domain

Cell = tuple[str, ...]
Place = tuple[str, Cell]  # a breakdown's name and the levels of its cohorts
Domains = Mapping[Place, Mapping[str, DomainSums]]


@dataclass(frozen=True)
class Survey:
    """One night's sums per PSU (a table of `domain_sums`) and the (stratum, psu) pairs of its full design.

    `sampled` has each stratum's share of the population's PSUs, where that is known; `replicates` the sums with every
    replicate weight, where there are some.
    """

    run_date: date
    sums: pa.Table
    design: Sequence[tuple[str, str]]
    lonely_psu: LonelyPsu = "fail"
    sampled: Mapping[str, float] | None = None
    replicates: Replicated | None = None

    @property
    def sizes(self) -> DesignSizes:
        return count_psus(self.design, self.sampled)

    def sort_psus(self) -> Design:
        """The PSUs of each stratum, those of ineligible people too."""
        strata = defaultdict(set)
        for stratum, psu in self.design:
            strata[stratum].add(psu)
        return {stratum: frozenset(psus) for stratum, psus in strata.items()}


def list_sums(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """What has to be added up per PSU for these outcomes."""
    chosen = [EVERYBODY]
    for outcome in outcomes:
        if outcome.kind in ("mean", "proportion") and not outcome.latent:
            chosen.append(outcome)
        elif outcome.kind == "ratio":
            chosen += outcome.split_ratio()
    return chosen


def estimate_rows(survey: Survey, outcomes: Sequence[Outcome], earlier: Survey | None = None) -> list[CohortRow]:
    """Means, proportions, totals and ratios, and the change of each mean and proportion since `earlier`; no traits.

    Sorted by breakdown, cell and outcome, each outcome's own kind first. Raises ContractBroken where a stratum has one
    PSU and `lonely_psu` is `fail`.
    """
    design, sizes = survey.sort_psus(), survey.sizes
    before = _linearise_all(earlier, outcomes) if earlier else {}
    everywhere = split_domains(survey.sums, survey.replicates)
    whole = everywhere.get(("all", ()), {})
    shares = [outcome.name for outcome in outcomes if outcome.kind == "proportion"] if whole else []
    responses = {name: Response.of(whole[EVERYBODY.name], whole[name]) for name in shares}
    rows = []
    for (breakdown, cell), domains in everywhere.items():
        for outcome in sorted(outcomes, key=lambda outcome: outcome.name):
            place = (split_breakdown(breakdown), cell, outcome.name)
            if outcome.kind == "ratio":
                parts = [domains[part.name] for part in outcome.split_ratio()]
                rows.append(CohortRow(*place, estimate_ratio(parts[0], parts[1], sizes, survey.lonely_psu)))
            if outcome.kind not in ("mean", "proportion") or outcome.latent:
                continue
            domain = domains[outcome.name]
            figures = _estimate_base(outcome, domain, sizes, survey.lonely_psu)
            rows.append(CohortRow(*place, figures))
            if outcome.kind == "proportion":
                response = responses.get(outcome.name)
                rows.append(CohortRow(*place, estimate_total(domain, sizes, survey.lonely_psu, response)))
            old = before.get((breakdown, cell, outcome.name))
            now = linearise(figures, domain, design, survey.sampled) if earlier else None
            if now and old and earlier:
                rows.append(replace(CohortRow(*place, estimate_change(now, old)), since=earlier.run_date))
    return rows


def estimate_bases(survey: Survey, outcomes: Sequence[Outcome]) -> list[CohortRow]:
    """Means and proportions alone."""
    return [row for row in estimate_rows(survey, outcomes) if row.figures.kind in ("mean", "proportion")]


def sort_rows(rows: Iterable[CohortRow]) -> list[CohortRow]:
    """By breakdown, cell and outcome, an outcome's own kind first."""
    return sorted(rows, key=lambda row: (name_breakdown(row.breakdown), row.cell, row.outcome))


def _estimate_base(outcome: Outcome, domain: DomainSums, sizes: Mapping[str, int], lonely_psu: LonelyPsu) -> Estimate:
    kind: Kind = "mean" if outcome.kind == "mean" else "proportion"
    return estimate_domain(domain, sizes, kind, lonely_psu)


def _linearise_all(survey: Survey, outcomes: Iterable[Outcome]) -> dict[tuple[str, Cell, str], Linearised]:
    """An earlier night's means and proportions with their scores; what it did not have, or had differently, is left."""
    design, sizes = survey.sort_psus(), survey.sizes
    public = {
        outcome.name: outcome for outcome in outcomes if not outcome.latent and outcome.kind in ("mean", "proportion")
    }
    found = {}
    for (breakdown, cell), domains in split_domains(survey.sums).items():
        for name in domains.keys() & public.keys():
            figures = _estimate_base(public[name], domains[name], sizes, survey.lonely_psu)
            if one := linearise(figures, domains[name], design, survey.sampled):
                found[breakdown, cell, name] = one
    return found


def split_sums(sums: pa.Table, breakdowns: Iterable[Breakdown]) -> tuple[pa.Table, pa.Table]:
    """The sums of these breakdowns, and those of others."""
    named = pc.is_in(sums["breakdown"], pa.array([name_breakdown(breakdown) for breakdown in breakdowns], pa.string()))
    return sums.filter(named), sums.filter(pc.invert(named))


def split_domains(sums: pa.Table, replicates: Replicated | None = None) -> Domains:
    """The sorted table's domains by breakdown, cell and outcome, as arrays over their PSUs, with their replicates."""
    cohorts = [name for name in sums.column_names if name not in {"breakdown", "outcome", "stratum", "psu", *SUMS}]
    domains: dict[Place, dict[str, DomainSums]] = {}
    for first, domain in _split_runs(sums, ["breakdown", *cohorts, "outcome"]):
        cell = tuple(first[cohort] for cohort in split_breakdown(first["breakdown"]))
        found = (replicates or {}).get((first["breakdown"], cell, first["outcome"]))
        domains.setdefault((first["breakdown"], cell), {})[first["outcome"]] = replace(domain, replicates=found)
    return domains


def _split_runs(sums: pa.Table, labels: Sequence[str]) -> Iterator[tuple[dict[str, str], DomainSums]]:
    """Each run of equal labels in the sorted table, as its labels and arrays."""
    if not len(sums):
        return
    columns = {name: sums[name].to_numpy() for name in ("stratum", "psu", *SUMS)}
    encoded = [sums[name].combine_chunks().dictionary_encode(null_encoding="encode") for name in labels]
    codes = [column.indices.to_numpy() for column in encoded]
    change = np.any([np.diff(code) != 0 for code in codes], axis=0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1, [len(sums)]])
    for start, stop in pairwise(starts):
        first = {name: sums[name][int(start)].as_py() for name in labels}
        yield first, DomainSums(**{name: column[start:stop] for name, column in columns.items()})
