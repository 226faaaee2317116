"""Pseudonyms: HMAC-SHA256 of the delivered id, under a key that no plan, log or table ever holds.

The key comes from the file that MINDCENSUS_KEY_FILE names, else from MINDCENSUS_KEY, else the lake makes its own once.
Whoever has the key can tell who is who; whoever loses it cannot link a later delivery to an earlier one. The lake knows
its key by a value that the key alone gives, and takes no other.

No lake has delivered ids, so that a new key is laid over the old one: a pseudonym is then the HMAC under the new key of
what it was before. The key's file is a chain, oldest first, and who has no more than the old key knows nobody.
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

CHAIN = b"mindcensus key chain"  # the first line of a key file with several keys, each on a line of its own
OWN_KEY, NEXT_KEY = "pseudonym.key", "next.key"  # the second while a new key is being laid over the first
FILE_VARIABLE, VALUE_VARIABLE = "MINDCENSUS_KEY_FILE", "MINDCENSUS_KEY"

log = logging.getLogger(__name__)


def key_file(lake: "Lake") -> Path:
    """The file of mode 0600 from which driver and executors read the key; made at first use where none is given.

    Raises UsageError where the file is missing, empty or open to others, and where its key is not the lake's.
    """
    named, value = os.environ.get(FILE_VARIABLE), os.environ.get(VALUE_VARIABLE)
    known = lake.key_name()
    if named:
        path = Path(named).resolve()
    elif value:
        _check_known(name_content(value.strip().encode()), known)
        path = _make_folder(lake) / "environment.key"
        _replace_key(path, value)
    else:
        path, prepared = _make_folder(lake) / OWN_KEY, _make_folder(lake) / NEXT_KEY
        if prepared.exists() and name_key(prepared) == known:
            prepared.replace(path)  # a rotation was stopped when all else was done
        if not path.exists() and known:
            raise UsageError(
                f"the lake's pseudonym key is lost: restore {path} from its copy, or name it by {FILE_VARIABLE}; the "
                "way on without one stands in docs/privacy.md, under Pseudonyms and keys"
            )
        if not path.exists() and _create_key(path):
            log.warning("made a new pseudonym key, %s: keep a copy of it where the lake's readers cannot see it", path)
    check_key(path)
    _check_known(name_key(path), known)
    return path


def _make_folder(lake: "Lake") -> Path:
    folder = lake.restricted / "keys"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def check_key(path: Path) -> None:
    """Raises UsageError where a key file is missing, empty or open to others."""
    if not path.is_file():
        raise UsageError(f"key file {path}: no such file; correct {FILE_VARIABLE}")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise UsageError(f"key file {path} has mode {mode:04o}, open to other users: run `chmod 600` on it")
    if mode not in (0o600, 0o400):
        raise UsageError(f"key file {path} has mode {mode:04o}: run `chmod 600` on it")
    keys = split_key(read_key(path))
    if not keys or not all(keys):
        raise UsageError(f"key file {path} is empty: put a long random value in it")


def _check_known(name: str, known: str | None) -> None:
    """Another key would give everybody another pseudonym, and nobody would notice."""
    if known not in (None, name):
        raise UsageError(
            "the pseudonym key is not the one of the lake's last night: restore the key file, or name it by "
            f"{FILE_VARIABLE}; nothing was changed"
        )


def write_private(path: Path, key: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())


def _create_key(path: Path) -> bool:
    """Makes the key in one step; False where another process was first."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write_private(scratch, secrets.token_hex(32))
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
        write_private(scratch, value.strip())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_key(path: Path) -> bytes:
    return path.read_bytes().strip()


def name_key(path: Path) -> str:
    """A name by which a key is known again, and that does not give it away."""
    return name_content(read_key(path))


def name_content(key: bytes) -> str:
    return hmac.digest(key, b"mindcensus key", "sha256").hex()[:16]


def split_key(key: bytes) -> list[bytes]:
    """The keys in a key file's content, oldest first: the whole of it, or the lines of a chain."""
    first, *others = key.split(b"\n")
    return [other.strip() for other in others] if first.strip() == CHAIN else [key]


def extend_key(key: bytes, new: str) -> str:
    """The content of a key file in which a new key is laid over those that there are."""
    return "\n".join(part.decode() for part in (CHAIN, *split_key(key), new.encode()))


def digest_ids(ids: Iterable[bytes | None], key: bytes) -> list[str | None]:
    """64 hexadecimal characters for each id without the blanks around it; None for a missing or blank one.

    `key` is a key file's content.
    """
    first, *later = split_key(key)
    stripped = (i.strip() if i is not None else b"" for i in ids)
    pseudonyms = [hmac.digest(first, i, "sha256").hex() if i else None for i in stripped]
    for link in later:
        pseudonyms = rekey(pseudonyms, link)
    return pseudonyms


def list_pseudonyms(identity: bytes, key: bytes) -> list[str]:
    """The pseudonyms that an id has had under each key of a file's content, the one in force last; none of a blank."""
    first, *later = split_key(key)
    found = digest_ids([identity], first)
    for link in later:
        found += rekey(found[-1:], link)
    return [one for one in found if one]


def rekey(pseudonyms: Iterable[str | None], link: bytes) -> list[str | None]:
    """The pseudonyms under one more key."""
    return [hmac.digest(link, one.encode(), "sha256").hex() if one is not None else None for one in pseudonyms]


def pseudonymise(column: Column, key_path: Path) -> Column:
    """The pseudonyms of a string column of ids. The plan holds the key file's path; workers read the key from it."""
    path = Path(key_path)

    def digest(ids: pa.Array) -> pa.Array:
        # As bytes, because a failed decoding would put an id into an exception.
        return pa.array(digest_ids(ids.cast(pa.binary()).to_pylist(), read_key(path)), pa.string())

    pseudonyms: Column = arrow_udf(digest, "string")(column)  # type: ignore[call-overload]
    return pseudonyms
