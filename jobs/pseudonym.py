"""Pseudonyms: HMAC-SHA256 of the delivered id, under a key that no plan, log or table ever holds.

The key comes from the file that MINDCENSUS_KEY_FILE names, else from MINDCENSUS_KEY, else the lake makes its own once.
Whoever has the key can tell who is who; whoever loses it cannot link a later delivery to an earlier one.
"""

import hmac
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql.pandas.functions import arrow_udf

from jobs.errors import UsageError

if TYPE_CHECKING:
    from jobs.lake import Lake

FILE_VARIABLE, VALUE_VARIABLE = "MINDCENSUS_KEY_FILE", "MINDCENSUS_KEY"

log = logging.getLogger(__name__)


def key_file(lake: "Lake") -> Path:
    """The file of mode 0600 from which driver and executors read the key; made at first use where none is given.

    Raises UsageError where the file is missing, empty or open to others.
    """
    named, value = os.environ.get(FILE_VARIABLE), os.environ.get(VALUE_VARIABLE)
    if named:
        path = Path(named).resolve()
    else:
        folder = lake.restricted / "keys"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / ("environment.key" if value else "pseudonym.key")
        if value:
            _replace_key(path, value)
        elif not path.exists() and _create_key(path):
            log.warning("made a new pseudonym key, %s: keep a copy of it where the lake's readers cannot see it", path)
    _check_key(path)
    return path


def _check_key(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"key file {path}: no such file; correct {FILE_VARIABLE}")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise UsageError(f"key file {path} has mode {mode:04o}, open to other users: run `chmod 600` on it")
    if not read_key(path):
        raise UsageError(f"key file {path} is empty: put a long random value in it")


def _write_private(path: Path, key: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())


def _create_key(path: Path) -> bool:
    """Makes the key in one step; False where another process was first."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_private(scratch, secrets.token_hex(32))
        # A link, and not a rename, never replaces a key that another process has just made.
        os.link(scratch, path)
    except FileExistsError:
        return False
    finally:
        scratch.unlink(missing_ok=True)
    return True


def _replace_key(path: Path, value: str) -> None:
    if path.exists() and path.stat().st_mode & 0o777 == 0o600 and read_key(path) == value.strip().encode():
        return
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_private(scratch, value.strip())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_key(path: Path) -> bytes:
    return path.read_bytes().strip()


def name_key(path: Path) -> str:
    """A name by which a key is known again, and that does not give it away."""
    return hmac.digest(read_key(path), b"mindcensus key", "sha256").hex()[:16]


def digest_ids(ids: Iterable[bytes | None], key: bytes) -> list[str | None]:
    """64 hexadecimal characters for each id without the blanks around it; None for a missing or blank one."""
    stripped = (i.strip() if i is not None else b"" for i in ids)
    return [hmac.digest(key, i, "sha256").hex() if i else None for i in stripped]


def pseudonymise(column: Column, key_path: Path) -> Column:
    """The pseudonyms of a string column of ids. The plan holds the key file's path; workers read the key from it."""
    path = Path(key_path)

    def digest(ids: pa.Array) -> pa.Array:
        # As bytes, because a failed decoding would put an id into an exception.
        return pa.array(digest_ids(ids.cast(pa.binary()).to_pylist(), read_key(path)), pa.string())

    pseudonyms: Column = arrow_udf(digest, "string")(column)  # type: ignore[call-overload]
    return pseudonyms
