"""`mindcensus export-person`: all that is held about one person, as JSON: every row of every night, and who has looked.

Nights in the making are told of, too, and reads of many people at once, in which this person's rows may have been.

Of the access log the person gets when, why and by which command, and not which employee it was (Court of Justice of the
European Union, C-579/21).
"""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pyarrow.dataset as ds

from expectations.codebook import read_codebook
from expectations.errors import ContractBroken
from jobs.analyses import read_analyses
from jobs.audit import check_reason, log_access, read_entries
from jobs.catalog import EXPLANATIONS, find_explanations
from jobs.lake import PEOPLE_TABLES, Lake
from jobs.rewrite_people import list_files
from jobs.withdrawn import read_withdrawn

TOLD = ("at", "command", "reason")


def export_person(lake: Lake, pseudonyms: list[str], reason: str | None) -> dict[str, Any]:
    """What is held about the person whose pseudonyms these are: the last is in force, others were before a new key.

    Raises UsageError without a reason, AuditBroken where the access log is damaged.
    """
    person = pseudonyms[-1]
    log_access(lake, "export-person", [person], check_reason(reason))
    nights = list(_list_nights(lake, person))
    return {
        "person_id": person,
        "withdrawn": person in read_withdrawn(lake),
        "purposes": _list_purposes(lake, {night["codebook_sha256"] for night in nights}),
        "nights": nights,
        "analyses": read_analyses(lake, person),
        "access_log": [{n: e[n] for n in TOLD} for e in read_entries(lake) if e["person"] in pseudonyms],
        "access_log_of_many": [{n: e[n] for n in TOLD} for e in read_entries(lake) if e["person"] is None],
    }


def _list_nights(lake: Lake, person: str) -> Iterator[dict[str, Any]]:
    """Every night that has a row of the person, those that a later one of the same date supersedes too."""
    in_force = {manifest["token"] for manifest in lake.manifests()}
    for manifest in lake.issued():
        named = list_files(manifest, PEOPLE_TABLES)
        files = {table: [lake.root / file.path for file in found] for table, found in named.items()}
        files[EXPLANATIONS] = find_explanations(lake.root, manifest)
        rows = {table: _read_rows(paths, person) for table, paths in files.items() if paths}
        if any(rows.values()):
            yield {
                "run_date": manifest["run_date"],
                "in_force": manifest["token"] in in_force,
                "codebook": manifest["codebook"]["name"],
                "codebook_sha256": manifest["codebook"]["sha256"],
                "model_version": manifest["model"]["model_version"],
                "delivered_in": [file["name"] for file in manifest["stages"]["validate"]["details"]["files"]],
                "tables": {table: found for table, found in rows.items() if found},
            }
    for night in lake.open_nights():
        records = night.records()
        tables = {name: files for record in records.values() for name, files in record.tables.items()}
        paths = {name: [lake.root / file.path for file in tables.get(name, ())] for name in PEOPLE_TABLES}
        rows = {table: _read_rows(files, person) for table, files in paths.items() if files}
        if any(rows.values()):
            told = records["validate"].details
            yield {
                "run_date": night.run_date.isoformat(),
                "in_force": False,
                "codebook": told["codebook"]["name"],
                "codebook_sha256": told["codebook"]["sha256"],
                "model_version": None,
                "delivered_in": [file["name"] for file in told["files"]],
                "tables": {table: found for table, found in rows.items() if found},
            }


def _read_rows(files: list[Any], person: str) -> list[dict[str, Any]]:
    people = ds.dataset([str(file) for file in files], format="parquet")
    rows = people.to_table(filter=ds.field("person_id") == person).to_pylist()
    return [{name: _to_json(value) for name, value in row.items()} for row in rows]


def _to_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value


def _list_purposes(lake: Lake, codebooks: set[str]) -> list[dict[str, Any]]:
    purposes = []
    for digest in sorted(codebooks):
        try:
            book, _ = read_codebook(str(lake.restricted / "codebooks" / f"{digest}.yaml"))
        except ContractBroken:
            continue
        purposes.append({"codebook": book.codebook, "codebook_sha256": digest, **book.purpose.model_dump()})
    return purposes
