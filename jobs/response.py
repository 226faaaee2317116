"""Response rates for the public `quality` table: of the eligible people, and of the answers to each scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.disclosure import WEIGHTED_DIGITS, round_digits
from jobs.disclosure_profiles import OPENSAFELY, Profile, hides_everybody, redact_count, round_count
from jobs.nonresponse import Classes, response_rates

DECIMALS = 3


def count_answers(files: Sequence[Path], columns: Mapping[str, str]) -> dict[str, int]:
    """For each name the people of the Parquet files whose column is not null."""
    found = dict.fromkeys(columns, 0)
    for file in files:
        for name, column in columns.items():
            found[name] += pc.count(pq.read_table(file, columns=[column])[column]).as_py()
    return found


def rate_response(
    classes: Classes, answered: Mapping[str, int], people: int, profile: Profile = OPENSAFELY
) -> list[dict[str, Any]]:
    """The rows of `quality` about response; `people` are those with features, of whom so many `answered` a scale."""
    rows = []
    if classes:
        kept, eligible, kept_weight, eligible_weight = response_rates(classes)
        rounded = [round_digits(weight, WEIGHTED_DIGITS) for weight in (kept_weight, eligible_weight)]
        weighted = round(min(1.0, rounded[0] / rounded[1]), DECIMALS) if rounded[1] else None
        rows.append(_make_row(profile, "response", None, kept, eligible, weighted))
    return rows + [_make_row(profile, "answered", scale, count, people) for scale, count in answered.items()]


def _make_row(
    profile: Profile, stage: str, reason: str | None, part: int, whole: int, weighted: float | None = None
) -> dict[str, Any]:
    """A rate of two rounded counts; none where either is redacted.

    Where the whole is withheld, a part is told of those who answered alone: the response is the whole's.
    """
    shown, of = redact_count(part, profile), redact_count(whole, profile)
    if hides_everybody(profile):
        of, shown = None, shown if stage == "answered" else None
    known = shown is not None and (of is not None or hides_everybody(profile))
    return {
        "stage": stage,
        "reason": reason,
        "rows": shown if known else None,
        "rate": round(round_count(part, profile) / of, DECIMALS) if known and of else None,
        "rate_weighted": weighted if known else None,
        "disclosure": "shown" if known else "suppressed",
    }
