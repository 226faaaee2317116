"""Stage 5: design-based estimates for every breakdown and outcome, and what of them may be published.

A night that the release calendar keeps internal has no public tables: nothing of it lies in the public zone.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from jobs.dp_ledger import check_mechanism, decide_budget
from jobs.dp_release import draw_release
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
from jobs.spark import empty_heap, spark_session
from jobs.standardised import Groups, cross_breakdowns, estimate_standardised_rows, list_unpublished
from jobs.survey import CohortRow, count_psus
from jobs.tables import (
    FATES,
    ColumnSpec,
    arrow_schema,
    calibration_columns,
    distributions_columns,
    estimates_columns,
    quality_columns,
    sums_columns,
    suppressions_columns,
)
from jobs.trait_estimates import estimate_traits
from jobs.verification import count_helpful, list_totals, verify_cut


@dataclass(frozen=True)
class Added:
    """What one pass over the people added up: sums of `everything`, and what needs passes of its own.

    `hidden` are the breakdowns that standardised figures need and nobody publishes.
    """

    survey: Survey
    everything: pa.Table
    hidden: Sequence[Breakdown]
    quantiles: Sequence[CohortRow]
    imputed: Imputed | None


def run(job: Job) -> StageRecord:
    """Raises ContractBroken where a stratum has one PSU and the codebook says `fail`, ModelError for a model that
    does not fit the features; a release of the other kind than the lake's earlier ones breaks the contract, too."""
    night, trained = job.night, job.night.read("train").details
    check_mechanism(job)
    chosen, decision = job.book.disclosure.dp, decide_release(job)
    if chosen and decision.public:
        decision = decide_budget(job, chosen)
    added, last = _add_up(job), find_last(job)
    rows, groups = _estimate(job, added, last)
    scratch = night.scratch("aggregate")
    write = Writer(job.book, scratch, trained["series"])
    written = {
        "cohort_sums": write.sums(added.survey.sums),
        "cohorts_internal": write.rows(rows, estimates_columns(job.book, True), "internal"),
    }
    public: list[CohortRow] = []
    if decision.public and chosen:
        public, write = sort_rows(draw_release(job, chosen)), replace(write, series=None)
        written |= {
            "cohorts": write.rows(public, estimates_columns(job.book, False), "public"),
            "quality": write.records(withhold_quality(), quality_columns(), "quality"),
            "distributions": write.records([], distributions_columns(job.book), "distributions"),
        }
    elif decision.public:
        profile = PROFILES[job.book.disclosure.profile]
        protected = _protect(job, added, last, rows, groups, scratch)
        hidden_rows, public = list_hidden(protected), merge_labels(protected)
        shares = _describe(added.imputed, public, rows, job.book, trained["series"]) if added.imputed else []
        written |= {
            "suppressions": write.rows(hidden_rows, suppressions_columns(job.book), "suppressions"),
            "cohorts": write.rows(public, estimates_columns(job.book, False), "public"),
            "quality": write.records(_measure_quality(job, profile), quality_columns(), "quality"),
            "distributions": write.records(shares, distributions_columns(job.book), "distributions"),
        }
    told: dict[str, Any] = {}
    if feedback := job.book.feedback:
        told["feedback"] = {"helpful": count_helpful(night.paths("validate", "feedback")) if feedback.helpful else None}
    if feedback and feedback.confirmed:
        verified = verify_cut(job.book, feedback.confirmed, night.paths("preprocess", "features"))
        written["calibration"] = write.records(
            verified.to_rows(list_totals(job.book, feedback.confirmed)), calibration_columns(job.book), "calibration"
        )
        told["feedback"] |= verified.to_json()
    tables = {table: night.adopt([file], table) for table, file in written.items()}
    shutil.rmtree(scratch)
    shown = sum(row.disclosure == "shown" for row in public)
    counts = {"estimates": len(rows), "public_estimates": len(public), "public_estimates_shown": shown}
    since = last.survey.run_date.isoformat() if last else None
    imputation = added.imputed.details if added.imputed else None
    details = {"plausible_values": imputation, "since": since, "release": decision.to_json(), **told}
    inputs = night.digests("validate", "preprocess", "train", "score")
    return StageRecord("aggregate", inputs, tables, counts, details)


def _add_up(job: Job) -> Added:
    """All that Spark does of a night's estimates."""
    night, book, outcomes = job.night, job.book, job.book.parsed_outcomes()
    files, features = night.paths("score", "profiles"), night.paths("preprocess", "features")
    design, sampled = read_design(night.paths("validate", "design")), read_sampled(night.paths("validate", "design"))
    hidden = list_unpublished(book.breakdowns, book.standard)
    with spark_session(job.lake, "aggregate") as session:
        spark = session.sparkContext
        everything = domain_sums(spark, files, list_sums(outcomes), [*book.breakdowns, *hidden])
        replicates = _find_replicates(spark, job)
        repeated = _repeat(replicates, book, hidden) if replicates else None
        sums, _ = split_sums(everything, book.breakdowns)
        survey = Survey(job.run_date, sums, design, book.design.lonely_psu, sampled, repeated)
        quantiles = estimate_quantile_rows(spark, files, outcomes, book.breakdowns, survey, replicates)
        imputed = None
        if any(outcome.latent for outcome in outcomes):
            empty_heap(spark._jvm)
            imputed = impute_traits(
                spark, job.lake.root / night.read("train").details["folder"], features, design, book
            )
    return Added(survey, everything, hidden, quantiles, imputed)


def _estimate(job: Job, added: Added, last: Last | None) -> tuple[list[CohortRow], Groups | None]:
    """The rows of every kind, and of which cells standardised ones are made."""
    book, survey, outcomes, groups = job.book, added.survey, job.book.parsed_outcomes(), None
    rows = estimate_rows(survey, outcomes, last.survey if last and not survey.replicates else None)
    rows += added.quantiles
    if survey.replicates:
        rows += _compare_nights(rows, last)
    if standard := book.standard:
        rows += estimate_standardised_rows(survey, added.everything, outcomes, book.breakdowns, standard)
        _, unpublished = split_sums(added.everything, book.breakdowns)
        hidden = estimate_bases(replace(survey, sums=unpublished), outcomes)
        groups = Groups(standard, cross_breakdowns(book.breakdowns, standard), hidden)
    if added.imputed:
        traits = _estimate_traits(added.imputed, survey.design, survey.sampled or {}, book)
        rows += [*traits, *_compare_nights(traits, last, job.night.read("train").details)]
    return sort_rows(rows), groups


def _protect(
    job: Job, added: Added, last: Last | None, rows: Sequence[CohortRow], groups: Groups | None, scratch: Path
) -> list[CohortRow]:
    """The rows as disclosure control leaves them, beside the earlier releases."""
    profile, outcomes = PROFILES[job.book.disclosure.profile], job.book.parsed_outcomes()
    files = job.night.paths("score", "profiles")
    dominated = find_dominated(files, [*job.book.breakdowns, *added.hidden], outcomes, profile, scratch)
    if groups:
        groups = replace(groups, unpublished=mark_dominated(groups.unpublished, dominated))
    releases = read_earlier(job.lake, job.night.token, job.book, files, scratch)
    marked, before = mark_dominated(rows, dominated), last.shown if last else {}
    return protect_kinds(marked, outcomes, before, profile, releases, groups)


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
    sizes, chosen = count_psus(design, sampled), book.design
    replication = chosen.replicates.choose_scales() if chosen.replicates else None
    rows = estimate_traits(
        *(imputed.sums, imputed.conditioning, homes, book.breakdowns, imputed.traits, sizes),
        *(chosen.lonely_psu, replication),
    )
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


@dataclass(frozen=True)
class Writer:
    """Writes the stage's tables into a folder; outcomes made of a trait have the unit of the model's `series`.

    Without a series none is named: its name follows from people's answers.
    """

    book: Codebook
    folder: Path
    series: str | None

    def sums(self, sums: pa.Table) -> Path:
        """The sums with a column for every cohort, those of no breakdown too."""
        schema, file = arrow_schema(sums_columns(self.book)), self.folder / "sums"
        empty = pa.nulls(len(sums), pa.string())
        columns = [sums[name] if name in sums.column_names else empty for name in schema.names]
        pq.write_table(pa.table(columns, schema.names).cast(schema), file, compression="zstd")
        return file

    def rows(self, rows: Sequence[CohortRow], columns: Sequence[ColumnSpec], name: str) -> Path:
        cohorts = [cohort.key for cohort in self.book.cohorts]
        series = {outcome.name: self.series for outcome in self.book.parsed_outcomes() if outcome.latent}
        records = [{**row.to_record(cohorts), "model_series": series.get(row.outcome)} for row in rows]
        return self.records(records, columns, name)

    def records(self, records: Sequence[Mapping[str, Any]], columns: Sequence[ColumnSpec], name: str) -> Path:
        names, file = [column.name for column in columns], self.folder / name
        chosen = [{column: record[column] for column in names} for record in records]
        pq.write_table(pa.Table.from_pylist(chosen, arrow_schema(columns)), file, compression="zstd")
        return file


def withhold_quality() -> list[dict[str, Any]]:
    """Of a differentially private release: what became of the rows has no noise, so it is not told."""
    empty = {"reason": None, "rows": None, "rate": None, "rate_weighted": None, "disclosure": "suppressed"}
    return [{"stage": stage, **empty} for stage, _ in FATES]


def _measure_quality(job: Job, profile: Profile) -> list[dict[str, Any]]:
    """Where the delivered rows went. A row may break several rules, so the rules do not add up to a total."""
    validated, features = job.night.read("validate"), job.night.read("preprocess").counts["features"]
    fates = {name: validated.counts[name] for name in ("delivered", "ineligible", "duplicates", "quarantined")}
    fates |= {"withdrawn": validated.counts.get("withdrawn", 0), "features": features}
    published = redact_fates(fates, profile)
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
    # That of feedback is of no row that a figure is made of.
    warned = sorted({str(warning["rule"]) for warning in validated.details["warnings"]} - {"feedback"})
    shown += [{"stage": "warned", "reason": rule, "rows": None, **no_rate, "disclosure": "shown"} for rule in warned]
    totals = {scale.key: f"{scale.key}_total" for scale in job.book.scales}
    answered = count_answers(job.night.paths("preprocess", "features"), totals)
    return shown + rate_response(classes_from_json(validated.details.get("classes", ())), answered, features, profile)
