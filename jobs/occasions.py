"""When people have answered: tonight's answers, and their own earlier ones, as the same model can read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from expectations.codebook import Codebook, read_codebook
from expectations.errors import ContractBroken
from jobs.catalog import find_files
from jobs.lake import Lake
from jobs.model_spec import build_spec
from model.spec import PERSON, compare_specs

MOST_EARLIER = 3  # occasions of a person that a change is told from

Row = dict[str, Any]


@dataclass(frozen=True)
class Occasion:
    """One person's answers: item codes as `features` has them (-1 = none), and when they were given."""

    answered_at: datetime
    codes: tuple[int, ...]


def read_rows(
    lake: Lake, manifest: Mapping[str, Any], table: str, people: Sequence[str], *columns: str
) -> dict[str, Row]:
    """These people's rows of a night's table, by pseudonym. Raises StageError where a file is missing."""
    files = [str(file) for file in find_files(lake.root, manifest, table)]
    chosen = ds.field(PERSON).isin(pa.array(people, pa.string()))  # typed, where nobody is left, too
    rows = ds.dataset(files, format="parquet").to_table([*columns] or None, filter=chosen).to_pylist()
    return {row[PERSON]: row for row in rows}


def read_times(lake: Lake, manifest: Mapping[str, Any], book: Codebook, people: Sequence[str]) -> dict[str, datetime]:
    """When these people gave the answers of a night; nobody's where the codebook does not say."""
    if book.answered_at is None:
        return {}
    rows = read_rows(lake, manifest, "accepted", people, PERSON, book.answered_at)
    return {person: row[book.answered_at] for person, row in rows.items()}


def find_earlier(
    lake: Lake, manifest: Mapping[str, Any], book: Codebook, now: Mapping[str, datetime]
) -> dict[str, list[Occasion]]:
    """The last earlier occasions of the people of `now`, latest first.

    They come from published nights before this one whose codebook was for care, too, and asks the same; an answer that
    was delivered again is the same occasion.
    """
    found: dict[str, dict[datetime, Occasion]] = {person: {} for person in now}
    items = [item.key for item in book.items]
    for night in lake.manifests():
        if night["run_date"] >= manifest["run_date"] or "retired" in night:
            continue
        earlier = _read_kept(lake.restricted / "codebooks" / f"{night['codebook']['sha256']}.yaml")
        if earlier is None or earlier.purpose.use != "care" or compare_specs(build_spec(earlier), build_spec(book)):
            continue
        times = read_times(lake, night, earlier, list(now))
        rows = read_rows(lake, night, "features", list(times), PERSON, *items)
        for person, row in rows.items():
            if times[person] < now[person]:
                codes = tuple(row[key] for key in items)
                found[person][times[person]] = Occasion(times[person], codes)
    latest = {person: sorted(some.values(), key=lambda one: one.answered_at) for person, some in found.items()}
    return {person: some[::-1][:MOST_EARLIER] for person, some in latest.items()}


@lru_cache(maxsize=64)
def _read_kept(file: Path) -> Codebook | None:
    try:
        return read_codebook(str(file))[0]
    except ContractBroken:
        return None
