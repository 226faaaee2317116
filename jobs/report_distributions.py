"""The report's pictures of how a trait is distributed, by cohort, from the public table `distributions`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from expectations.codebook import Codebook
from jobs.findings import Findings, Row, label_breakdown
from jobs.report_grids import Bin, draw_distributions
from jobs.words import Words

MOST_GROUPS = 12


def show_distribution(book: Codebook, words: Words, findings: Findings, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A picture for everybody and each breakdown by one cohort; none where the table has none."""
    trait = findings.outcome.source.removesuffix("_mean")
    own = [row for row in rows if row["outcome"] == trait]
    ends = sorted({value for row in own for value in (row["bin_low"], row["bin_high"]) if value is not None})
    if len(ends) < 2:
        return []
    width = min(high - low for low, high in pairwise(ends))
    start, stop = ends[0] - width, ends[-1] + width  # an open end is drawn one bin wide

    def place(value: float) -> float:
        return float((value - start) / (stop - start))

    panels: list[dict[str, Any]] = []
    cohorts = {cohort.key: cohort for cohort in book.cohorts}
    whole = [(words.say("everybody"), [row for row in own if row["breakdown"] == "all"])]
    for keys in (keys for keys in book.breakdowns if len(keys) == 1):
        groups = list(whole)
        for group in cohorts[keys[0]].groups:
            label = words.name(cohorts[keys[0]].read_group(group))
            groups.append((label, [row for row in own if row["breakdown"] == keys[0] and row[keys[0]] == group]))
        if len(groups) > MOST_GROUPS or not any(found for _, found in groups[1:]):
            continue
        bins = [
            (label, [_make_bin(words, label, row, place, start, stop) for row in _sort(found)])
            for label, found in groups
        ]
        ticks = [(place(value), f"{value:g}".replace("-", "−")) for value in ends if value == int(value)]
        by = label_breakdown(book, words, keys)
        title = f"{words.say('distribution')}: {by}"
        alt = words.say("alt", title=findings.title, unit=findings.unit, picture=title) + " " + words.say("alt_table")
        name = f"{words.language}-{trait}-by-{keys[0]}"
        panels.append({
            "title": title,
            "picture": draw_distributions(bins, ticks, name),
            "alt": alt,
            "note": "" if panels else words.say("distribution_note"),
            "tall": False,
            "bins": [bin.tip for _, found in bins for bin in found],
        })  # fmt: skip
    return panels


def _sort(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -float("inf") if row["bin_low"] is None else row["bin_low"])


def _make_bin(words: Words, label: str, row: Row, place: Any, start: float, stop: float) -> Bin:
    low, high, share = row["bin_low"], row["bin_high"], row["share"]
    told = words.say("suppressed") if share is None else words.say("percent", value=words.number(100 * share, 0))
    ends = [None if end is None else words.number(end, 1) for end in (low, high)]
    if low is None or high is None:
        bin = words.say("below", high=ends[1]) if low is None else words.say("above", low=ends[0])
        tip = words.say("open_tip", group=label, bin=bin, share=told)
    else:
        tip = words.say("distribution_tip", group=label, low=ends[0], high=ends[1], share=told)
    return Bin(place(start if low is None else low), place(stop if high is None else high), share, tip)
