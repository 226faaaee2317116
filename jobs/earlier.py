"""The published night that changes are told from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.catalog import find_files
from jobs.design import read_design, read_sampled
from jobs.domain_sums import split_breakdown
from jobs.estimates import Survey
from jobs.following import Key
from jobs.job import Job


@dataclass(frozen=True)
class Last:
    """The night that changes are told from, and the means and proportions that it showed to everybody."""

    survey: Survey
    shown: Mapping[Key, float]


def find_last(job: Job) -> Last | None:
    """The last published night before this one that had the same codebook, in name and version; None where none is.

    Raises StageError where a file of it is missing.
    """
    mine = (job.book.codebook, job.book.version)
    for manifest in reversed(job.lake.manifests()):
        told = manifest["codebook"]
        known = "cohort_sums" in manifest["stages"]["aggregate"]["tables"]
        if manifest["run_date"] < job.run_date.isoformat() and known and (told["name"], told["version"]) == mine:
            sums, design, cohorts = (
                find_files(job.lake.root, manifest, table) for table in ("cohort_sums", "design", "cohorts")
            )
            night, lonely_psu = date.fromisoformat(manifest["run_date"]), job.book.design.lonely_psu
            survey = Survey(night, _read(sums), read_design(design), lonely_psu, read_sampled(design))
            return Last(survey, _read_shown(_read(cohorts)))
    return None


def _read(files: Sequence[Path]) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def _read_shown(cohorts: pa.Table) -> dict[Key, float]:
    shown = {}
    for row in cohorts.to_pylist():
        if row["kind"] in ("mean", "proportion") and row["estimate"] is not None:
            breakdown = split_breakdown(row["breakdown"])
            shown[breakdown, tuple(row[name] for name in breakdown), row["outcome"]] = row["estimate"]
    return shown
