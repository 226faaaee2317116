"""Stage `report`: one self-contained page a release, in every language, made of public tables and nothing else."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import vl_convert
from markupsafe import Markup

from expectations.codebook import Codebook
from jobs.charts import VEGA_LITE
from jobs.downloads import make_downloads
from jobs.early_warning import warn_early
from jobs.errors import StageError
from jobs.findings import Row, find_findings
from jobs.job import Job
from jobs.lake import PUBLIC_TABLES, StageRecord, write_atomically
from jobs.pages import render_page
from jobs.provenance import hash_code, name_figure
from jobs.release_calendar import Decision
from jobs.report_facts import find_series, show_quality, word_scale, word_warnings
from jobs.report_outcomes import count_withheld, show_headline, show_outcome
from jobs.report_releases import Release, read_releases
from jobs.words import Words, read_words

NEEDED = ("cohorts", "quality")


@dataclass(frozen=True)
class ReportContext:
    """What the page is made of: this night's public tables, earlier releases, the codebook, and the run's name."""

    run_date: date
    token: int
    book: Codebook
    codebook_sha256: str
    tables: Mapping[str, pa.Table]
    releases: Sequence[Release] = ()

    def rows(self, table: str) -> list[Row]:
        return list(self.tables[table].to_pylist()) if table in self.tables else []


def run(job: Job) -> StageRecord:
    """Writes public/reports/run_date=…/<token>-<sha>.html; `publish` makes it the latest one.

    A night that the release calendar keeps internal has no report.
    """
    aggregated, inputs = job.night.read("aggregate"), job.night.digests("aggregate")
    if not Decision.from_json(aggregated.details.get("release")).public:
        return StageRecord("report", inputs=inputs)
    written = aggregated.tables
    for table in NEEDED:
        if not written.get(table):
            raise StageError(f"aggregate wrote no {table} for {job.run_date}: run `mindcensus aggregate` again")
    context = ReportContext(
        run_date=job.run_date,
        token=job.night.token,
        book=job.book,
        codebook_sha256=job.codebook_sha256,
        tables={
            table: pa.concat_tables([pq.ParquetFile(job.lake.root / file.path).read() for file in written[table]])
            for table in PUBLIC_TABLES
            if written.get(table)
        },
        releases=read_releases(job.lake.public, job.book.codebook, job.run_date),
    )
    page = render_report(context).encode()
    digest = hashlib.sha256(page).hexdigest()
    folder = job.lake.public / "reports" / f"run_date={job.run_date}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job.night.token:08d}-{digest[:16]}.html"
    write_atomically(path, page)
    path.chmod(0o644)
    details = {"report": str(path.relative_to(job.lake.root)), "sha256": digest}
    return StageRecord("report", inputs=inputs, details=details)


def render_report(context: ReportContext) -> str:
    """The page of a night. The same context gives the same bytes."""
    scripts = [_bundle_vega(), (files("jobs") / "templates" / "report.js").read_text()]
    return render_page(
        "report.html.j2",
        book=context.book,
        run_date=context.run_date.isoformat(),
        manifest=f"runs/run_date={context.run_date}/{context.token:08d}.json",
        codebook_sha256=context.codebook_sha256,
        program=version("mindcensus"),
        code_sha256=hash_code(),
        figure=name_figure(context.book.outcomes[0], context.book.parsed_outcomes()[0].kind, {}),
        series=find_series([*context.rows("cohorts"), *context.rows("distributions")]),
        editions=[_show_edition(context, words) for words in read_words(context.book)],
        downloads=make_downloads(context.tables, context.run_date),
        scripts=[Markup(script) for script in scripts],
        # The page may run these scripts and no other, and may load nothing.
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


def _show_edition(context: ReportContext, words: Words) -> dict[str, Any]:
    """The page's content in one language."""
    book, quality = context.book, context.rows("quality")
    distributions = context.rows("distributions")
    findings = find_findings(book, words, context.rows("cohorts"))
    # A trait's mean is no score that a reader knows the range of: it stands among the cohorts alone.
    scores = [one for one in findings if not one.outcome.latent]
    return {
        "words": words,
        "night": words.date(context.run_date),
        "headlines": [show_headline(book, one, context.releases) for one in scores],
        "outcomes": [show_outcome(book, one, context.releases, context.run_date, distributions) for one in findings],
        "early": warn_early(findings),
        "withheld": [count_withheld(one) for one in findings],
        "arrivals": show_quality(book, words, quality, context.run_date),
        "warnings": word_warnings(words, quality),
        "scales": [(words.name(s.label or s.key), word_scale(words, s), s.source) for s in book.scales],
        "earlier": [words.date(release.run_date) for release in context.releases],
    }


@cache
def _bundle_vega() -> str:
    """Vega, Vega-Lite and what puts them into a page, as one script; it needs no `eval` where asked for `ast`."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))
