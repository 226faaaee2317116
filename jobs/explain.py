"""On request: which answers moved which trait, for everybody or for one person of a published night.

The night's manifest is closed, so its explanations have an index of their own, `explanations/run_date=…/<token>.json`
beside their files: what it does not name does not exist, and a later night of the date has none until asked again.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from expectations.codebook import Codebook
from jobs.amendments import read_amendments
from jobs.audit import check_pseudonym, check_reason, log_access
from jobs.catalog import EXPLANATIONS, explanations_index, find_files, write_catalog
from jobs.errors import StageError, UsageError
from jobs.lake import Lake, Night, StageRecord, check_kept, write_atomically
from jobs.model_spec import check_model
from jobs.purpose import require_care
from jobs.spark import spark_session
from jobs.tables import arrow_schema, explanations_columns
from jobs.withdrawn import check_stays, check_withdrawn
from jobs.work_items import deal_work, explain_item, run_items
from model.explaining import explain
from model.registry import load_model
from model.spec import PERSON

# A person costs as many encodings as answers, and makes as many rows: smaller tasks than those of the scoring.
ROWS_PER_TASK = 50_000

Manifest = Mapping[str, Any]


def read_published(lake: Lake, run_date: date) -> dict[str, Any]:
    """The manifest in force. Raises StageError where no night of the date is published."""
    manifest = lake.published(run_date)
    if manifest is None:
        raise StageError(f"no night of {run_date} is published: run `mindcensus run` first")
    check_kept(manifest)
    return manifest


def explain_night(lake: Lake, manifest: Manifest, book: Codebook) -> int:
    """Writes the night's explanations and makes the catalog that shows them; returns their rows.

    The caller holds the lake. Raises StageError where features are missing, ModelError where the model is missing,
    damaged, or does not fit them.
    """
    check_withdrawn(lake, StageRecord.from_json(manifest["stages"]["validate"]), manifest["run_date"])
    model, features = find_inputs(lake, manifest, book)
    night = Night(lake, date.fromisoformat(manifest["run_date"]), manifest["token"])
    schema = arrow_schema(explanations_columns()).serialize().to_pybytes()
    # What a killed run leaves in it goes with the next publication.
    with tempfile.TemporaryDirectory(dir=lake.staging, prefix="explain-") as scratch:
        items = deal_work(features, Path(scratch), ROWS_PER_TASK)
        with spark_session(lake, "explain") as spark:
            made = run_items(spark.sparkContext, items, partial(explain_item, model=str(model), schema=schema))
        rows = sum(part.rows for part in made)
        files = night.adopt([Path(part.file) for part in made], EXPLANATIONS)
    index = {
        "run_date": manifest["run_date"],
        "token": night.token,
        "model_version": manifest["model"]["model_version"],
        "rows": rows,
        "files": [vars(file) for file in files],
    }
    target = explanations_index(lake.root, manifest["run_date"], night.token)
    write_atomically(target, json.dumps(index, indent=1, sort_keys=True))
    write_catalog(lake.restricted, lake.manifests())
    named = {lake.root / file.path for file in files}
    for old in set(target.parent.glob(f"{night.token:08d}-*.parquet")) - named:
        old.unlink()
    return rows


def explain_person(lake: Lake, manifest: Manifest, book: Codebook, person_id: str, reason: str | None) -> str:
    """A table in words for one pseudonym, the biggest move first; nothing is written but the access log.

    Raises UsageError where the purpose is not care, where there is no reason, no such person in the night, or a later
    night: whoever does not agree any more is not in that one. Raises what `explain_night` raises.
    """
    require_care(book)
    person_id = check_pseudonym(person_id)
    if manifest["run_date"] != (last := lake.manifests()[-1]["run_date"]):
        raise UsageError(f"one person's answers are explained of the last night alone, {last}: people may have said no")
    log_access(lake, "explain", [person_id], check_reason(reason))
    check_stays(lake, person_id)
    model, features = find_inputs(lake, manifest, book)
    loaded = load_model(model)
    people = ds.dataset([str(file) for file in features], format="parquet")
    person = people.to_table([PERSON, *loaded.spec.columns], filter=ds.field(PERSON) == person_id)
    if not person.num_rows:
        raise UsageError(
            f"nobody in the night of {manifest['run_date']} has this pseudonym: give a `person_id` of its profiles"
        )
    rows = explain(loaded, person).to_pylist()
    if not rows:
        return "no answers: the profile is the population's"
    rows.sort(key=lambda row: -abs(row["moved"]))
    labels = {item.key: item.label or "" for item in book.items}
    lines = [(row["trait"], row["item"], f"{row['moved']:+.3f}", labels[row["item"]]) for row in rows]
    return format_table([("trait", "item", "moved", "(reference sd)"), *lines])


def format_table(lines: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their longest word."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def find_inputs(lake: Lake, manifest: Manifest, book: Codebook) -> tuple[Path, list[Path]]:
    """The folder of the night's model, and its features.

    Raises StageError where the model was retired or features are missing, ModelError where it does not fit them.
    """
    version = manifest["model"]["model_version"]
    if day := read_amendments(lake.restricted).models.get(version):
        raise StageError(
            f"the model of the night of {manifest['run_date']} was retired on {day}, as people whom it had learned "
            "from were erased: take a later night"
        )
    model, features = lake.root / manifest["model"]["folder"], find_files(lake.root, manifest, "features")
    check_model(model, features, book)
    return model, features
