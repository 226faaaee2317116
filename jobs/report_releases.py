"""Earlier public releases, found and read as any reader of public/ would."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.errors import StageError
from jobs.findings import Row


@dataclass(frozen=True)
class Release:
    """A published night of the same codebook: its date and its rows for the whole population."""

    run_date: date
    rows: Sequence[Row]

    def find(self, outcome: str, kind: str) -> Row | None:
        return next((row for row in self.rows if (row["outcome"], row["kind"]) == (outcome, kind)), None)


def read_releases(public: Path, codebook: str, before: date) -> list[Release]:
    """The releases before a date in the order of their dates, for each date the last one.

    Raises StageError where a table that a public manifest names is missing or unreadable.
    """
    found = []
    for folder in sorted((public / "runs").glob("run_date=*")):
        manifests = sorted(folder.glob("[0-9]*.json"))
        if not manifests:
            continue
        manifest = json.loads(manifests[-1].read_text())
        if manifest["run_date"] < before.isoformat() and manifest["codebook"]["name"] == codebook:
            rows = _read_whole(public.parent, manifest["tables"]["cohorts"], manifest["run_date"])
            found.append(Release(date.fromisoformat(manifest["run_date"]), rows))
    return found


def _read_whole(root: Path, files: Iterable[Mapping[str, Any]], night: str) -> list[Row]:
    rows: list[Row] = []
    for file in files:
        try:
            rows += pq.ParquetFile(root / file["path"]).read().to_pylist()
        except (OSError, ValueError):
            raise StageError(
                f"{file['path']} of the release of {night} is missing or damaged: restore it from a backup"
            ) from None
    return [row for row in rows if row["breakdown"] == "all"]
