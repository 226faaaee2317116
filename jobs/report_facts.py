"""The report's sections about the data: what came in, what differs from before, how the scales are scored."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from expectations.codebook import Codebook
from expectations.codebook_parts import Scale
from expectations.rules import build_rules
from jobs.findings import Row
from jobs.words import Words

FATES = ("delivered", "ineligible", "duplicates", "quarantined", "withdrawn", "features", "response", "answered")
RATES = ("response", "answered")
WARNED = "warned"
NULL_SHARE = "_null_share"


def show_quality(book: Codebook, words: Words, rows: Sequence[Row], run_date: date) -> list[dict[str, Any]]:
    """The night's rows by what became of them, each followed by its reasons; shares are those of rounded counts."""
    meanings = {rule.name: rule.meaning for rule in build_rules(book, run_date)}
    scales = {scale.key: words.name(scale.label or scale.key) for scale in book.scales}
    delivered = next((row["rows"] for row in rows if row["stage"] == "delivered" and row["reason"] is None), None)
    # Stages that this page does not know are shown by their names.
    others = [stage for stage in dict.fromkeys(row["stage"] for row in rows) if stage not in (*FATES, WARNED)]
    shown = []
    for stage in (*FATES, *others):
        own = [row for row in rows if row["stage"] == stage]
        for row in sorted(own, key=lambda row: (row["reason"] is not None, -(row["rows"] or 0), row["reason"] or "")):
            count, reason = row["rows"], row["reason"]
            label = words.say(f"fate_{stage}") if stage in FATES else words.translate(stage.replace("_", " "))
            if reason in meanings:
                label = words.say("not_met", meaning=words.translate(meanings[reason]))
            elif reason:
                label = str(scales.get(reason, reason))
            part = count / delivered if delivered and count else None
            # Response rates are shares of other people than the delivered rows.
            part = row.get("rate") if stage in RATES else part
            share = "" if part is None else words.say("percent", value=words.number(100 * part, 1))
            shown.append({
                "label": label,
                "rule": reason,
                "rows": words.say("suppressed") if count is None else words.count(count),
                "gone": count is None,
                "share": share,
            })  # fmt: skip
    return shown


def word_warnings(words: Words, rows: Iterable[Row]) -> list[str]:
    worded = []
    for name in (str(row["reason"]) for row in rows if row["stage"] == WARNED):
        if f"warning_{name}" in words.messages:
            worded.append(words.say(f"warning_{name}"))
        elif name.endswith(NULL_SHARE):
            worded.append(words.say("warning_null_share", name=name.removesuffix(NULL_SHARE)))
        else:
            worded.append(words.say("warning_rule", name=name))
    return worded


def word_scale(words: Words, scale: Scale) -> str:
    """How a scale is scored."""
    told = [words.say("questions", n=len(scale.items))]
    if scale.multiply > 1:
        told.append(words.say("times", factor=scale.multiply))
    told.append(words.say("prorated", most=scale.prorate_up_to) if scale.prorate_up_to else words.say("complete"))
    if scale.cut:
        told.append(words.say("cut_ge" if scale.cut.startswith(">=") else "cut_le", cut=scale.cut[2:]))
    told.append(words.say("higher_better" if scale.positive else "higher_worse"))
    return words.say("semicolon").join(told)


def find_series(rows: Iterable[Row]) -> str | None:
    """The series of models in whose unit the tables' traits are."""
    return next((row["model_series"] for row in rows if row.get("model_series")), None)
