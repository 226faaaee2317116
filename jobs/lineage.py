"""OpenLineage events of every stage: which tables it read and wrote, to wherever OpenLineage itself is configured to.

Off without a configuration. Whoever receives the events need not be allowed to see people's tables, so an event holds
names and types of columns and nothing of their content, row counts to the nearest hundred, and of an error its exit
code. What cannot be sent is said in the log, and stops nothing.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.errors import exit_code
from jobs.job import Job
from jobs.lake import ORDER, DataFile, StageRecord

# What a stage takes of the records that it reads. `publish` reads all tables of the night.
READS = {
    "preprocess": ("accepted",),
    "train": ("features",),
    "score": ("features", "models"),
    "aggregate": ("design", "features", "profiles", "models"),
    "report": ("cohorts", "quality", "distributions"),
}
NEAREST = 100  # rows: counts are told to the nearest so many, and smaller ones not at all
NAMESPACE = "file"  # of datasets on a file system, by OpenLineage's naming
SILENT = ("console", "noop")  # transports: without a configuration the client would print
CONFIGURED_BY = (Path("openlineage.yml"), Path.home() / ".openlineage" / "openlineage.yml")


@dataclass(frozen=True)
class Dataset:
    """A table as an event tells of it: its folder, columns with their types, and its rows where they may be told."""

    name: str
    version: str | None
    columns: tuple[tuple[str, str], ...] = ()
    rows: int | None = None


@dataclass
class Outcome:
    """What a stage has done, once it has."""

    record: StageRecord | None = None


@contextmanager
def tell_lineage(job: Job, stage: str) -> Iterator[Outcome]:
    """Tells OpenLineage of the stage that runs inside: its start, and its end or its failure."""
    outcome = Outcome()
    client = make_client(job)
    if client is None:
        yield outcome
        return
    from openlineage.client.uuid import generate_new_uuid

    run_id = str(generate_new_uuid())
    _emit(client, job, stage, run_id, "START", outcome)
    try:
        yield outcome
    except Exception as error:
        _emit(client, job, stage, run_id, "FAIL", outcome, error)
        raise
    _emit(client, job, stage, run_id, "COMPLETE", outcome)


def make_client(job: Job) -> Any:
    """OpenLineage's client, as its environment variables and files say; None where they say nothing."""
    named = any(name.startswith("OPENLINEAGE_") for name in os.environ)
    if not named and not any(file.exists() for file in CONFIGURED_BY):
        return None
    try:
        from openlineage.client import OpenLineageClient

        client = OpenLineageClient()
    except Exception as error:
        job.log.warning("OpenLineage's configuration cannot be used", error=type(error).__name__)
        return None
    return None if client.transport.kind in SILENT else client


def list_datasets(job: Job, stage: str, record: StageRecord) -> tuple[list[Dataset], list[Dataset]]:
    """What the stage read and what it wrote, in the order of their names."""
    if stage == "publish":
        manifest = job.lake.published(job.run_date)
        stages = manifest["stages"].values() if manifest else ()
        read = [StageRecord.from_json(raw) for raw in stages]
        return _describe_tables(job, read), [Dataset(str(zone / "catalog.duckdb"), None) for zone in _list_zones(job)]
    if stage == "validate":
        columns = tuple(sorted(job.book.column_types().items()))
        extract = [Dataset(str(job.extract.resolve()), None, columns)] if job.extract else []
        return extract, _describe_tables(job, [record])
    inputs = _describe_tables(job, [job.night.read(name) for name in ORDER if name in record.inputs], READS[stage])
    if record.counts.get("kept"):  # profiles of the night before
        inputs.append(Dataset(str(job.lake.restricted / "profiles"), None))
    return inputs, _describe_tables(job, [record])


def round_rows(rows: int) -> int | None:
    return None if rows < NEAREST else NEAREST * round(rows / NEAREST)


def _list_zones(job: Job) -> tuple[Path, Path]:
    return job.lake.public, job.lake.restricted


def _describe_tables(job: Job, records: Sequence[StageRecord], only: Sequence[str] | None = None) -> list[Dataset]:
    tables = {table: files for record in records for table, files in record.tables.items() if files}
    found = [_describe_table(job, table, files) for table, files in tables.items() if only is None or table in only]
    models = [record.details["model_version"] for record in records if record.stage == "train"]
    if models and (only is None or "models" in only):
        found.append(Dataset(str(job.lake.restricted / "models"), models[-1]))
    return sorted(found, key=lambda dataset: dataset.name)


def _describe_table(job: Job, table: str, files: Sequence[DataFile]) -> Dataset:
    columns = tuple((field.name, str(field.type)) for field in pq.read_schema(job.lake.root / files[0].path))
    night = f"{job.run_date.isoformat()}/{Path(files[0].path).name[:8]}"
    return Dataset(str(job.lake.zone(table) / table), night, columns, round_rows(sum(file.rows for file in files)))


def _emit(
    client: Any, job: Job, stage: str, run_id: str, state: str, outcome: Outcome, error: Exception | None = None
) -> None:
    try:
        client.emit(_make_event(job, stage, run_id, state, outcome, error))
    except Exception as lost:
        job.log.warning("OpenLineage was not told", stage=stage, state=state, error=type(lost).__name__)


def _make_event(job: Job, stage: str, run_id: str, state: str, outcome: Outcome, error: Exception | None) -> Any:
    from openlineage.client import event_v2 as events
    from openlineage.client.facet_v2 import error_message_run, job_type_job, nominal_time_run, tags_run

    tags = {"token": job.night.token, "codebook": job.book.codebook, "codebook_version": job.book.version}
    facets: dict[str, Any] = {
        "nominalTime": nominal_time_run.NominalTimeRunFacet(f"{job.run_date.isoformat()}T00:00:00Z"),
        "tags": tags_run.TagsRunFacet([tags_run.TagsRunFacetFields(key, str(tags[key]), "MINDCENSUS") for key in tags]),
    }
    if error:
        told = f"{stage} ended with exit code {exit_code(error)}"
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(told, "PYTHON")
    read, written = list_datasets(job, stage, outcome.record) if outcome.record else ([], [])
    kind = job_type_job.JobTypeJobFacet("BATCH", "MINDCENSUS", "STAGE")
    return events.RunEvent(
        eventTime=datetime.now(UTC).isoformat(),
        eventType=events.RunState[state],
        run=events.Run(run_id, facets),
        job=events.Job(os.environ.get("OPENLINEAGE_NAMESPACE", "mindcensus"), f"mindcensus.{stage}", {"jobType": kind}),
        producer=f"x-mindcensus://jobs/{version('mindcensus')}",
        inputs=[events.InputDataset(NAMESPACE, one.name, facets=_describe_facets(one)) for one in read],
        outputs=[_make_output(one) for one in written],
    )


def _make_output(dataset: Dataset) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    rows = statistics.OutputStatisticsOutputDatasetFacet(rowCount=dataset.rows)
    told: dict[str, Any] = {"outputStatistics": rows} if dataset.rows else {}
    return OutputDataset(NAMESPACE, dataset.name, facets=_describe_facets(dataset), outputFacets=told)


def _describe_facets(dataset: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    facets: dict[str, Any] = {}
    if dataset.columns:
        fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in dataset.columns]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    if dataset.version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(dataset.version)
    return facets
