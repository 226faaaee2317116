"""`mindcensus drill`: a back-up of a lake is restored to a scratch folder and checked as if the lake were lost today.

Restored is what the back-up's manifests name: every file is compared with the sha256 that its manifest has, every model
is read, the pseudonym key is known again, the catalogs are made anew, and each night's rows are counted in them.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from jobs.amendments import FILE as AMENDMENTS
from jobs.amendments import read_amendments
from jobs.catalog import CATALOG, write_catalog
from jobs.errors import StageError
from jobs.lake import Lake, hash_file, list_public
from jobs.pseudonym import FILE_VARIABLE, name_key
from model.errors import ModelError
from model.registry import load_model

TOLD = 3  # of the files that are missing or damaged
RECORDS = (
    "runs",
    "retired",
    AMENDMENTS,
    "withdrawn",
    "audit",
    "models",
    "codebooks",
    "keys",
    "token",
)  # all of them, under restricted/


@dataclass(frozen=True)
class Restored:
    """A back-up that would do: its nights, files and bytes, its last night, and the lake's nights that it lacks."""

    nights: int
    files: int
    bytes: int
    last: str
    behind: int


def run_drill(backup: Path, lake: Lake) -> Restored:
    """Restores to `restricted/drill` of the lake, which is removed again.

    Raises StageError, which says what is missing or damaged, where the back-up would not do.
    """
    source, scratch = Lake(backup), Lake(lake.restricted / "drill")
    manifests = source.manifests()
    if not manifests:
        raise StageError(f"{backup} is no back-up of a lake: it has no manifest under restricted/runs")
    shutil.rmtree(scratch.root, ignore_errors=True)
    try:
        lake.prepare()
        scratch.prepare()
        files = list(list_named(source, manifests))
        size = sum(file["size"] for file in files)
        free = shutil.disk_usage(scratch.root).free
        if size > free:
            raise StageError(f"the back-up needs {size:,} bytes, {free:,} are free: name a lake with more space")
        _copy_records(source, scratch)
        _copy_files(source, scratch, files)
        _check_models(scratch, manifests)
        _check_key(scratch, manifests)
        _check_catalogs(scratch)
    finally:
        shutil.rmtree(scratch.root, ignore_errors=True)
    known = {manifest["token"] for manifest in source.issued()}
    behind = sum(manifest["token"] not in known for manifest in lake.manifests())
    return Restored(len(manifests), len(files), size, manifests[-1]["run_date"], behind)


def list_named(source: Lake, manifests: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """`path`, `size` and `sha256` of every file that a manifest names; of a report the sha256 alone is known."""
    for manifest in manifests:
        for record in manifest["stages"].values():
            for files in record["tables"].values():
                yield from files
        report = manifest["stages"]["report"]["details"]
        path = source.root / report["report"]
        yield {
            "path": report["report"],
            "size": path.stat().st_size if path.exists() else 0,
            "sha256": report["sha256"],
        }


def _copy_records(source: Lake, scratch: Lake) -> None:
    for name in RECORDS:
        path, target = source.restricted / name, scratch.restricted / name
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif path.exists():
            shutil.copyfile(path, target)


def _copy_files(source: Lake, scratch: Lake, files: Sequence[Mapping[str, Any]]) -> None:
    wrong = []
    for file in files:
        path, target = source.root / file["path"], scratch.root / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            wrong.append(f"{file['path']} is missing")
            continue
        shutil.copyfile(path, target)
        if hash_file(target) != file["sha256"]:
            wrong.append(f"{file['path']} is damaged")
    if wrong:
        more = f" and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise StageError(
            f"the back-up {source.root} would not do: {'; '.join(wrong[:TOLD])}{more}: make a new one, and look at the "
            "disk that it lies on"
        )


def _check_models(scratch: Lake, manifests: Sequence[Mapping[str, Any]]) -> None:
    gone = read_amendments(scratch.restricted).models
    named = {m["model"]["model_version"]: m["model"]["folder"] for m in manifests}
    for folder in sorted(folder for version, folder in named.items() if version not in gone):
        try:
            load_model(scratch.root / folder)
        except ModelError as error:
            raise StageError(f"the back-up would not do: {error}") from error


def _check_key(scratch: Lake, manifests: Sequence[Mapping[str, Any]]) -> None:
    """The key of the last night is in the back-up, or where MINDCENSUS_KEY_FILE says: else pseudonyms end."""
    places = [Path(os.environ[FILE_VARIABLE])] if FILE_VARIABLE in os.environ else []
    places += sorted((scratch.restricted / "keys").glob("*.key"))
    wanted = manifests[-1]["stages"]["validate"]["details"]["key"]
    if wanted not in {name_key(place) for place in places if place.is_file()}:
        raise StageError(
            "the back-up would not do: the pseudonym key of its last night is neither in it nor in the file that "
            f"{FILE_VARIABLE} names, so that nobody could be matched with later deliveries: keep a copy of the key"
        )


def _check_catalogs(scratch: Lake) -> None:
    manifests = scratch.manifests()
    write_catalog(scratch.restricted, manifests)
    if released := list_public(manifests):
        write_catalog(scratch.public, released)
    with duckdb.connect(str(scratch.restricted / CATALOG), read_only=True) as connection:
        found = connection.execute("SELECT run_date::VARCHAR, count(*) FROM profiles GROUP BY 1").fetchall()
    wanted = {m["run_date"]: m["rows"]["profiles"] for m in manifests if "retired" not in m}
    if dict(found) != wanted:
        raise StageError(
            f"the back-up would not do: its catalog has the profiles of {len(found)} nights, not {len(wanted)}"
        )
