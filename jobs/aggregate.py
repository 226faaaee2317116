"""Stage 5: design-based estimates for every breakdown and outcome, and what of them may be published.

A night that the release calendar keeps internal has no public tables: nothing of it lies in the public zone.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkContext

from expectations.codebook import Codebook
from jobs.design import read_design, read_sampled
from jobs.disclosure_profiles import PROFILES, Profile, redact_count, redact_fates
from jobs.distributions import describe_distributions
from jobs.domain_sums import EVERYBODY, Breakdown, domain_sums
from jobs.dominance import find_dominated, mark_dominated
from jobs.earlier import Last, find_last
from jobs.estimates import Survey, estimate_bases, estimate_rows, list_sums, sort_rows, split_sums
from jobs.following import protect_kinds
from jobs.job import Job
from jobs.kinds import subtract_nights
from jobs.labels import list_hidden, merge_labels
from jobs.lake import StageRecord
from jobs.latent_outcomes import Imputed, impute_traits
from jobs.linking_error import linking_variance
from jobs.nonresponse import classes_from_json
from jobs.quantile_rows import estimate_quantile_rows
from jobs.release_calendar import decide_release
from jobs.releases import read_earlier
from jobs.replicate_sums import Replicated, ReplicatePass
from jobs.response import count_answers, rate_response
from jobs.spark import spark_session
from jobs.standardised import Groups, cross_breakdowns, estimate_standardised_rows, list_unpublished
from jobs.survey import CohortRow, count_psus
from jobs.tables import (
    ColumnSpec,
    arrow_schema,
    distributions_columns,
    estimates_columns,
    quality_columns,
    sums_columns,
    suppressions_columns,
)
from jobs.trait_estimates import estimate_traits


def run(job: Job) -> StageRecord:
    """Raises ContractBroken where a stratum has one PSU and the codebook says `fail`, ModelError for a model that
    does not fit the features."""
    night, outcomes, breakdowns = job.night, job.book.parsed_outcomes(), job.book.breakdowns
    design, sampled = read_design(night.paths("validate", "design")), read_sampled(night.paths("validate", "design"))
    trained, files = night.read("train").details, night.paths("score", "profiles")
    with spark_session(job.lake, "aggregate") as session:
        spark = session.sparkContext
        added = list_unpublished(breakdowns, job.book.standard)
        everything = domain_sums(spark, files, list_sums(outcomes), [*breakdowns, *added])
        sums, unpublished = split_sums(everything, breakdowns)
        replicates = _find_replicates(spark, job)
        repeated = _repeat(replicates, job.book, added) if replicates else None
        survey = Survey(job.run_date, sums, design, job.book.design.lonely_psu, sampled, repeated)
        quantiles = estimate_quantile_rows(spark, files, outcomes, breakdowns, survey, replicates)
        imputed = None
        if any(outcome.latent for outcome in outcomes):
            model, features = job.lake.root / trained["folder"], night.paths("preprocess", "features")
            imputed = impute_traits(spark, model, features, design, job.book)
    last = find_last(job)
    earlier = last.survey if last and not replicates else None
    rows, groups = [*estimate_rows(survey, outcomes, earlier), *quantiles], None
    if replicates:
        rows += _compare_nights(rows, last)
    if standard := job.book.standard:
        rows += estimate_standardised_rows(survey, everything, outcomes, breakdowns, standard)
        hidden = estimate_bases(replace(survey, sums=unpublished), outcomes)
        groups = Groups(standard, cross_breakdowns(breakdowns, standard), hidden)
    if imputed:
        traits = _estimate_traits(imputed, design, sampled, job.book)
        rows += [*traits, *_compare_nights(traits, last, trained)]
    rows, profile, decision = sort_rows(rows), PROFILES[job.book.disclosure.profile], decide_release(job)
    scratch = night.scratch("aggregate")
    # Outcomes made of a trait have the unit of the model's series.
    series = {outcome.name: trained["series"] for outcome in outcomes if outcome.latent}
    internal_columns, public_columns = (estimates_columns(job.book, internal) for internal in (True, False))
    written = {
        "cohort_sums": _write_sums(sums, job.book, scratch / "sums"),
        "cohorts_internal": _write(rows, job.book, internal_columns, scratch / "internal", series),
    }
    public: list[CohortRow] = []
    if decision.public:
        dominated = find_dominated(files, [*breakdowns, *added], outcomes, profile, scratch)
        rows = mark_dominated(rows, dominated)
        groups = replace(groups, unpublished=mark_dominated(groups.unpublished, dominated)) if groups else None
        releases = read_earlier(job.lake, night.token, job.book, files, scratch)
        public = protect_kinds(rows, outcomes, last.shown if last else {}, profile, releases, groups)
        hidden_rows, public = list_hidden(public), merge_labels(public)
        shares = _describe(imputed, public, rows, job.book, trained["series"]) if imputed else []
        suppressions = suppressions_columns(job.book)
        written |= {
            "suppressions": _write(hidden_rows, job.book, suppressions, scratch / "suppressions", series),
            "cohorts": _write(public, job.book, public_columns, scratch / "public", series),
            "quality": _write_table(_measure_quality(job, profile), quality_columns(), scratch / "quality"),
            "distributions": _write_table(shares, distributions_columns(job.book), scratch / "distributions"),
        }
    tables = {table: night.adopt([file], table) for table, file in written.items()}
    shutil.rmtree(scratch)
    shown = sum(row.disclosure == "shown" for row in public)
    counts = {"estimates": len(rows), "public_estimates": len(public), "public_estimates_shown": shown}
    since = last.survey.run_date.isoformat() if last else None
    imputation = imputed.details if imputed else None
    details = {"plausible_values": imputation, "since": since, "release": decision.to_json()}
    inputs = night.digests("validate", "preprocess", "train", "score")
    return StageRecord("aggregate", inputs, tables, counts, details)


def _find_replicates(spark: SparkContext, job: Job) -> ReplicatePass | None:
    chosen = job.book.design.replicates
    return ReplicatePass(spark, job.night.paths("preprocess", "features"), chosen.choose_scales()) if chosen else None


def _repeat(replicates: ReplicatePass, book: Codebook, added: Sequence[Breakdown]) -> Replicated:
    """The sums with every replicate weight; totals are whole where everybody's sums are among them."""
    outcomes = book.parsed_outcomes()
    summed = [outcome for outcome in list_sums(outcomes) if outcome != EVERYBODY]
    totals = [outcome for outcome in outcomes if outcome.kind == "proportion" and () in book.breakdowns]
    return replicates.add_up(summed, [*book.breakdowns, *added], totals)


def _estimate_traits(
    imputed: Imputed, design: Sequence[tuple[str, str]], sampled: Mapping[str, float], book: Codebook
) -> list[CohortRow]:
    """The means of traits that are outcomes; all traits are drawn together."""
    homes = {psu: stratum for stratum, psu in design}
    sizes, lonely = count_psus(design, sampled), book.design.lonely_psu
    rows = estimate_traits(imputed.sums, imputed.conditioning, homes, book.breakdowns, imputed.traits, sizes, lonely)
    return [row for row in rows if row.outcome in book.outcomes]


def _compare_nights(
    rows: Sequence[CohortRow], last: Last | None, model: Mapping[str, Any] | None = None
) -> list[CohortRow]:
    """The change of each mean and proportion, without a covariance: of figures by replicate weights, and of traits.

    With the `model` of traits: none where its unit cannot be compared with that of the night before.
    """
    changes = []
    for row in rows if last else ():
        assert last
        linking = linking_variance(row.outcome.removesuffix("_mean"), model, last.model) if model else 0.0
        before = last.figures.get(row.place) if row.figures.kind in ("mean", "proportion") else None
        if linking is not None and before and (figures := subtract_nights(row.figures, before, linking)):
            changes.append(replace(row, figures=figures, since=last.survey.run_date))
    return changes


def _describe(
    imputed: Imputed, public: Sequence[CohortRow], rows: Sequence[CohortRow], book: Codebook, series: str
) -> list[dict[str, Any]]:
    shares = describe_distributions(imputed.sums, imputed.conditioning, book.breakdowns, imputed.traits, public, rows)
    empty = dict.fromkeys((cohort.key for cohort in book.cohorts), None)
    return [{**empty, **share, "model_series": series} for share in shares]


def _write_sums(sums: pa.Table, book: Codebook, file: Path) -> Path:
    """The sums with a column for every cohort, those of no breakdown too."""
    schema = arrow_schema(sums_columns(book))
    empty = pa.nulls(len(sums), pa.string())
    columns = [sums[name] if name in sums.column_names else empty for name in schema.names]
    pq.write_table(pa.table(columns, schema.names).cast(schema), file, compression="zstd")
    return file


def _write(
    rows: Sequence[CohortRow], book: Codebook, columns: Sequence[ColumnSpec], file: Path, series: Mapping[str, str]
) -> Path:
    cohorts = [cohort.key for cohort in book.cohorts]
    records = [{**row.to_record(cohorts), "model_series": series.get(row.outcome)} for row in rows]
    return _write_table(records, columns, file)


def _write_table(records: Sequence[Mapping[str, Any]], columns: Sequence[ColumnSpec], file: Path) -> Path:
    names = [column.name for column in columns]
    chosen = [{name: record[name] for name in names} for record in records]
    pq.write_table(pa.Table.from_pylist(chosen, arrow_schema(columns)), file, compression="zstd")
    return file


def _measure_quality(job: Job, profile: Profile) -> list[dict[str, Any]]:
    """Where the delivered rows went. A row may break several rules, so the rules do not add up to a total."""
    validated, features = job.night.read("validate"), job.night.read("preprocess").counts["features"]
    fates = {name: validated.counts[name] for name in ("delivered", "ineligible", "duplicates", "quarantined")}
    published = redact_fates({**fates, "withdrawn": 0, "features": features}, profile)
    where: list[tuple[str, str | None, int | None]] = [(stage, None, rows) for stage, rows in published.items()]
    for rule, rows in sorted(validated.details["failed_rules"].items()):
        # With one rule its count is that of all.
        where.append(
            ("quarantined", rule, redact_count(rows, profile) if published["quarantined"] is not None else None)
        )
    no_rate = {"rate": None, "rate_weighted": None}
    shown: list[dict[str, Any]] = [
        {
            "stage": stage,
            "reason": reason,
            "rows": rows,
            **no_rate,
            "disclosure": "shown" if rows is not None else "suppressed",
        }
        for stage, reason, rows in where
    ]
    # Names alone: a warning's message may hold an exact count.
    warned = sorted({str(warning["rule"]) for warning in validated.details["warnings"]})
    shown += [{"stage": "warned", "reason": rule, "rows": None, **no_rate, "disclosure": "shown"} for rule in warned]
    totals = {scale.key: f"{scale.key}_total" for scale in job.book.scales}
    answered = count_answers(job.night.paths("preprocess", "features"), totals)
    return shown + rate_response(classes_from_json(validated.details.get("classes", ())), answered, features, profile)
