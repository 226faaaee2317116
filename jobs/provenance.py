"""Where a published figure comes from: its night's manifest, and with that the files, codebook, model and code."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.lake import is_public

PACKAGES = ("expectations", "jobs", "model")
NIGHT_TYPES = {
    "run_date": "DATE NOT NULL",
    "token": "BIGINT NOT NULL",
    "manifest": "VARCHAR",
    "report": "VARCHAR",
    "codebook": "VARCHAR",
    "codebook_version": "BIGINT",
    "codebook_sha256": "VARCHAR",
    "model_version": "VARCHAR",
    # Profiles and what is made of them compare within a series alone: another one has another unit.
    "model_series": "VARCHAR",
    "mindcensus": "VARCHAR",
    "code_sha256": "VARCHAR",
}

Manifest = Mapping[str, Any]


@cache
def hash_code() -> str:
    """sha256 of the program's own files, each after its path: a version alone does not tell two commits apart."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(file for package in PACKAGES for file in (root / package).rglob("*") if file.is_file()):
        if file.suffix != ".pyc":
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def describe_night(manifest: Manifest) -> dict[str, Any]:
    """A night in one row of NIGHT_TYPES; `manifest` and `report` are paths in the public zone. Null where not known.

    A night that stayed internal has none of both.
    """
    stages, codebook = manifest["stages"], manifest.get("codebook", {})
    trained, reported = (stages.get(stage, {}).get("details", {}) for stage in ("train", "report"))
    return {
        "run_date": manifest["run_date"],
        "token": manifest["token"],
        "manifest": _name_manifest(manifest) if is_public(manifest) else None,
        "report": _in_zone(reported["report"]) if "report" in reported else None,
        "codebook": codebook.get("name"),
        "codebook_version": codebook.get("version"),
        "codebook_sha256": codebook.get("sha256"),
        "model_version": trained.get("model_version"),
        "model_series": trained.get("series"),
        "mindcensus": manifest.get("mindcensus"),
        "code_sha256": manifest.get("code_sha256"),
    }


def _name_manifest(manifest: Manifest) -> str:
    return f"runs/run_date={manifest['run_date']}/{manifest['token']:08d}.json"


def list_files(manifests: Iterable[Manifest], tables: Sequence[str]) -> str:
    """CSV of the published files of public tables, in the nights' order: each file's path, then what its night is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("table", "path", "rows", "sha256", *NIGHT_TYPES))
    for manifest in manifests:
        night = describe_night(manifest).values()
        for table in tables:
            for record in manifest["stages"].values():
                for file in record["tables"].get(table, ()):
                    writer.writerow((table, _in_zone(file["path"]), file["rows"], file["sha256"], *night))
    return text.getvalue()


def name_figure(outcome: str, kind: str, cell: Mapping[str, str]) -> str:
    """A figure's name within its night, fit for an anchor: `phq9_ge10.proportion.sex=men`; all = everybody."""
    levels = [f"{cohort}={level}" for cohort, level in cell.items()]
    return "_".join(".".join((outcome, kind, *(levels or ["all"]))).split())


def _in_zone(path: str) -> str:
    """A path in the lake, seen from its zone."""
    return str(PurePosixPath(*PurePosixPath(path).parts[1:]))
