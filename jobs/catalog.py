"""The zones' catalogs: DuckDB views that name every published file, so that nothing unpublished can be queried."""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from jobs.errors import StageError
from jobs.lake import PUBLIC_TABLES, RESTRICTED_TABLES
from jobs.provenance import NIGHT_TYPES, describe_night

CATALOG = "catalog.duckdb"
EXPLANATIONS = "explanations"
STORAGE = "v1.0.0"  # the oldest format, so that older clients read it
FATES = ("delivered", "ineligible", "duplicates", "quarantined", "withdrawn", "features")

Manifest = Mapping[str, Any]


def write_catalog(zone: Path, manifests: Sequence[Manifest]) -> None:
    """Makes a zone's `catalog.duckdb` anew: for each table a view of all nights and one of the latest, and `nights`.

    `zone` is lake.public or lake.restricted; `manifests` are the published ones, one a date, in the order of their
    dates. Readers see the old catalog or the new one. A table that no night has written gets no view.
    Raises StageError where a file that a manifest names is missing.
    """
    public = zone.name == "public"
    scratch = zone / f".{CATALOG}.{os.getpid()}.tmp"
    scratch.unlink(missing_ok=True)
    try:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {_quote(scratch)} AS catalog (STORAGE_VERSION '{STORAGE}')")
            connection.execute("USE catalog")
            for table in PUBLIC_TABLES if public else RESTRICTED_TABLES:
                _add_views(connection, table, [find_files(zone.parent, m, table) for m in manifests])
            if not public:
                _add_views(connection, EXPLANATIONS, [find_explanations(zone.parent, m) for m in manifests])
            _add_nights(connection, manifests, public)
            connection.execute("USE memory")
            connection.execute("DETACH catalog")
        scratch.chmod(0o644 if public else 0o600)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(zone / CATALOG)
    finally:
        for leftover in (scratch, scratch.with_name(scratch.name + ".wal")):
            leftover.unlink(missing_ok=True)


def find_files(root: Path, manifest: Manifest, table: str) -> list[Path]:
    """A night's files of a table. Raises StageError where one is missing."""
    records = manifest["stages"].values()
    files = sorted(root / file["path"] for record in records for file in record["tables"].get(table, ()))
    for file in files:
        if not file.is_file():
            raise StageError(
                f"{file.relative_to(root)} is missing, and the published night of {manifest['run_date']} names it: "
                "restore it from a backup, or deliver and run that date again"
            )
    return files


def explanations_index(root: Path, run_date: str, token: int) -> Path:
    """The file that names a night's explanations: they may be asked for when its manifest has long been closed."""
    return root / "restricted" / EXPLANATIONS / f"run_date={run_date}" / f"{token:08d}.json"


def find_explanations(root: Path, manifest: Manifest) -> list[Path]:
    """Files of the night's explanations; none where nobody asked for them, or where one has gone: ask again."""
    index = explanations_index(root, manifest["run_date"], manifest["token"])
    if not index.is_file():
        return []
    files = [root / file["path"] for file in json.loads(index.read_text())["files"]]
    return files if all(file.is_file() for file in files) else []


def _add_views(connection: duckdb.DuckDBPyConnection, table: str, nights: Sequence[Sequence[Path]]) -> None:
    files = [file for night in nights for file in night]
    if not files:
        return
    connection.execute(f"CREATE VIEW {table} AS {_select(files)}")
    # The last night's own files and columns; where it wrote none, no rows under the table's columns.
    latest = _select(nights[-1]) if nights[-1] else f"SELECT * FROM {table} WHERE false"
    connection.execute(f"CREATE VIEW {table}_latest AS {latest}")


def _select(files: Sequence[Path]) -> str:
    # A path is a pattern to DuckDB: escaped, it means itself alone.
    names = ", ".join(_quote(glob.escape(str(file))) for file in files)
    partition = "hive_partitioning = true, hive_types = {'run_date': DATE}"
    return f"SELECT * FROM read_parquet([{names}], {partition}, union_by_name = true)"


def _add_nights(connection: duckdb.DuckDBPyConnection, manifests: Sequence[Manifest], public: bool) -> None:
    """One row a night. The public one takes its counts from `quality`, where they are rounded."""
    columns = ", ".join(f"{name} {kind}" for name, kind in NIGHT_TYPES.items())
    connection.execute(f"CREATE TABLE nights ({columns})")
    places = ", ".join("?" * len(NIGHT_TYPES))
    for manifest in manifests:
        connection.execute(f"INSERT INTO nights VALUES ({places})", list(describe_night(manifest).values()))
    for name in FATES if public else RESTRICTED_TABLES:
        connection.execute(f"ALTER TABLE nights ADD COLUMN {name} BIGINT")
    if public:
        _count_publicly(connection)
        return
    for manifest in manifests:
        for record in manifest["stages"].values():
            for table in sorted(set(record["tables"]) & set(RESTRICTED_TABLES)):
                rows = sum(file["rows"] for file in record["tables"][table])
                connection.execute(f"UPDATE nights SET {table} = ? WHERE run_date = ?", [rows, manifest["run_date"]])


def _count_publicly(connection: duckdb.DuckDBPyConnection) -> None:
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE view_name = 'quality'").fetchall()
    for fate in FATES if views else ():
        connection.execute(
            f"UPDATE nights SET {fate} = q.rows FROM quality q "
            "WHERE q.run_date = nights.run_date AND q.reason IS NULL AND q.stage = ?",
            [fate],
        )


def _quote(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"
