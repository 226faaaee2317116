"""The public release that changes are told from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.catalog import find_files
from jobs.design import read_design, read_sampled
from jobs.estimates import Survey
from jobs.job import Job
from jobs.lake import list_public
from jobs.releases import read_rows
from jobs.survey import CellKey, Estimate


@dataclass(frozen=True)
class Last:
    """The night that changes are told from: what it showed to everybody, all means and proportions, and its model."""

    survey: Survey
    shown: Mapping[CellKey, float]
    figures: Mapping[CellKey, Estimate]
    model: Mapping[str, Any]


def find_last(job: Job) -> Last | None:
    """The last public release before this night that had the same codebook, in name and version; None where none is.

    Raises StageError where a file of it is missing.
    """
    mine = (job.book.codebook, job.book.version)
    for manifest in reversed(list_public(job.lake.manifests())):
        told = manifest["codebook"]
        known = "cohort_sums" in manifest["stages"]["aggregate"]["tables"]
        if manifest["run_date"] < job.run_date.isoformat() and known and (told["name"], told["version"]) == mine:
            sums, design, cohorts, internal = (
                find_files(job.lake.root, manifest, table)
                for table in ("cohort_sums", "design", "cohorts", "cohorts_internal")
            )
            night, lonely_psu = date.fromisoformat(manifest["run_date"]), job.book.design.lonely_psu
            survey = Survey(night, _read(sums), read_design(design), lonely_psu, read_sampled(design))
            shown = {key: row.estimate for key, row in _read_estimates(cohorts).items() if row.estimate is not None}
            return Last(survey, shown, _read_estimates(internal), manifest["model"])
    return None


def _read(files: Sequence[Path]) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def _read_estimates(files: Sequence[Path]) -> dict[CellKey, Estimate]:
    """The means and proportions of a cohorts table; what its zone does not tell is null."""
    rows = [row for row in read_rows(files) if row.figures.kind in ("mean", "proportion")]
    return {row.place: row.figures for row in rows}
