"""The report's sections about outcomes: headline figures, pictures by cohort, tables, and what is withheld."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

from expectations.codebook import Codebook
from jobs.charts import Picture
from jobs.findings import Cell, Findings, Row, find_bands, find_status, find_trait, label_breakdown
from jobs.report_charts import Mark, Span, draw_forest, draw_hundred, draw_ruler
from jobs.report_distributions import show_distribution
from jobs.report_grids import draw_heat, draw_trend
from jobs.report_releases import Release

MOST_GROUPS = 40  # of a breakdown in a picture
MOST_COLUMNS = 6  # of a heat map: figures must fit


def show_headline(book: Codebook, findings: Findings, releases: Sequence[Release]) -> dict[str, Any]:
    words, whole, name = findings.words, findings.whole, findings.outcome.name
    row, prefix = whole.shown, findings.words.language
    bands: list[str] = []
    caption, alt = "", ""
    picture: Picture | None = None
    if findings.percent:
        caption = words.say("of_hundred")
        share = row["estimate"] if row else None
        picture = draw_hundred(share, f"{prefix}-people-{name}")
        alt = words.say("dots_none") if share is None else words.say("dots", filled=round(100 * share))
    elif findings.ceiling:
        spans = find_bands(book, findings.outcome)
        worse_up = not book.scale(findings.outcome.source.removesuffix("_total")).positive
        ruled, mark = [span[:2] for span in spans], mark_cell(findings, whole)
        picture = draw_ruler(ruled, mark, worse_up, f"{prefix}-ruler-{name}")
        low, high = f"{spans[0][0]:g}", f"{spans[-1][1]:g}"
        alt = words.say("ruler", low=low, high=high, value=findings.short(whole))
        named = [span for span in spans if span[2]]
        ends = [int(after[0]) - 1 for _, after in pairwise(named)] + [int(spans[-1][1])]
        bands = [
            words.say("band", low=int(start), high=end, name=words.name(band))
            for (start, _, band), end in zip(named, ends, strict=False)
        ]
        caption = words.say("bands", bands=words.say("list_comma").join(bands)) if bands else words.say("whole_range")
    return {
        "title": findings.title,
        "value": findings.quantity(row["estimate"]) + whole.flag if row else words.say(whole.status or "absent"),
        "unit": words.say("of_people") if findings.percent else findings.unit,
        "shown": row is not None,
        "lines": _tell_more(book, findings, releases) if row else [],
        "picture": picture,
        "alt": alt,
        "caption": caption,
    }


def _tell_more(book: Codebook, findings: Findings, releases: Sequence[Release]) -> list[str]:
    """Interval, numbers of people, standardised figure, quantiles, and the change since the last comparable release."""
    words, whole = findings.words, findings.whole
    lines = [words.say("interval", interval=findings.bounds(whole.row))] if findings.bounds(whole.row) else []
    if whole.row and whole.row["n"] is not None:
        lines.append(words.say("answered", n=whole.row["n"]))
    if total := whole.also("total"):
        lines.append(tell_total(findings, total))
    if book.standard and (standardised := whole.also("standardised")):
        cohort = label_breakdown(book, words, (book.standard.cohort,))
        value, interval = findings.quantity(standardised["estimate"]), findings.bounds(standardised)
        key = "standardised" if interval else "standardised_bare"
        lines.append(words.say(key, cohort=cohort[:1].lower() + cohort[1:], value=value, interval=interval))
    for percent in findings.quantiles():
        if quantile := whole.also(percent):
            key = "median" if percent == "50" else "quantile"
            value, interval = findings.number(quantile["estimate"]), findings.bounds(quantile)
            lines.append(words.say(key, percent=percent, value=value, interval=interval))
    if change := tell_change(findings, whole):
        lines.append(change)
    elif releases:
        row = releases[-1].find(findings.outcome.name, findings.outcome.kind)
        if row is not None and find_status(row) is None:
            value, when = findings.quantity(row["estimate"]), words.date(releases[-1].run_date)
            lines.append(words.say("before", value=value, date=when))
    return lines


def tell_total(findings: Findings, row: Row) -> str:
    words = findings.words
    total = words.count(row["estimate"])
    if row["ci_low"] is None or row["ci_high"] is None:
        return words.say("total_bare", total=total)
    bounds = words.say("to", low=words.count(row["ci_low"]), high=words.count(row["ci_high"]))
    return words.say("total", total=total, interval=bounds)


def tell_change(findings: Findings, cell: Cell) -> str:
    words, row = findings.words, cell.also("change")
    if row is None:
        return ""
    change = findings.number(row["estimate"], signed=True)
    if findings.percent:
        change = words.say("percent_points", value=change)
    since = words.date(row["since"]) if row.get("since") else ""
    bounds = findings.bounds(row)
    key = "change" if bounds else "change_bare"
    return words.say(key, change=change, interval=bounds, since=since)


def show_outcome(
    book: Codebook, findings: Findings, releases: Sequence[Release], run_date: date, distributions: Sequence[Row]
) -> dict[str, Any]:
    """One outcome's pictures, each with its words, and its table."""
    words, name = findings.words, f"{findings.words.language}-{findings.outcome.name}"
    span, left_out = find_span(findings.cells(), findings), 0
    drawn: list[Cell] = []
    marks, panels = [], []
    for keys, cells in findings.by_breakdown.items():
        by = label_breakdown(book, words, keys)
        if len(keys) < 2 and len(cells) <= MOST_GROUPS:
            marks += ([Mark(by)] if keys else []) + [mark_cell(findings, cell) for cell in cells]
            drawn += cells
        elif len(keys) == 2 and (heat := _draw_heat(book, findings, keys, f"{name}-{'-'.join(keys)}")):
            title = words.say("heat", by=by)
            panels.append(_panel(title, heat, _describe(findings, cells, title), _note_heat(findings, cells)))
        else:
            left_out += len(cells)
    forest = draw_forest(marks, span, name)
    title = words.say("forest")
    first = _panel(title, forest, _describe(findings, drawn, title), "") | {"tall": True}
    if trend := _draw_trend(findings, releases, run_date, f"{name}-trend"):
        title = words.say("trend")
        panels.append(_panel(title, trend, _describe(findings, [], title), words.say("trend_note")))
    if find_trait(book, findings.outcome):
        panels += show_distribution(book, words, findings, distributions)
    return {
        "findings": findings,
        "panels": [first, *panels],
        "blocks": [(label_breakdown(book, words, keys), cells) for keys, cells in findings.by_breakdown.items()],
        "summary": _summarise(findings),
        "new_unit": _tell_new_unit(findings, releases),
        "too_many": words.say("too_many", n=left_out) if left_out else "",
        "flagged": any(cell.flag for cell in findings.cells()),
        "totals": any("total" in cell.beside for cell in findings.cells()),
        "changes": any("change" in cell.beside for cell in findings.cells()),
    }


def _panel(title: str, picture: Picture, alt: str, note: str) -> dict[str, Any]:
    return {"title": title, "picture": picture, "alt": alt, "note": note, "tall": False, "bins": []}


def mark_cell(findings: Findings, cell: Cell) -> Mark:
    row, label = cell.shown, findings.label(cell)
    text = findings.short(cell)
    parts = [part for part in (text, tell_change(findings, cell)) if part]
    if row and row["n"] is not None:
        parts.insert(1, findings.words.say("answered", n=row["n"]))
    tip = findings.words.say("semicolon").join([f"{label}: {parts[0]}", *parts[1:]])
    low, estimate, high = (row[name] if row else None for name in ("ci_low", "estimate", "ci_high"))
    return Mark(label, low, estimate, high, text, tip)


def find_span(cells: Iterable[Cell], findings: Findings) -> Span:
    """One axis for all of an outcome's pictures, so that they can be compared: round ends, from 0 for proportions."""
    rows = [cell.shown for cell in cells if cell.shown]
    return span_values(findings, [row[name] for row in rows for name in ("ci_low", "estimate", "ci_high")])


def span_values(findings: Findings, values: Iterable[float | None]) -> Span:
    seen = [value for value in values if value is not None]
    low, high = (min(seen), max(seen)) if seen else (0.0, 0.1 if findings.percent else max(findings.ceiling, 1.0))
    low = 0.0 if findings.percent else low
    rough = max(high - low, 1e-3) / 3
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    whole = findings.whole.shown
    band = None
    if whole and whole["ci_low"] is not None and whole["ci_high"] is not None:
        band = (whole["ci_low"], whole["estimate"], whole["ci_high"])
    number_format = (".0%" if step >= 0.01 else ".1%") if findings.percent else ".2~f"
    return Span(round(low, 9), round(max(high, low + step), 9), number_format, band)


def _draw_heat(book: Codebook, findings: Findings, keys: tuple[str, ...], name: str) -> Picture | None:
    """The smaller cohort across, the larger down; None where they are too large to be read."""
    cohorts = {cohort.key: cohort for cohort in book.cohorts}
    sizes = [len(cohorts[key].groups) for key in keys]
    across = int(sizes[1] < sizes[0])
    if sizes[across] > MOST_COLUMNS or sizes[1 - across] > MOST_GROUPS:
        return None
    cells = findings.by_breakdown[keys]
    labels = [list(dict.fromkeys(cell.levels[i] for cell in cells)) for i in (0, 1)]
    found = {cell.levels: cell for cell in cells}
    order = [(c, r) if across == 0 else (r, c) for r in labels[1 - across] for c in labels[across]]
    marks = []
    for levels in order:
        mark = mark_cell(findings, found[levels])
        row = found[levels].shown
        text = findings.number(row["estimate"]) + found[levels].flag if row else mark.text
        marks.append(Mark(mark.label, mark.low, mark.estimate, mark.high, text, mark.tip))
    shown = [mark.estimate for mark in marks if mark.estimate is not None]
    span = Span(min(shown, default=0.0), max(shown, default=1.0), "")
    return draw_heat(labels[1 - across], labels[across], marks, span, name)


def _note_heat(findings: Findings, cells: Sequence[Cell]) -> str:
    shown = [cell.shown["estimate"] for cell in cells if cell.shown]
    if not shown:
        return ""
    return findings.words.say("heat_note", low=findings.quantity(min(shown)), high=findings.quantity(max(shown)))


def _draw_trend(findings: Findings, releases: Sequence[Release], run_date: date, name: str) -> Picture | None:
    """The whole population's figure over the comparable releases; None before the second one."""
    words, outcome = findings.words, findings.outcome
    own = findings.whole.row
    series = (own or {}).get("model_series")
    points = [(one.run_date, one.find(outcome.name, outcome.kind)) for one in releases] + [(run_date, own)]
    # Another series of models has another unit.
    points = [(day, row) for day, row in points if row is not None and row.get("model_series") == series]
    cells = [Cell((), row, {}) for _, row in points]
    if len([cell for cell in cells if cell.shown]) < 2:
        return None
    marks = []
    for (day, _), cell in zip(points, cells, strict=True):
        mark, tip = mark_cell(findings, cell), f"{words.date(day)}: {findings.short(cell)}"
        marks.append(Mark(words.short_date(day), mark.low, mark.estimate, mark.high, mark.text, tip))
    bounds = [value for mark in marks for value in (mark.low, mark.estimate, mark.high)]
    days = [(day - points[0][0]).days for day, _ in points]
    return draw_trend(marks, days, span_values(findings, bounds), name)


def _tell_new_unit(findings: Findings, releases: Sequence[Release]) -> str:
    """That releases up to a date have another unit, of another series of models; nothing where none has."""
    outcome, own = findings.outcome, findings.whole.row
    rows = [(one.run_date, one.find(outcome.name, outcome.kind)) for one in releases]
    others = [day for day, row in rows if own and row and row.get("model_series") != own.get("model_series")]
    return findings.words.say("new_unit", date=findings.words.date(others[-1])) if others else ""


def _describe(findings: Findings, cells: Iterable[Cell], picture: str) -> str:
    """A picture in words: what it shows, its lowest and highest figure, and how many are not shown."""
    words, listed = findings.words, list(cells)
    shown = sorted((cell for cell in listed if cell.shown), key=lambda cell: float(cell.row["estimate"]))  # type: ignore[index]
    told = [words.say("alt", title=findings.title, unit=findings.unit, picture=picture)]
    if len(shown) > 1:
        told.append(words.say("alt_lowest", label=findings.label(shown[0]), value=findings.short(shown[0])))
        told.append(words.say("alt_highest", label=findings.label(shown[-1]), value=findings.short(shown[-1])))
    if len(shown) < len(listed):
        told.append(words.say("alt_hidden", n=len(listed) - len(shown)))
    return " ".join([*told, words.say("alt_table")])


def _summarise(findings: Findings) -> str:
    """The range over single cohorts in one sentence; overlapping intervals are the reader's to see."""
    one_way = [cell for keys, cells in findings.by_breakdown.items() if len(keys) == 1 for cell in cells]
    shown = [(float(cell.shown["estimate"]), cell) for cell in one_way if cell.shown]
    if len(shown) < 2:
        return ""
    low, high = (pick(shown, key=lambda pair: pair[0])[1] for pick in (min, max))
    return findings.words.say(
        "range",
        low=findings.label(low),
        low_value=findings.short(low),
        high=findings.label(high),
        high_value=findings.short(high),
    )


def count_withheld(findings: Findings) -> dict[str, Any]:
    statuses = Counter(cell.status for cell in findings.cells())
    total, kept, shown = sum(statuses.values()), statuses["suppressed"], statuses[None]
    other = total - kept - shown
    return {"title": findings.title, "total": total, "shown": shown, "kept": kept, "other": other}
