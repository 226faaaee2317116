"""Where analyses of single people lie, and when they go: `restricted/analyses/run_date=…`.

A file's name is a digest of the pseudonym, so that neither a listing nor a print shows one. The pages follow their
people: who withdraws, or is not in the newest night, has none any more; under a new key they have to be asked for
again; and they go with the night's tables.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from jobs.catalog import find_files
from jobs.lake import Lake
from model.spec import PERSON

FOLDER = "analyses"
SUMMARY = "everybody"


def read_analyses(lake: Lake, person: str) -> list[dict[str, Any]]:
    """What was told of a person, as JSON, by night."""
    files = sorted((lake.restricted / FOLDER).glob(f"run_date=*/{name_analysis(person)}.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def remove_analyses(lake: Lake, people: Iterable[str]) -> None:
    """Removes the people's pages, and the summaries, which have their names."""
    folder = lake.restricted / FOLDER
    for name in (name_analysis(person) for person in people):
        for file in folder.glob(f"run_date=*/{name}.*"):
            file.unlink()
    _remove_summaries(lake)


def _remove_summaries(lake: Lake) -> None:
    for summary in (lake.restricted / FOLDER).glob(f"run_date=*/{SUMMARY}.*"):
        summary.unlink(missing_ok=True)


def remove_absent(lake: Lake, newest: Mapping[str, Any]) -> None:
    """Removes the pages of whoever is not in the newest night, by its manifest: they may no longer agree.

    The summaries, which have their names, go first: killed at any moment and run again, it ends the same.
    """
    every = (lake.restricted / FOLDER).glob("run_date=*/*")
    files = [file for file in every if not file.name.startswith((SUMMARY, "."))]
    if not files or "retired" in newest:
        return
    people = ds.dataset([str(file) for file in find_files(lake.root, newest, "accepted")], format="parquet")
    batches = people.to_batches(columns=[PERSON])
    present = {name_analysis(person) for batch in batches for person in batch[PERSON].to_pylist()}
    if absent := [file for file in files if file.name.partition(".")[0] not in present]:
        lake.check_lease()
        _remove_summaries(lake)
        for file in absent:
            file.unlink(missing_ok=True)


def remove_every(lake: Lake) -> None:
    """Removes all pages of all nights."""
    shutil.rmtree(lake.restricted / FOLDER, ignore_errors=True)


def list_analyses(lake: Lake, run_date: str) -> list[Path]:
    """Every file of a night's pages."""
    return sorted((lake.restricted / FOLDER / f"run_date={run_date}").glob("*"))


def name_analysis(person: str) -> str:
    return hashlib.sha256(person.encode()).hexdigest()[:32]
