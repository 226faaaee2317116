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

from jobs.lake import Lake, StageRecord
from jobs.withdrawn import find_people
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
    for summary in folder.glob(f"run_date=*/{SUMMARY}.*"):
        summary.unlink()


def remove_absent(lake: Lake, newest: Mapping[str, Any]) -> None:
    """Removes the pages of whoever is not in the newest night, by its manifest: they may no longer agree."""
    pages = (file for file in (lake.restricted / FOLDER).glob("run_date=*/*.json") if file.stem != SUMMARY)
    told = sorted({str(json.loads(page.read_text(encoding="utf-8"))[PERSON]) for page in pages})
    if told and "retired" not in newest:
        accepted = StageRecord.from_json(newest["stages"]["validate"]).tables["accepted"]
        if absent := set(told) - set(find_people(lake, accepted, told)):
            remove_analyses(lake, absent)


def remove_every(lake: Lake) -> None:
    """Removes all pages of all nights."""
    shutil.rmtree(lake.restricted / FOLDER, ignore_errors=True)


def list_analyses(lake: Lake, run_date: str) -> list[Path]:
    """Every file of a night's pages."""
    return sorted((lake.restricted / FOLDER / f"run_date={run_date}").glob("*"))


def name_analysis(person: str) -> str:
    return hashlib.sha256(person.encode()).hexdigest()[:32]
