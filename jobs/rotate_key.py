"""`mindcensus rotate-key`: a new key is laid over the lake's, and every pseudonym in people's tables follows it.

Deliveries go on to match, and who has the old key and an old copy of a table knows nobody in the new ones. The access
log keeps the pseudonyms of its time: it is a chain, and who has the new key's file can tell all of a person's.
"""

import secrets
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from jobs.amendments import Amendment, read_amendments
from jobs.analyses import remove_every
from jobs.audit import check_reason, log_access
from jobs.errors import UsageError
from jobs.lake import PEOPLE_TABLES, Lake
from jobs.pseudonym import (
    NEXT_KEY,
    OWN_KEY,
    check_key,
    extend_key,
    key_file,
    name_key,
    read_key,
    rekey,
    split_key,
    write_private,
)
from jobs.rewrite_people import list_files, put_in_force, rewrite_files, tidy_amended
from jobs.withdrawn import read_withdrawn, write_list


def rotate_key(lake: Lake, target: Path | None, reason: str | None) -> Path:
    """Lays a new key over the lake's; returns the file that has both. The lake has to be held.

    `target` is where that file is made; None for a lake that made its key itself, whose file is replaced. Stopped and
    run again, it goes on with the key that it had begun with.
    Raises UsageError where the key is not the lake's, where the target is missing or holds something else.
    """
    reason = check_reason(reason)
    own = lake.restricted / "keys" / OWN_KEY
    prepared = target or own.with_name(NEXT_KEY)
    if target is None and prepared.exists() and name_key(prepared) == lake.key_name():
        return _finish(lake, prepared, own)  # stopped when all was done but this
    old = key_file(lake)
    if (old == own) != (target is None):
        raise UsageError(
            "--to FILE names the new key file where the key comes from MINDCENSUS_KEY_FILE or MINDCENSUS_KEY, and is "
            "left out where the lake has made its key itself"
        )
    log_access(lake, "rotate-key", [None], reason)
    key = read_key(old)
    if not prepared.exists():
        write_private(prepared, extend_key(key, secrets.token_hex(32)))
    check_key(prepared)
    link = _find_link(prepared, key)
    _rekey_lake(lake, name_key(prepared), link)
    return _finish(lake, prepared, own) if target is None else prepared


def _find_link(prepared: Path, key: bytes) -> bytes:
    """The last key of the file; everything before it is the lake's key."""
    *before, link = split_key(read_key(prepared))
    if before != split_key(key):
        raise UsageError(f"{prepared} is there, and is no new key laid over the lake's: name a file that is not there")
    return link


def _rekey_lake(lake: Lake, name: str, link: bytes) -> None:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index("person_id")
        people = pa.array(rekey(table["person_id"].to_pylist(), link), pa.string())
        return table.set_column(place, table.schema.field(place), people)

    before = read_amendments(lake.restricted)
    nights = dict(before.nights)
    for manifest in lake.issued():
        if tables := list_files(manifest, PEOPLE_TABLES):
            made = {table: rewrite_files(lake, manifest, table, files, change) for table, files in tables.items()}
            as_json = {table: [vars(file) for file in files] for table, files in made.items()}
            earlier = nights.get(manifest["token"], Amendment({}))
            nights[manifest["token"]] = replace(earlier, tables={**earlier.tables, **as_json})
    if withdrawn := read_withdrawn(lake):
        write_list(lake, name, [one for one in rekey(withdrawn, link) if one])
    remove_every(lake)
    put_in_force(lake, replace(before, key=name, nights=nights))


def _finish(lake: Lake, prepared: Path, own: Path) -> Path:
    tidy_amended(lake)
    prepared.replace(own)
    return own
