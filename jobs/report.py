"""Stage `report`: one self-contained page a night, made of what may be published and nothing else."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from expectations.codebook import Codebook
from expectations.rules import build_rules
from jobs.charts import draw_forest, draw_hundred, draw_ruler
from jobs.errors import StageError
from jobs.findings import (
    SUPPRESSED,
    Cell,
    Findings,
    describe_cells,
    find_bands,
    find_findings,
    find_series,
    find_span,
    label_breakdown,
    mark_cells,
)
from jobs.job import Job
from jobs.lake import StageRecord, write_atomically
from jobs.pages import render_page
from jobs.tables import estimates_columns, quality_columns

UNKNOWN = "not known"
FATES = {
    "delivered": "Delivered",
    "ineligible": "Not eligible for the survey's question",
    "duplicates": "Superseded by a later answer of the same person",
    "quarantined": "Set aside: broke a rule",
    "withdrawn": "Withdrawn at the person's request",
    "features": "Used for this report",
}
# The report's own words: a validation message may hold an exact count, which must not leave the house.
WARNINGS = {
    "row_count": "The number of rows has changed markedly since the last extract.",
    "answer_shares": "The answers to at least one question have shifted markedly since the last extract.",
    "lonely_psu": "A sampling stratum has only one primary sampling unit.",
    "new_columns": "The extract has columns that the codebook does not know; they were not read.",
}


@dataclass(frozen=True)
class ReportContext:
    """What the page is made of: public rows, the codebook, and facts about the night that are about nobody."""

    run_date: date
    token: int
    book: Codebook
    codebook_sha256: str
    cohorts: pa.Table
    quality: pa.Table
    files: Sequence[str]
    warnings: Sequence[str]
    model: Mapping[str, Any]


def run(job: Job) -> StageRecord:
    """Writes public/reports/run_date=…/<token>-<sha>.html; `publish` makes it the latest one."""
    night = job.night
    validated, trained = night.read("validate").details, night.read("train").details
    tables = [_read_public(job, table) for table in ("cohorts", "quality")]
    context = ReportContext(
        run_date=job.run_date,
        token=night.token,
        book=job.book,
        codebook_sha256=job.codebook_sha256,
        cohorts=tables[0].select([c.name for c in estimates_columns(job.book, internal=False)]),
        quality=tables[1].select([c.name for c in quality_columns()]),
        # Names alone: an exact size or digest of an extract would let an insider test what is in it.
        files=[str(file["name"]) for file in validated.get("files", ())],
        warnings=[str(warning["rule"]) for warning in validated.get("warnings", ())],
        model=trained,
    )
    page = render_report(context).encode()
    digest = hashlib.sha256(page).hexdigest()
    folder = job.lake.public / "reports" / f"run_date={job.run_date}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{night.token:08d}-{digest[:16]}.html"
    write_atomically(path, page)
    path.chmod(0o644)
    details = {"report": str(path.relative_to(job.lake.root)), "sha256": digest}
    return StageRecord("report", inputs=night.digests("validate", "train", "aggregate"), details=details)


def _read_public(job: Job, table: str) -> pa.Table:
    paths = job.night.paths("aggregate", table)
    if not paths:
        raise StageError(f"aggregate wrote no {table} for {job.run_date}: run `mindcensus aggregate` again")
    return pa.concat_tables([pq.ParquetFile(path).read() for path in paths])


def render_report(context: ReportContext) -> str:
    """The page of a night. The same context gives the same bytes."""
    book = context.book
    findings = find_findings(book, context.cohorts.to_pylist())
    return render_page(
        "report.html.j2",
        book=book,
        night=f"{context.run_date.day} {context.run_date:%B %Y}",
        run_date=context.run_date.isoformat(),
        token=context.token,
        codebook_sha256=context.codebook_sha256,
        headlines=[_show_headline(book, one) for one in findings],
        outcomes=[_show_outcome(book, one) for one in findings],
        withheld=[_count_withheld(one) for one in findings],
        arrivals=_show_quality(context),
        files=_shorten(context.files),
        warnings=_word_warnings(context.warnings),
        model=_show_model(context.model),
        scales=[(s, _word_scale(book, s.key)) for s in book.scales],
    )


def _show_headline(book: Codebook, findings: Findings) -> dict[str, Any]:
    whole, name = findings.whole, findings.outcome.name
    row = whole.row if whole.word is None else None
    bands = find_bands(book, findings.outcome)
    if findings.outcome.kind == "proportion":
        share = row["estimate"] if row else None
        picture = draw_hundred(share, f"people-{name}")
        alt = "A hundred dots, none filled: the figure is not shown." if share is None else (
            f"A hundred dots, {round(100 * share)} of them filled."
        )  # fmt: skip
    else:
        worse_up = not book.scale(findings.outcome.source.removesuffix("_total")).positive
        mark = mark_cells(findings, [whole], None)[0]
        picture = draw_ruler([band[:2] for band in bands], mark, worse_up, f"ruler-{name}")
        alt = f"A ruler from {bands[0][0]:g} to {bands[-1][1]:g} with the mean marked at {findings.short(whole)}."
    named = [band for band in bands if band[2]] if findings.outcome.kind == "mean" else []
    ends = [int(after[0]) - 1 for _, after in pairwise(named)] + [int(bands[-1][1])]
    return {
        "findings": findings,
        "value": findings.number(row["estimate"]) if row else whole.word,
        "interval": findings.interval(whole),
        "flag": whole.flag,
        "n": row["n"] if row else None,
        "picture": Markup(picture),
        "alt": alt,
        "bands": [f"{int(start)} to {end} {word}" for (start, _, word), end in zip(named, ends, strict=False)],
    }


def _show_outcome(book: Codebook, findings: Findings) -> dict[str, Any]:
    span, panels = find_span(findings), []
    for keys, cells in findings.by_breakdown.items():
        if not keys:
            continue
        series, by = find_series(book, keys), label_breakdown(book, keys)
        svg = draw_forest(mark_cells(findings, cells, series), span, f"{findings.outcome.name}-{'-'.join(keys)}")
        alt = describe_cells(findings, cells, by)
        panels.append({"by": by, "svg": Markup(svg), "alt": alt, "legend": series[1] if series else ()})
    blocks = [(label_breakdown(book, keys), cells) for keys, cells in findings.by_breakdown.items()]
    return {
        "findings": findings,
        "panels": panels,
        "blocks": blocks,
        "summary": _summarise(findings),
        "flagged": any(cell.flag for cell in findings.cells()),
        "hidden": any(cell.word for cell in findings.cells()),
    }


def _summarise(findings: Findings) -> str:
    """The range over single cohorts in one sentence; overlapping intervals are the reader's to see."""
    one_way = [cell for keys, cells in findings.by_breakdown.items() if len(keys) == 1 for cell in cells]
    shown: list[tuple[float, Cell]] = [(c.row["estimate"], c) for c in one_way if c.word is None and c.row]
    if len(shown) < 2:
        return ""
    low, high = (pick(shown, key=lambda pair: pair[0])[1] for pick in (min, max))
    return (
        f"Among single groups it is lowest for {low.label}, {findings.short(low)}, "
        f"and highest for {high.label}, {findings.short(high)}."
    )


def _count_withheld(findings: Findings) -> dict[str, Any]:
    words = Counter(cell.word for cell in findings.cells())
    total = sum(words.values())
    other = total - words[None] - words[SUPPRESSED]
    return {"title": findings.title, "total": total, "shown": words[None], "kept": words[SUPPRESSED], "other": other}


def _show_quality(context: ReportContext) -> list[dict[str, Any]]:
    """The night's rows by what became of them, each followed by its reasons; shares are those of rounded counts."""
    meanings = {rule.name: rule.meaning for rule in build_rules(context.book, context.run_date)}
    rows = context.quality.to_pylist()
    delivered = next((row["rows"] for row in rows if row["stage"] == "delivered" and row["reason"] is None), None)
    shown = []
    for fate, label in FATES.items():
        own = [row for row in rows if row["stage"] == fate]
        for row in sorted(own, key=lambda row: (row["reason"] is not None, -(row["rows"] or 0), row["reason"] or "")):
            count, reason = row["rows"], row["reason"]
            share = f"{100 * count / delivered:.1f} %" if delivered and count is not None else ""
            shown.append({
                "label": meanings.get(reason, reason) if reason else label,
                "rule": reason,
                "rows": SUPPRESSED if count is None else f"{count:,}",
                "share": share,
            })  # fmt: skip
    return shown


def _word_warnings(rules: Sequence[str]) -> list[str]:
    worded = (
        WARNINGS.get(rule)
        or ("A question was left unanswered much more or less often than in the last extract: "
            f"{rule.removesuffix('_null_share')}." if rule.endswith("_null_share") else
            f"Some rows break a rule that does not exclude them: {rule}.")
        for rule in rules
    )  # fmt: skip
    return list(dict.fromkeys(worded))


def _shorten(names: Sequence[str], most: int = 5) -> str:
    named = ", ".join(sorted(names)[:most]) or UNKNOWN
    return named + (f" and {len(names) - most} more" if len(names) > most else "")


def _show_model(details: Mapping[str, Any]) -> dict[str, Any]:
    validation = details.get("validation") or {}
    own, margins = validation.get("nats_per_answer"), validation.get("margins_nats_per_answer")
    return {
        "version": details.get("model_version") or UNKNOWN,
        "trained_on": details.get("trained_on") or UNKNOWN,
        "tonight": {True: "yes", False: "no"}.get(details.get("promoted"), UNKNOWN),  # type: ignore[arg-type]
        "nats": UNKNOWN if own is None else f"{own:.3f}",
        "margins": UNKNOWN if margins is None else f"{margins:.3f}",
        "gain": f"{100 * (1 - own / margins):.0f} %" if own is not None and margins else UNKNOWN,
    }


def _word_scale(book: Codebook, key: str) -> str:
    scale = book.scale(key)
    words = [f"{len(scale.items)} questions"]
    if scale.multiply > 1:
        words.append(f"sum times {scale.multiply}")
    words.append(f"up to {scale.prorate_up_to} missing prorated" if scale.prorate_up_to else "complete answers only")
    if scale.cut:
        words.append(f"screening cut at {scale.cut[2:]} or {'more' if scale.cut.startswith('>=') else 'less'}")
    words.append("higher is better" if scale.positive else "higher is worse")
    return "; ".join(words)
