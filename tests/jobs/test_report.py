import json
import re
from datetime import date
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.codebook import Codebook, read_codebook
from jobs.findings import find_findings, find_span
from jobs.job import Job
from jobs.lake import Lake, StageRecord
from jobs.report import ReportContext, render_report, run
from jobs.tables import arrow_schema, estimates_columns, quality_columns

RUN_DATE = date(2031, 3, 1)
SHA = "0" * 64
HIDDEN = {("phq9_ge10", ("North",)), ("phq9_ge10", ("women", "75+"))}
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def book() -> Codebook:
    return read_codebook("demo_population")[0]


@pytest.fixture(scope="module")
def small_book(book: Codebook) -> Codebook:
    """Two outcomes by region: a page that is drawn fast."""
    return book.model_copy(update={"outcomes": ("phq9_total", "phq9_ge10"), "breakdowns": ((), ("region",))})


def make_cohorts(book: Codebook) -> pa.Table:
    """Rows for every public outcome and cell: two cells are suppressed, one is unreliable, one is flagged."""
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}
    rows: list[dict[str, Any]] = []
    for outcome in (o for o in book.parsed_outcomes() if not o.latent):
        for keys in book.breakdowns:
            for i, levels in enumerate(product(*(groups[key] for key in keys))):
                share = outcome.kind == "proportion"
                middle = (0.0853 if share else 3.1589) + (0.01 if share else 0.4) * (i % 5)
                half = (0.011 if share else 0.152) * (1 + len(keys))
                row: dict[str, Any] = dict.fromkeys(groups) | dict(zip(keys, levels, strict=True))
                row |= {"breakdown": "*".join(keys) or "all", "outcome": outcome.name, "kind": outcome.kind}
                row |= {"n": 1235, "n_weighted": 123000.0, "estimate": middle, "se": half / 2, "df": 40, "deff": None}
                row |= {"ci_low": middle - half, "ci_high": middle + half, "ci_method": "t", "presentation": "present"}
                row |= {"disclosure": "shown", "reason": None}
                gone = dict.fromkeys(("estimate", "se", "ci_low", "ci_high", "ci_method"))
                if (outcome.name, levels) in HIDDEN:
                    row |= gone | {"n": None, "n_weighted": None, "df": None, "disclosure": "complementary"}
                    row |= {"reason": "withheld: it would give a neighbouring figure away"}
                elif outcome.name == "gad7_total" and levels == ("unemployed",):
                    row |= gone | {"presentation": "suppress", "reason": "sample below 30 (house rule)"}
                elif outcome.name == "gad7_total" and levels == ("primary",):
                    row |= {"presentation": "review", "reason": "fewer than 8 degrees of freedom"}
                rows.append(row)
    return pa.Table.from_pylist(rows, arrow_schema(estimates_columns(book, internal=False)))


def make_quality() -> pa.Table:
    rows = [
        ("delivered", None, 12000),
        ("features", None, 11300),
        ("quarantined", None, 120),
        ("quarantined", "phq9_3_values", 65),
        ("quarantined", "weight_positive", None),
        ("ineligible", None, 580),
    ]
    names = ("stage", "reason", "rows", "disclosure")
    values = [dict(zip(names, (*row, "shown" if row[2] else "suppressed"), strict=True)) for row in rows]
    return pa.Table.from_pylist(values, arrow_schema(quality_columns()))


def make_context(book: Codebook, **changes: Any) -> ReportContext:
    validation = {"nats_per_answer": 0.9, "margins_nats_per_answer": 1.2}
    model = {"model_version": "vae-20310201", "trained_on": "2031-02-01", "promoted": False, "validation": validation}
    values = {
        "run_date": RUN_DATE,
        "token": 7,
        "book": book,
        "codebook_sha256": SHA,
        "cohorts": make_cohorts(book),
        "quality": make_quality(),
        "files": ["people-0.csv"],
        "warnings": ["row_count", "phq9_3_null_share"],
        "model": model,
    }
    return ReportContext(**(values | changes))


@pytest.fixture(scope="module")
def page(book: Codebook) -> str:
    return render_report(make_context(book))


class Reader(HTMLParser):
    """Collects texts and ids, and checks that every tag is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1:] != ["style"]:
            self.texts.append(" ".join(data.split()))


def test_the_page_is_well_formed_and_its_ids_are_single(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    targets = [value[1:] for tag, name, value in reader.attributes if tag == "a" and name == "href"]
    assert targets and set(targets) <= set(reader.ids)


def test_nothing_is_loaded_from_outside(page: str) -> None:
    assert not re.search(r"https?://(?!www\.w3\.org/)|//[a-z]+\.|@import|url\((?!#)|<script|<link|<iframe", page)
    named = [value for _, name, value in Reader(page).attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert all(value.startswith("#") for value in named)


def test_every_outcome_and_group_is_named(book: Codebook, page: str) -> None:
    texts = " ".join(Reader(page).texts)
    for findings in find_findings(book, []):
        assert findings.title in texts
    for cohort in book.cohorts:
        assert cohort.label in texts
        assert all(cohort.read_group(group) in texts for group in cohort.groups)
    assert "depression_mean" not in page


def test_figures_are_rounded(page: str) -> None:
    texts = Reader(page).texts
    for expected in ("8.5", "7.4 to 9.6", "3.16", "3.01 to 3.31", "1,235", "120", "12,000", "94.2 %"):
        assert expected in texts or any(expected in text for text in texts), expected
    assert not any("8.53" in text or "3.158" in text for text in texts)


def test_what_is_not_shown_is_said_so_in_picture_and_table(page: str) -> None:
    texts = Reader(page).texts
    # Region's picture and its table row; the two-way picture and row; and the count of a rule.
    assert texts.count("suppressed") == 5 + 1  # once more in the methods' words
    assert texts.count("not reliable") == 2 + 1
    assert "sample below 30 (house rule)" in texts
    assert any(text.startswith("3.16") and text.endswith("†") for text in texts)


def test_the_kind_of_suppression_is_not_told(page: str) -> None:
    assert "neighbouring figure" not in page and "complementary" not in page
    assert "withheld to protect people" in page


def test_pictures_have_words(page: str) -> None:
    reader = Reader(page)
    pictures = [value for tag, name, value in reader.attributes if (tag, name, value) == ("div", "role", "img")]
    labels = [value for tag, name, value in reader.attributes if tag == "div" and name == "aria-label"]
    assert len(pictures) == page.count('class="chart"') == 7 + 7 * 7
    assert any("by region: dots with 95 % intervals. Lowest: East, 9.5" in label for label in labels)
    assert page.count("<table>") == page.count("<caption>") == 7 + 3


def test_the_same_context_gives_the_same_bytes(small_book: Codebook) -> None:
    assert render_report(make_context(small_book)) == render_report(make_context(small_book))


def test_missing_facts_and_figures_are_said_to_be(small_book: Codebook) -> None:
    empty = make_cohorts(small_book).slice(0, 0)
    page = render_report(make_context(small_book, cohorts=empty, model={}, files=[], warnings=[]))
    texts = Reader(page).texts
    assert "not known" in texts
    assert "no figure" in texts
    assert "No warning" in page


def test_delivered_names_are_escaped(small_book: Codebook) -> None:
    page = render_report(make_context(small_book, files=["<img src=x>.csv"], model={"model_version": "<b>"}))
    assert "<img" not in page and "&lt;img src=x&gt;.csv" in page
    assert "<b>" not in page


def test_axes_start_at_nought_for_proportions_and_hold_every_interval(book: Codebook) -> None:
    rows = make_cohorts(book).to_pylist()
    for findings in find_findings(book, rows):
        span = find_span(findings)
        shown = [row for row in rows if row["outcome"] == findings.outcome.name and row["estimate"] is not None]
        assert span.low <= min(row["ci_low"] for row in shown)
        assert span.high >= max(row["ci_high"] for row in shown)
        assert findings.outcome.kind == "mean" or span.low == 0


def test_run_writes_one_public_file_and_names_it(small_book: Codebook, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    night = lake.open_night(RUN_DATE)
    tables = {}
    for name, table in (("cohorts", make_cohorts(small_book)), ("quality", make_quality())):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        tables[name] = night.adopt([tmp_path / f"{name}.parquet"], name)
    warning = {"rule": "odd_income", "message": "3 rows"}
    files = [{"name": "people-0.csv", "size": 98765, "sha256": "f" * 64}]
    night.write(StageRecord("validate", details={"warnings": [warning], "files": files}))
    night.write(StageRecord("train", details={"model_version": "m1", "trained_on": "2031-03-01", "promoted": True}))
    night.write(StageRecord("aggregate", tables=tables))

    record = run(Job(lake, night, small_book, SHA))
    again = run(Job(lake, night, small_book, SHA))

    assert record == again
    page = lake.root / record.details["report"]
    assert page.parent == lake.public / "reports" / "run_date=2031-03-01"
    assert [file.name for file in page.parent.iterdir()] == [f"{night.token:08d}-{record.details['sha256'][:16]}.html"]
    assert page.stat().st_mode & 0o777 == 0o644
    text = page.read_text()
    # An exact count, the extract's size and its digest stay inside.
    assert "odd_income" in text
    assert not any(secret in text for secret in ("3 rows", "98765", "98,765", "ffffffff"))
    assert json.loads(json.dumps(record.to_json()))["inputs"].keys() == {"validate", "train", "aggregate"}
