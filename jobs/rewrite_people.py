"""Makes people's tables of published nights anew, row group by row group, and puts all of them into force at once.

The new files lie beside the old ones, named by no manifest, until `amendments.json` is replaced; then the old ones go.
Stopped at any moment and run again, it ends the same.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.amendments import FILE, Amendments, read_amendments
from jobs.catalog import EXPLANATIONS, write_catalog
from jobs.lake import DataFile, Lake, Night, write_atomically
from jobs.publish import remove_night, remove_unnamed

Change = Callable[[pa.Table], pa.Table]


def list_files(manifest: Mapping[str, Any], tables: Sequence[str]) -> dict[str, tuple[DataFile, ...]]:
    """The night's files of each of the tables that it has."""
    stages = manifest["stages"].values()
    found = {table: [f for s in stages for f in s["tables"].get(table, ())] for table in tables}
    return {table: tuple(DataFile(**file) for file in files) for table, files in found.items() if files}


def rewrite_files(
    lake: Lake, manifest: Mapping[str, Any], table: str, files: Sequence[DataFile], change: Change
) -> list[DataFile]:
    """Files of one table of a night, each with what `change` makes of its row groups, in the places that they had."""
    night = Night(lake, date.fromisoformat(manifest["run_date"]), manifest["token"])
    made: list[DataFile] = []
    with tempfile.TemporaryDirectory(dir=lake.staging, prefix="rewrite-") as scratch:
        for file in files:
            target, place = Path(scratch) / "part.parquet", int(Path(file.path).name.split("-")[1])
            _rewrite_file(lake.root / file.path, target, change)
            made += night.adopt([target], table, place)
    return made


def _rewrite_file(file: Path, target: Path, change: Change) -> None:
    with (
        pq.ParquetFile(file) as source,
        pq.ParquetWriter(target, source.schema_arrow, compression="zstd", use_dictionary=True) as writer,
    ):
        for number in range(source.num_row_groups):
            changed = change(source.read_row_group(number, use_threads=False))
            if changed.num_rows:
                writer.write_table(changed, row_group_size=changed.num_rows)


def put_in_force(lake: Lake, amendments: Amendments) -> None:
    """All nights change in this step. The lake has to be held."""
    lake.check_lease()
    write_atomically(lake.restricted / FILE, amendments.encode())
    tidy_amended(lake)


def tidy_amended(lake: Lake) -> None:
    """Makes the restricted catalog anew and removes what is no longer in force.

    That is: old files of amended nights, what was explained of them, retired models, a list of withdrawn people under
    an old key, and nights in the making.
    """
    amendments = read_amendments(lake.restricted)
    for night in lake.open_nights():
        remove_night(night)
        remove_unnamed(lake, night.run_date, night.token)
    days = {m["run_date"] for m in lake.issued() if m["token"] in amendments.nights}
    explained = [lake.restricted / EXPLANATIONS / f"run_date={day}" for day in sorted(days)]
    for index in (index for folder in explained for index in folder.glob("*.json")):
        index.unlink()
    if manifests := lake.manifests():
        write_catalog(lake.restricted, manifests)
    for folder in explained:
        shutil.rmtree(folder, ignore_errors=True)
    for day in days:
        remove_unnamed(lake, date.fromisoformat(day), lake.last_token())
    for file in (lake.restricted / "withdrawn").glob("*.txt"):
        if file.stem != amendments.key:  # under the key of before
            file.unlink()
    models = lake.restricted / "models"
    for version in amendments.models:
        for folder in models.glob(f"*{version}*"):  # its checkpoints and damaged copies, too
            shutil.rmtree(folder, ignore_errors=True)
