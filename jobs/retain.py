"""`mindcensus retain`: people's tables of old nights are removed; estimates, releases, manifests and models stay.

A night's manifest is closed, so that a record beside it, `restricted/retired/<token>.json`, says which tables have
gone; who reads the manifest finds them no more (Lake.manifests). The record comes first, then the catalog without them,
and the files go last: broken off anywhere and run again, it ends the same.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from expectations.codebook import read_codebook
from expectations.errors import ContractBroken
from jobs.analyses import list_analyses
from jobs.catalog import EXPLANATIONS, explanations_index, write_catalog
from jobs.lake import PEOPLE_TABLES, Lake, is_public, write_atomically
from jobs.publish import remove_night, remove_unnamed
from jobs.releases import EARLIER


@dataclass(frozen=True)
class Removed:
    """What went: nights' tables of people, their files and bytes, and nights in the making that were given up.

    `overdue` nights are past the retention that their codebook states: they stay, as later ones are compared with them.
    """

    nights: int = 0
    files: int = 0
    bytes: int = 0
    given_up: int = 0
    overdue: int = 0


def retain(lake: Lake, today: date, keep_days: int) -> Removed:
    """Removes people's tables of nights that are more than `keep_days` old, and nights in the making as old as that.

    Of a night whose codebook states fewer days they go as soon as that, of nights in the making by the fewest days that
    any codebook states. What the next nights look at stays however old
    it is: see `find_needed`. The lake has to be held.
    """
    issued, overdue = lake.issued(), 0
    needed = find_needed(issued)
    stated = {digest: _read_stated(lake, digest) for digest in {m["codebook"]["sha256"] for m in issued}}
    for manifest in issued:
        limit = stated[manifest["codebook"]["sha256"]]
        if not _is_old(manifest["run_date"], today, keep_days, limit) or "retired" in manifest:
            continue
        if manifest["token"] not in needed:
            _retire(lake, manifest, today)
        elif limit and _is_old(manifest["run_date"], today, limit):
            overdue += 1
    if issued:
        lake.check_lease()
        write_catalog(lake.restricted, lake.manifests())
    removed = [_remove_files(lake, json.loads(record.read_text())) for record in sorted(lake.retired.glob("*.json"))]
    days = (keep_days, *stated.values())
    old = [night for night in lake.open_nights() if _is_old(night.run_date.isoformat(), today, *days)]
    for night in old:
        remove_night(night)
        remove_unnamed(lake, night.run_date, night.token)
    sizes = [size for night in removed for size in night]
    return Removed(sum(map(bool, removed)), len(sizes), sum(sizes), len(old), overdue)


def _is_old(run_date: str, today: date, *days: int | None) -> bool:
    """Whether a night is older than the fewest of the days that are stated."""
    return run_date < (today - timedelta(days=min(limit for limit in days if limit))).isoformat()


def find_needed(issued: list[dict[str, Any]]) -> set[int]:
    """Tokens of nights that later ones are compared with: of each codebook the last, and the last public, ones."""
    nights: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for manifest in issued:
        for public in {False, is_public(manifest)}:
            nights[manifest["codebook"]["name"], public].append(manifest["token"])
    latest = max(issued, key=lambda m: (m["run_date"], m["token"]), default=None)
    return {token for tokens in nights.values() for token in tokens[-EARLIER:]} | (
        {latest["token"]} if latest else set()
    )


def _read_stated(lake: Lake, digest: str) -> int | None:
    """The retention that a night's codebook states, None where it states none or cannot be read any more."""
    try:
        book, _ = read_codebook(str(lake.restricted / "codebooks" / f"{digest}.yaml"))
    except ContractBroken:
        return None
    return book.purpose.retention_days


def _retire(lake: Lake, manifest: Mapping[str, Any], today: date) -> None:
    tables = [record["tables"].get(table, ()) for record in manifest["stages"].values() for table in PEOPLE_TABLES]
    files = [file["path"] for table in tables for file in table]
    index = explanations_index(lake.root, manifest["run_date"], manifest["token"])
    if index.is_file():
        files += [file["path"] for file in json.loads(index.read_text())["files"]]
        files.append(str(index.relative_to(lake.root)))
    files += [str(file.relative_to(lake.root)) for file in list_analyses(lake, manifest["run_date"])]
    content = {
        "run_date": manifest["run_date"],
        "token": manifest["token"],
        "on": today.isoformat(),
        "tables": [*PEOPLE_TABLES, EXPLANATIONS],
        "files": files,
    }
    lake.check_lease()
    lake.retired.mkdir(mode=0o700, exist_ok=True)
    write_atomically(lake.retired / f"{manifest['token']:08d}.json", json.dumps(content, indent=1, sort_keys=True))


def _remove_files(lake: Lake, record: Mapping[str, Any]) -> list[int]:
    """The sizes of those that were still there."""
    sizes = []
    for path in map(lake.root.joinpath, record["files"]):
        if path.is_file():
            sizes.append(path.stat().st_size)
            path.unlink()
    return sizes
