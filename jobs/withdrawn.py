"""The block list: pseudonyms of people who have withdrawn, of whom nothing comes into any table any more.

`restricted/withdrawn/<name of the key>.txt` has a pseudonym a line: a pseudonym is keyed already, a new key can be
laid over it like over every other, and the access log has to name it all the same. Delivered ids come by standard input
or in a file, so that no list of processes shows them, and are pseudonyms before anything else is done with them.
"""

import hashlib
import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.amendments import FILE, read_amendments
from jobs.errors import UsageError
from jobs.lake import DataFile, Lake, StageRecord, write_atomically
from jobs.pseudonym import digest_ids, key_file, list_pseudonyms, name_key, read_key

FOLDER = "withdrawn"
OF_ROWS = ("accepted", "quarantine")  # the tables of `validate` that have people


def read_ids(lake: Lake, file: Path | None) -> list[str]:
    """The pseudonyms of ids that stand one a line in a file, or in standard input; each once, sorted.

    Raises UsageError where there are none, and where the key is not the lake's.
    """
    key = read_key(key_file(lake))
    return sorted({one for one in digest_ids(_read_lines(file), key) if one})


def read_person(lake: Lake, file: Path | None) -> list[str]:
    """One person's pseudonyms under each key that the lake has had, the one in force last.

    Raises UsageError where there is not one id, and where the key is not the lake's.
    """
    key, ids = read_key(key_file(lake)), _read_lines(file)
    if len(ids) != 1:
        raise UsageError(f"{len(ids)} ids were given: one person's data is told at a time")
    return list_pseudonyms(ids[0], key)


def _read_lines(file: Path | None) -> list[bytes]:
    try:
        lines = (sys.stdin.buffer if file is None else file.open("rb")).read().splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{file}: no such file: name one that has an id a line") from None
    ids = [line for line in lines if line.strip()]
    if not ids:
        raise UsageError("no id was given: write one a line to standard input, or into the file that the option names")
    return ids


def withdrawn_file(lake: Lake) -> Path | None:
    """The list in force; None where nobody has withdrawn."""
    key = read_amendments(lake.restricted).key
    file = lake.restricted / FOLDER / f"{key}.txt"
    return file if key and file.exists() else None


def read_withdrawn(lake: Lake) -> list[str]:
    file = withdrawn_file(lake)
    return file.read_text().split() if file else []


def name_withdrawn(lake: Lake) -> str | None:
    """A name of the list's content: a night was validated by it."""
    file = withdrawn_file(lake)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else None


def block_people(lake: Lake, people: Iterable[str]) -> None:
    """Puts people on the list. The lake has to be held."""
    lake.check_lease()
    key = name_key(key_file(lake))
    amendments = read_amendments(lake.restricted)
    if amendments.key is None:  # from now on the key is known, also before the first night is published
        write_atomically(lake.restricted / FILE, replace(amendments, key=key).encode())
    write_list(lake, key, {*read_withdrawn(lake), *people})


def write_list(lake: Lake, key: str, people: Iterable[str]) -> None:
    """The list under a key's name."""
    folder = lake.restricted / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder / f"{key}.txt", "".join(f"{one}\n" for one in sorted(people)))


def find_people(lake: Lake, files: Iterable[DataFile], people: Sequence[str]) -> list[str]:
    """The pseudonyms of a sorted list that have a row in the files; row groups in which none can be are passed over."""
    wanted, found = pa.array(people, pa.string()), []
    for file in files:
        with pq.ParquetFile(lake.root / file.path) as source:
            for number in range(source.num_row_groups):
                if may_hold(source, number, people):
                    own = source.read_row_group(number, columns=["person_id"])["person_id"]
                    found += own.filter(pc.is_in(own, value_set=wanted)).to_pylist()
    return sorted(set(found))


def may_hold(source: pq.ParquetFile, group: int, people: Sequence[str]) -> bool:
    """Whether any of the sorted pseudonyms lies between the least and the greatest of a row group."""
    part = source.metadata.row_group(group)
    columns = [part.column(place) for place in range(part.num_columns)]
    told = next((c.statistics for c in columns if c.path_in_schema == "person_id"), None)
    if told is None or not told.has_min_max:
        return True
    place = bisect_left(people, told.min)
    return place < len(people) and people[place] <= told.max


def check_stays(lake: Lake, pseudonym: str) -> None:
    """Raises UsageError where the person has withdrawn: nothing about them is shown any more."""
    if pseudonym in read_withdrawn(lake):
        raise UsageError("this person has withdrawn: nothing about them is shown any more")


def check_withdrawn(lake: Lake, validated: StageRecord, run_date: object) -> None:
    """Raises UsageError where a night that is taken up again has rows of people who have withdrawn since.

    `validated` is the night's record.
    """
    people = read_withdrawn(lake)
    if not people or validated.details.get("withdrawals") == name_withdrawn(lake):
        return
    if find_people(lake, [file for files in (validated.tables[t] for t in OF_ROWS) for file in files], people):
        raise UsageError(
            f"people of the night of {run_date} have withdrawn since it was validated: validate it again with its "
            "--extract, which leaves them out; `mindcensus withdraw --erase` removes them from published nights"
        )
