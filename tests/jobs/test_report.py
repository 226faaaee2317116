import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from expectations.codebook import Codebook, read_codebook
from expectations.codebook_parts import Standard
from jobs.errors import StageError
from jobs.findings import find_findings
from jobs.job import Job
from jobs.lake import Lake, StageRecord
from jobs.provenance import hash_code, name_figure
from jobs.report import ReportContext, render_report, run
from jobs.report_outcomes import find_span
from jobs.report_releases import Release, read_releases
from jobs.tables import arrow_schema, estimates_columns, quality_columns
from jobs.words import LANGUAGES, read_messages, read_words

RUN_DATE = date(2031, 3, 1)
SHA = "0" * 64
HIDDEN = {("phq9_ge10", ("North",)), ("phq9_ge10", ("women", "75+"))}
VOID = {"meta", "br", "link", "img", "input", "hr"}
SECRET = 0.7654


@pytest.fixture(scope="module")
def whole_book() -> Codebook:
    return read_codebook("demo_population")[0]


@pytest.fixture(scope="module")
def book(whole_book: Codebook) -> Codebook:
    """Two outcomes and three breakdowns: a page that is drawn fast."""
    outcomes = ("phq9_total", "phq9_ge10")
    return whole_book.model_copy(update={"outcomes": outcomes, "breakdowns": ((), ("region",), ("sex", "age_band"))})


def make_cohorts(book: Codebook) -> pa.Table:
    """Rows for every public outcome and cell: two cells are suppressed, one is unreliable, one is flagged."""
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}
    rows: list[dict[str, Any]] = []
    for outcome in book.parsed_outcomes():
        for keys in book.breakdowns:
            for i, levels in enumerate(product(*(groups[key] for key in keys))):
                share = outcome.kind == "proportion"
                middle = (0.0853 if share else 3.1589) + (0.01 if share else 0.4) * (i % 5)
                half = (0.011 if share else 0.152) * (1 + len(keys))
                row: dict[str, Any] = dict.fromkeys(groups) | dict(zip(keys, levels, strict=True))
                row |= {"breakdown": "*".join(keys) or "all", "outcome": outcome.name, "kind": outcome.kind}
                row |= {"n": 1235, "n_weighted": 123000.0, "estimate": middle, "se": half / 2, "df": 40}
                row |= {"ci_low": middle - half, "ci_high": middle + half, "ci_method": "t", "presentation": "present"}
                row |= {"disclosure": "shown", "reason": None}
                gone = dict.fromkeys(("estimate", "se", "ci_low", "ci_high", "ci_method"))
                if (outcome.name, levels) in HIDDEN:
                    row |= gone | {"n": None, "n_weighted": None, "df": None, "disclosure": "complementary"}
                    row |= {"reason": "withheld: it would give a neighbouring figure away"}
                elif outcome.name == "phq9_total" and levels == ("East",):
                    row |= gone | {"presentation": "suppress", "reason": "sample below 30 (house rule)"}
                elif outcome.name == "phq9_total" and levels == ("South",):
                    row |= {"presentation": "review", "reason": "fewer than 8 degrees of freedom"}
                rows.append(row)
    return tabulate(book, rows)


def tabulate(book: Codebook, rows: list[dict[str, Any]]) -> pa.Table:
    columns = estimates_columns(book, internal=False)
    named = [{column.name: row.get(column.name) for column in columns} for row in rows]
    table = pa.Table.from_pylist(named, arrow_schema(columns))
    if "since" in table.column_names or not any("since" in row for row in rows):
        return table
    return table.append_column("since", pa.array([row.get("since") for row in rows], pa.date32()))


def add_kinds(book: Codebook, table: pa.Table) -> pa.Table:
    """The same figures with totals, medians, changes and standardised ones; none of a group that is suppressed."""
    rows = [{**row, "since": None} for row in table.to_pylist()]
    more = []
    for row in (row for row in rows if row["estimate"] is not None):
        if row["outcome"] == "phq9_ge10":
            more.append(row | {"kind": "total", "estimate": 1234000.0, "ci_low": 1200000.0, "ci_high": 1270000.0})
            more.append(row | {"kind": "standardised", "estimate": 0.0912, "ci_low": 0.081, "ci_high": 0.1023})
            bounds = {"estimate": -0.012, "ci_low": -0.02, "ci_high": -0.004}
            more.append(row | bounds | {"kind": "change", "since": date(2031, 1, 1)})
        if row["outcome"] == "phq9_total":
            median = {"estimate": 2.0, "ci_low": 1.0, "ci_high": 3.0}
            more.append(row | median | {"outcome": "phq9_p50", "kind": "quantile"})
    return tabulate(book, rows + more)


def make_quality() -> pa.Table:
    rows = [
        ("delivered", None, 12000),
        ("features", None, 11300),
        ("quarantined", None, 120),
        ("quarantined", "phq9_3_values", 65),
        ("quarantined", "weight_positive", None),
        ("ineligible", None, 580),
        ("warned", "row_count", None),
        ("warned", "phq9_3_null_share", None),
    ]
    names = ("stage", "reason", "rows", "disclosure")
    values = [dict(zip(names, (*row, "shown" if row[2] else "suppressed"), strict=True)) for row in rows]
    values.append({"stage": "response", "rows": 11300, "rate": 0.987, "disclosure": "shown"})
    return pa.Table.from_pylist(values, arrow_schema(quality_columns()))


def make_distributions(book: Codebook) -> pa.Table:
    """Depression by region; the highest bin of the north is withheld."""
    groups: list[str | None] = [None, *next(cohort.groups for cohort in book.cohorts if cohort.key == "region")]
    bins = [(None, -1.0, 0.16), (-1.0, 0.0, 0.34), (0.0, 1.0, 0.34), (1.0, None, 0.16)]
    rows = [
        {
            **dict.fromkeys(cohort.key for cohort in book.cohorts),
            "breakdown": "region" if group else "all",
            "region": group,
            "outcome": "depression",
            "bin_low": low,
            "bin_high": high,
            "share": None if group == "North" and high is None else share,
            "model_series": "series-7",
        }
        for group in groups
        for low, high, share in bins
    ]
    return pa.Table.from_pylist(rows)


def make_context(book: Codebook, **tables: pa.Table) -> ReportContext:
    named = {"cohorts": make_cohorts(book), "quality": make_quality(), **tables}
    return ReportContext(RUN_DATE, 7, book, SHA, named)


def make_releases(book: Codebook) -> list[Release]:
    whole = [row for row in make_cohorts(book).to_pylist() if row["breakdown"] == "all"]
    higher = [row | {"estimate": row["estimate"] * 1.1} for row in whole]
    return [Release(date(2031, month, 1), higher) for month in (1, 2)]


RATIO = "phq9_total_per_phq9_ge10"


@pytest.fixture(scope="module")
def page(book: Codebook) -> str:
    return render_report(make_context(book))


@pytest.fixture(scope="module")
def rich_page(book: Codebook) -> str:
    """Every kind of row, a ratio, a trait and its distributions, and two earlier releases."""
    shares = dict.fromkeys(next(cohort.groups for cohort in book.cohorts if cohort.key == "age_band"), 1.0)
    standard = Standard(cohort="age_band", shares=shares, source="The even population, 2031")
    book = book.model_copy(update={"outcomes": (*book.outcomes, RATIO, "depression_mean"), "standard": standard})
    tables = {"cohorts": add_kinds(book, make_cohorts(book)), "distributions": make_distributions(book)}
    named = make_context(book, **tables).tables
    return render_report(ReportContext(RUN_DATE, 7, book, SHA, named, make_releases(book)))


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
        if data.strip() and self.open[-1] not in ("style", "script"):
            self.texts.append(" ".join(data.split()))


def find_specs(page: str) -> list[str]:
    return re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.S)


def list_marks(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [datum for layer in spec["layer"] for datum in layer["data"]["values"] if "i" in datum]


def split_languages(page: str) -> dict[str, str]:
    """The page's body in each language, without its scripts."""
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    main = bare[bare.index("<main>") : bare.index('<section aria-labelledby="downloads"')]
    _, first, second = re.split(r'<div data-edition="[^"]*" lang="[^"]*">', main)
    return {tag: part.rsplit("</div>", 1)[0] for tag, part in (("en", first), ("zh", second))}


def test_the_page_is_well_formed_and_its_ids_are_single(rich_page: str) -> None:
    reader = Reader(rich_page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    links = [value for tag, name, value in reader.attributes if tag == "a" and name == "href"]
    targets = {value[1:] for value in links if value.startswith("#")}
    targets |= {value for _, name, value in reader.attributes if name == "aria-details"}
    assert targets and targets <= set(reader.ids)


def test_nothing_is_loaded_from_outside_and_only_its_own_scripts_run(rich_page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", rich_page, flags=re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', rich_page)
    assert policy and policy[1].startswith("default-src 'none'; script-src 'sha256-") and "eval" not in policy[1]
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy[1]
    bare = re.sub(r"<script.*?</script>", "", rich_page, flags=re.S)
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\((?!#)|<link|<iframe", bare)
    named = [
        value for _, name, value in Reader(rich_page).attributes if name in ("src", "href", "xlink:href", "srcset")
    ]
    assert all(value.startswith(("#", "data:")) for value in named)


def test_every_outcome_and_group_is_named_in_both_languages(book: Codebook, page: str) -> None:
    for words in read_words(book):
        text = " ".join(Reader(split_languages(page)[words.language]).texts)
        for findings in find_findings(book, words, []):
            assert findings.title in text
        for cohort in (cohort for cohort in book.cohorts if cohort.key in ("region", "sex", "age_band")):
            assert words.name(cohort.label).lower() in text.lower()
            assert all(words.name(cohort.read_group(group)) in text for group in cohort.groups)


def test_the_languages_have_the_same_figures(rich_page: str) -> None:
    parts = split_languages(rich_page)
    tables = {tag: re.findall(r'<td class="num">([^<]*)</td>', part) for tag, part in parts.items()}
    figures = {tag: [re.findall(r"[−\d.,]*\d", cell) for cell in cells] for tag, cells in tables.items()}
    assert figures["en"] == figures["zh"] and sum(map(len, figures["en"])) > 100
    # The shapes differ where a label needs two lines; what they stand for does not.
    specs = [json.loads(text) for text in find_specs(rich_page)]
    drawn = [[[mark.get(name) for name in ("low", "estimate", "high")] for mark in list_marks(spec)] for spec in specs]
    assert drawn[: len(drawn) // 2] == drawn[len(drawn) // 2 :]


def test_figures_are_rounded(page: str) -> None:
    text = " ".join(Reader(split_languages(page)["en"]).texts)
    for expected in ("8.5 %", "7.4 to 9.6", "3.16", "3.01 to 3.31", "1,235", "12,000", "94.2 %", "98.7 %"):
        assert expected in text, expected
    assert not re.search(r"8\.53|3\.158", text)


def test_what_is_not_shown_is_said_so_in_picture_and_table(page: str) -> None:
    texts = Reader(split_languages(page)["en"]).texts
    # The picture by region and its row; the square of the two-way picture and its row; and the count of a rule.
    assert texts.count("suppressed") == 5
    assert texts.count("not reliable") == 2
    assert "sample below 30 (house rule)" in texts
    assert any(text.endswith("†") for text in texts)
    chinese = Reader(split_languages(page)["zh"]).texts
    assert "样本量低于 30（自定规则）" in chinese
    assert chinese.count("不可靠") == 2


def test_nothing_that_the_tables_suppress_is_in_the_page(book: Codebook) -> None:
    """A suppressed row may not hold a figure; one that did all the same would not be drawn."""
    rows = make_cohorts(book).to_pylist()
    secret = dict.fromkeys(("estimate", "ci_low", "ci_high"), SECRET)
    hidden = [row | secret if row["disclosure"] != "shown" else row for row in rows]
    assert hidden != rows
    page = render_report(make_context(book, cohorts=tabulate(book, hidden)))
    assert "76.5" not in page and "0.7654" not in page


def test_the_kind_of_suppression_is_not_told(page: str) -> None:
    assert "neighbouring figure" not in page and "complementary" not in page
    assert "withheld to protect people" in page and "为保护个人而不公布" in page


def test_pictures_have_words_tables_and_specifications(page: str) -> None:
    part = split_languages(page)["en"]
    labels = [value for tag, name, value in Reader(part).attributes if tag == "div" and name == "aria-label"]
    # For each of two outcomes a headline's picture, one by group and one by two cohorts.
    assert part.count('class="chart"') == part.count('role="img"') == 2 * 3
    assert any("Lowest: Men, 18-29, 8.5" in label for label in labels)
    assert part.count("<table>") == part.count("<caption>") == 2 + 3
    specs = [json.loads(text) for text in find_specs(page)]
    assert len(specs) == 2 * 2 * 2  # by group and by two cohorts, two outcomes, two languages
    for spec in specs:
        data = list_marks(spec)
        assert {datum["i"] for datum in data} == set(range(len({datum["i"] for datum in data})))
        assert all(datum["tip"] for datum in data)


def test_the_heat_map_has_every_figure_of_its_cells(book: Codebook, page: str) -> None:
    wanted = ("sex*age_band", "phq9_ge10")
    rows = [row for row in make_cohorts(book).to_pylist() if (row["breakdown"], row["outcome"]) == wanted]
    spec = next(text for text in find_specs(page) if "Women, 75+: suppressed" in text)
    data = list_marks(json.loads(spec))
    drawn = {datum["tip"].split(";")[0].split(": ")[0]: datum["text"] for datum in data}
    expected = {
        f"{row['sex'].capitalize()}, {row['age_band']}": "suppressed" if row["estimate"] is None
        else f"{100 * row['estimate']:.1f}" for row in rows
    }  # fmt: skip
    assert drawn == expected


def test_the_standardised_figure_and_its_population_are_told(rich_page: str) -> None:
    for told in ("Standardised by age: 9.1 % (8.1 to 10.2)", "按年龄标准化：9.1%（8.1 至 10.2）"):
        assert rich_page.count(told) == 1
    assert rich_page.count("The even population, 2031") == 2


def test_other_kinds_stand_beside_their_figures(rich_page: str) -> None:
    part = split_languages(rich_page)["en"]
    text = " ".join(Reader(part).texts)
    assert "About 1,234,000 people (1,200,000 to 1,270,000)" in text
    assert "Half of people score 2.00 or less (1.00 to 3.00)" in text
    assert "−1.2 percentage points (−2.0 to −0.4) since 1 January 2031" in text
    # Without a row of the change, what was published before is told.
    assert "3.47 on 1 February 2031" in text
    assert "Estimated number of people" in text and "50 % score at most" in text


def test_a_ratio_has_a_title_and_a_card_of_its_own(rich_page: str) -> None:
    title = "PHQ-9 depression score, mean, relative to PHQ-9 depression score of 10 or more"
    cards = re.findall(r'<article class="card">\s*<h3>(.*?)</h3>', rich_page)
    assert title in cards
    for language in ("en", "zh"):
        headings = re.findall(rf'<h3 id="{language}-outcome-[^"]*">(.*?)(?: <small|</h3>)', rich_page)
        assert len(headings) == 4 == len(set(headings))


def test_trends_show_the_releases_and_distributions_their_bins(rich_page: str) -> None:
    specs = find_specs(rich_page)
    trends = [spec for spec in specs if "1 January 2031: " in spec]
    assert len(trends) == 4
    assert all(when in trends[0] for when in ("1 February 2031: 3.47", "1 March 2031: 3.16"))
    bins = next(spec for spec in specs if "North, 0.0 to 1.0: 34 %" in spec)
    assert "Everybody, below −1.0: 16 %" in bins and "North, 1.0 and above: suppressed" in bins
    assert "series-7" in rich_page


def test_a_trait_of_another_series_has_no_trend_and_says_so(book: Codebook) -> None:
    book = book.model_copy(update={"outcomes": ("phq9_total", "depression_mean")})
    table = make_cohorts(book).to_pylist()
    series = {"phq9_total": None, "depression_mean": "series-7"}
    rows = tabulate(book, [row | {"model_series": series[row["outcome"]]} for row in table])
    releases = make_releases(book)
    for release in releases:
        for row in release.rows:
            row["model_series"] = (row["outcome"] == "depression_mean" and "series-1") or None  # type: ignore[index]
    page = render_report(ReportContext(RUN_DATE, 7, book, SHA, make_context(book, cohorts=rows).tables, releases))
    text = " ".join(Reader(split_languages(page)["en"]).texts)
    assert text.count("Its unit is new since the release of 1 February 2031") == 1
    trends = [spec for spec in find_specs(page) if "1 January 2031: " in spec]
    assert len(trends) == 1 and "Over the releases" in text  # of the score alone
    # A release in the same unit brings the trend back, and the page still says where it begins.
    rejoined = replace(releases[1], rows=[dict(row, model_series=series[row["outcome"]]) for row in releases[1].rows])
    tables = make_context(book, cohorts=rows).tables
    page = render_report(ReportContext(RUN_DATE, 7, book, SHA, tables, [releases[0], rejoined]))
    text = " ".join(Reader(split_languages(page)["en"]).texts)
    assert text.count("Its unit is new since the release of 1 January 2031") == 1
    assert len([spec for spec in find_specs(page) if "1 February 2031: " in spec]) == 2


def test_without_earlier_releases_there_is_no_trend(page: str) -> None:
    assert "Over the releases" not in page and "历次发布" not in page


def test_the_same_context_gives_the_same_bytes(book: Codebook, page: str) -> None:
    assert render_report(make_context(book)) == page


def test_warnings_are_told_without_counts(page: str) -> None:
    assert "The number of rows has changed markedly" in page and "行数与上一次数据相比变化明显" in page
    assert "far more or less" not in page and "phq9_3." in page


def test_missing_figures_are_said_to_be(book: Codebook) -> None:
    empty = {"cohorts": make_cohorts(book).slice(0, 0), "quality": make_quality().slice(0, 4)}
    page = render_report(make_context(book, **empty))
    assert "no figure" in Reader(page).texts
    assert "No warning" in page


def test_names_of_the_tables_are_escaped(book: Codebook) -> None:
    odd = make_quality().to_pylist() + [{"stage": "<b>", "reason": "<i>", "rows": 10, "disclosure": "shown"}]
    page = render_report(make_context(book, quality=pa.Table.from_pylist(odd)))
    assert "<b>" not in page and "&lt;i&gt;" in page


def test_downloads_hold_the_public_tables(book: Codebook, page: str) -> None:
    links = dict(re.findall(r'download="([^"]*)" href="data:[^"]*?base64,([^"]*)"', page))
    assert set(links) == {f"{t}-2031-03-01.{f}" for t in ("cohorts", "quality") for f in ("csv", "xlsx", "parquet")}
    cohorts = make_cohorts(book)
    assert pq.read_table(io.BytesIO(base64.b64decode(links["cohorts-2031-03-01.parquet"]))).equals(cohorts)
    read = pyarrow.csv.read_csv(io.BytesIO(base64.b64decode(links["cohorts-2031-03-01.csv"])))
    assert read["estimate"].to_pylist() == cohorts["estimate"].to_pylist()
    assert base64.b64decode(links["cohorts-2031-03-01.xlsx"])[:2] == b"PK"


def test_axes_start_at_nought_for_proportions_and_hold_every_interval(whole_book: Codebook) -> None:
    rows = make_cohorts(whole_book).to_pylist()
    for findings in find_findings(whole_book, read_words(whole_book)[0], rows):
        span = find_span(findings.cells(), findings)
        shown = [row for row in rows if row["outcome"] == findings.outcome.name and row["estimate"] is not None]
        if not shown:
            continue
        assert span.low <= min(row["ci_low"] for row in shown)
        assert span.high >= max(row["ci_high"] for row in shown)
        assert findings.outcome.kind == "mean" or span.low == 0


def test_every_message_is_there_in_every_language() -> None:
    english, _ = read_messages("en")
    for language in LANGUAGES:
        messages, _ = read_messages(language)
        assert set(messages) == set(english)
        for key, message in messages.items():
            texts = [form["other"] if isinstance(form, dict) else form for form in (message, english[key])]
            own, theirs = (set(re.findall(r"{(\w+)}", text)) for text in texts)
            assert own == theirs, key


@pytest.mark.parametrize("name", ["demo_population", "nhanes_2017_2018"])
def test_shipped_codebooks_have_their_words_in_chinese(name: str) -> None:
    book, _ = read_codebook(name)
    words = read_words(book)[1]
    said = [book.title, *(s.label for s in book.scales), *(band for s in book.scales for band in s.bands)]
    said += [t.label for t in book.traits]
    said += [text for c in book.cohorts for text in (c.label, *(c.read_group(group) for group in c.groups))]
    missing = [text for text in said if re.search("[a-z]{2}", text) and words.name(text) == text]
    assert missing == []


def test_a_release_is_read_as_the_public_manifests_say(book: Codebook, tmp_path: Path) -> None:
    public = tmp_path / "public"
    for day, name in (("2031-01-01", book.codebook), ("2031-02-01", "another"), ("2031-03-01", book.codebook)):
        (public / "runs" / f"run_date={day}").mkdir(parents=True)
        pq.write_table(make_cohorts(book), public / f"{day}.parquet")
        manifest = {
            "run_date": day,
            "codebook": {"name": name},
            "tables": {"cohorts": [{"path": f"public/{day}.parquet"}]},
        }
        (public / "runs" / f"run_date={day}" / "00000001.json").write_text(json.dumps(manifest))
    releases = read_releases(public, book.codebook, RUN_DATE)
    assert [release.run_date.isoformat() for release in releases] == ["2031-01-01"]
    assert {row["breakdown"] for row in releases[0].rows} == {"all"}
    (public / "2031-01-01.parquet").write_bytes(b"damaged")
    with pytest.raises(StageError, match=r"2031-01-01\.parquet .* missing or damaged: restore it"):
        read_releases(public, book.codebook, RUN_DATE)


def test_run_writes_one_public_file_and_names_it(book: Codebook, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    night = lake.open_night(RUN_DATE)
    small = book.model_copy(update={"outcomes": ("phq9_ge10",), "breakdowns": ((),)})
    tables = {}
    for name, table in (("cohorts", make_cohorts(small)), ("quality", make_quality())):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        tables[name] = night.adopt([tmp_path / f"{name}.parquet"], name)
    night.write(StageRecord("aggregate", tables=tables))

    record = run(Job(lake, night, small, SHA))
    again = run(Job(lake, night, small, SHA))

    assert record == again
    page = lake.root / record.details["report"]
    assert page.parent == lake.public / "reports" / "run_date=2031-03-01"
    assert [file.name for file in page.parent.iterdir()] == [f"{night.token:08d}-{record.details['sha256'][:16]}.html"]
    assert page.stat().st_mode & 0o777 == 0o644
    assert json.loads(json.dumps(record.to_json()))["inputs"].keys() == {"aggregate"}


def test_two_steps_lead_from_a_figure_to_its_manifest(page: str, book: Codebook) -> None:
    """A table's row has an address, its caption leads to the provenance, and that names manifest, codebook and code."""
    ids, (cohort,) = Reader(page).ids, next(keys for keys in book.breakdowns if len(keys) == 1)
    group = next(one for one in book.cohorts if one.key == cohort).groups[0]
    for language in ("en", "zh"):
        for cell in ({}, {cohort: group}):
            assert ids.count(f"{language}-{name_figure('phq9_ge10', 'proportion', cell)}") == 1
        link = f'<a href="#{language}-provenance">'
        tables = page.count(f'<details id="{language}-outcome-')
        assert tables > 1 and page.count(link) == tables + 1  # every table, and the headlines
        section = page[page.index(f'id="{language}-provenance"') :].partition("</dl>")[0]
        for told in ("runs/run_date=", SHA, hash_code(), version("mindcensus")):
            assert told in section
