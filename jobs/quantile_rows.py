"""Quantiles of every cell, in two passes over the people: where they lie, and how sure that is."""

import math
from collections.abc import Sequence
from pathlib import Path

from pyspark import SparkContext

from expectations.outcomes import Outcome
from jobs.domain_sums import Breakdown, domain_sums, split_breakdown
from jobs.estimates import Survey, split_domains
from jobs.histograms import Distribution, Histograms, find_histograms
from jobs.kinds import Sizes, leave_out
from jobs.presentation import judge_quantile
from jobs.quantiles import estimate_quantile, find_quantile
from jobs.replicate_sums import ReplicatePass
from jobs.survey import (
    CohortRow,
    DomainSums,
    Estimate,
    LonelyPsu,
    count_df,
    explain_no_variance,
    keep_answered,
    vary_mean,
)


def estimate_quantile_rows(
    spark: SparkContext,
    files: Sequence[Path],
    outcomes: Sequence[Outcome],
    breakdowns: Sequence[Breakdown],
    survey: Survey,
    replicates: ReplicatePass | None = None,
) -> list[CohortRow]:
    """A row for each quantile and cell in which somebody answered; those of kind `quantile` among `outcomes`.

    Raises ContractBroken where a stratum has one PSU and `lonely_psu` is `fail`.
    """
    quantiles = [outcome for outcome in outcomes if outcome.kind == "quantile"]
    histograms = find_histograms(spark, files, sorted({o.source for o in quantiles}), breakdowns)
    if not histograms:
        return []
    # The shares at or below every value that is a quantile somewhere: few, since totals are.
    shares = {_name_share(o.source, value): (o.source, value) for o, value in _find_values(quantiles, histograms)}
    asked = [Outcome(name, "proportion", source, "<=", value) for name, (source, value) in sorted(shares.items())]
    found = replicates.add_up(asked, breakdowns) if replicates else None
    domains = split_domains(domain_sums(spark, files, asked, breakdowns), found)
    sizes = survey.sizes
    rows = []
    for (breakdown, cell, source), (values, weights) in histograms.items():
        for outcome in (outcome for outcome in quantiles if outcome.source == source):
            value = find_quantile(values, weights, outcome.level or 0.0)
            domain = domains[breakdown, cell][_name_share(source, value)]
            figures = _estimate(outcome, (values, weights), domain, sizes, survey.lonely_psu)
            rows.append(CohortRow(split_breakdown(breakdown), cell, outcome.name, figures))
    return rows


def _find_values(quantiles: Sequence[Outcome], histograms: Histograms) -> list[tuple[Outcome, float]]:
    return [
        (outcome, find_quantile(values, weights, outcome.level or 0.0))
        for (_, _, source), (values, weights) in histograms.items()
        for outcome in quantiles
        if outcome.source == source
    ]


def _name_share(source: str, value: float) -> str:
    return f"{source}<={value!r}"


def _estimate(
    outcome: Outcome, distribution: Distribution, domain: DomainSums, sizes: Sizes, lonely_psu: LonelyPsu
) -> Estimate:
    """The quantile with Woodruff's interval; `domain` has the sums of the share at or below it."""
    domain = keep_answered(domain)
    n, weight = int(domain.n.sum()), math.fsum(domain.sum_w)
    df = count_df(domain)
    share = math.fsum(domain.sum_wy) / weight
    variance = vary_mean(domain, share, sizes, lonely_psu)
    found = estimate_quantile(
        *distribution, outcome.level or 0.0, lambda _: None if variance is None else math.sqrt(variance), df
    )
    if variance is None:
        return leave_out("quantile", n, None, weight, found.estimate, df, explain_no_variance(domain))
    presentation, reason = judge_quantile(found.se is not None, n, df)
    bounds = found.ci_low, found.ci_high
    return Estimate(
        "quantile", n, None, weight, found.estimate, found.se, df, *bounds, "woodruff", None, presentation, reason
    )
