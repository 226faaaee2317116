"""Public releases as they are read back: tonight's rows, and the earlier ones that they must not be compared with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expectations.codebook import Codebook
from jobs.attack import Exposure, find_exposed
from jobs.catalog import find_files
from jobs.disclosure import Release
from jobs.disclosure_profiles import PROFILES
from jobs.errors import Exposed, NotSignedOff, StageError
from jobs.labels import restore_labels
from jobs.lake import Lake, Night, StageRecord, list_public, write_atomically
from jobs.movement import find_moves
from jobs.standardised import list_unpublished
from jobs.survey import CohortRow, Estimate

EARLIER = 10  # releases that tonight's is compared with: the latest
TOLD = 10  # exposed cells that an error names


def read_rows(files: Sequence[Path]) -> list[CohortRow]:
    """The rows of a public `cohorts` table; what is not public is null. Raises StageError where a file is damaged."""
    rows = []
    for file in files:
        try:
            records = pq.ParquetFile(file).read().to_pylist()
        except (OSError, pa.ArrowException):
            raise StageError(f"{file.name}, of the release of {file.parent.name}, is missing or damaged") from None
        for record in records:
            breakdown = tuple(name for name in record["breakdown"].split("*") if name != "all")
            figures = Estimate(**{field.name: record.get(field.name) for field in fields(Estimate)})
            cell = tuple(record[name] for name in breakdown)
            since = record.get("since")
            rows.append(CohortRow(breakdown, cell, record["outcome"], figures, record["disclosure"], since))
    return rows


def read_labelled(cohorts: Sequence[Path], suppressions: Sequence[Path]) -> list[CohortRow]:
    """The public rows with what each of the hidden ones is hidden for, as the restricted table says."""
    return restore_labels(read_rows(cohorts), read_rows(suppressions))


def read_earlier(lake: Lake, token: int, book: Codebook, profiles: Sequence[Path], scratch: Path) -> list[Release]:
    """The last public releases of the same codebook that were issued before the token, with what changed in each cell.

    Of whatever date, and superseded ones too: readers have them all. `profiles` are tonight's. Raises StageError, which
    names the night, where a file of an earlier one is missing or damaged.
    """
    released = list_public(lake.issued())
    before = [m for m in released if m["token"] < token and m["codebook"]["name"] == book.codebook]
    return [_read_release(lake, manifest, book, profiles, scratch) for manifest in before[-EARLIER:]]


def _read_release(
    lake: Lake, manifest: Mapping[str, Any], book: Codebook, now: Sequence[Path], scratch: Path
) -> Release:
    stages = {name: StageRecord.from_json(raw) for name, raw in manifest["stages"].items()}
    files = {}
    for stage, table in (("aggregate", "cohorts"), ("aggregate", "suppressions"), ("score", "profiles")):
        named = stages[stage].tables.get(table, ())
        files[table] = [lake.root / file.path for file in named]
        for file, path in zip(named, files[table], strict=True):
            if not path.is_file() or path.stat().st_size != file.size:
                raise StageError(
                    f"{file.path} is missing or damaged: without the release of {manifest['run_date']} it cannot be "
                    "judged what tonight's would tell beside it; restore the file from a backup"
                )
    known = set(pq.read_schema(files["profiles"][0]).names)
    # What standardised figures are made of is compared, too.
    compared = [*book.breakdowns, *list_unpublished(book.breakdowns, book.standard)]
    breakdowns = [b for b in compared if known.issuperset(b)]
    outcomes = [o for o in book.parsed_outcomes() if o.kind in ("mean", "proportion") and o.source in known]
    moves = find_moves(now, files["profiles"], breakdowns, outcomes, scratch)
    return Release(manifest["run_date"], read_labelled(files["cohorts"], files["suppressions"]), moves)


def audit_release(lake: Lake, manifest: Mapping[str, Any], book: Codebook, scratch: Path) -> list[Exposure]:
    """What the public table of a manifest, published or about to be, exposes, alone and beside the earlier releases."""
    cohorts, hidden, profiles = (
        find_files(lake.root, manifest, table) for table in ("cohorts", "suppressions", "profiles")
    )
    earlier = read_earlier(lake, manifest["token"], book, profiles, scratch)
    tonight = Release(manifest["run_date"], read_labelled(cohorts, hidden))
    return find_exposed(tonight, earlier, PROFILES[book.disclosure.profile], book.parsed_outcomes())


def check_exposed(exposed: Sequence[Exposure]) -> None:
    """Raises Exposed, which names the cells and never what they give away."""
    if exposed:
        more = f"\n  and {len(exposed) - TOLD} more" if len(exposed) > TOLD else ""
        told = "".join(f"\n  {one}" for one in exposed[:TOLD])
        raise Exposed(
            f"the public tables give {len(exposed)} protected figures away; nothing is published:{told}{more}"
        )


def digest_release(records: Mapping[str, StageRecord]) -> str:
    """A name for all that a night makes public."""
    tables = records["aggregate"].tables
    content = {table: [file.sha256 for file in tables[table]] for table in sorted(tables)}
    report = records["report"].details.get("sha256")
    return hashlib.sha256(json.dumps([content, report], sort_keys=True).encode()).hexdigest()


def _sign_off_file(lake: Lake, run_date: str, digest: str) -> Path:
    return lake.restricted / "sign_offs" / f"run_date={run_date}" / f"{digest[:16]}.json"


def sign_off(night: Night, name: str) -> str:
    """Records who has looked at the night's release; returns the digest that was signed off."""
    digest = digest_release({stage: night.read(stage) for stage in ("aggregate", "report")})
    file = _sign_off_file(night.lake, night.run_date.isoformat(), digest)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = {"run_date": night.run_date.isoformat(), "token": night.token, "digest": digest, "by": name}
    write_atomically(file, json.dumps(content, indent=1, sort_keys=True))
    return digest


def find_sign_off(night: Night, records: Mapping[str, StageRecord]) -> dict[str, Any]:
    """Who signed this very release off. Raises NotSignedOff where nobody has."""
    file = _sign_off_file(night.lake, night.run_date.isoformat(), digest_release(records))
    if not file.is_file():
        raise NotSignedOff(
            f"nobody has signed the release of {night.run_date} off: look at its public tables and report, then run "
            f"`mindcensus sign-off --lake {night.lake.root} --run-date {night.run_date} --by NAME`, and publish again"
        )
    signed: dict[str, Any] = json.loads(file.read_text())
    return signed
