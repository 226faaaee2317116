"""SAS transport and SPSS files: checked for damage, read on the driver, every value turned into text.

pyreadstat returns what it can of a truncated SAS transport file without a word, so the file's own structure is checked
first (layout: SAS Institute, "Record layout of a SAS version 5 or 6 data set in SAS transport format", and the same for
versions 8 and 9).
"""

import math
import mmap
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyreadstat

from expectations.errors import ContractBroken
from jobs.pseudonym import digest_ids, read_key

CARD = 80  # bytes: everything in a transport file comes in records of this length
CHUNK_ROWS = 200_000
EXACT = 2**53  # below it every integral double is one integer
NAMES = {"sas_xport": "SAS transport file", "spss_sav": "SPSS file"}
REPAIR = "ask for the file again, or copy it again in binary mode"


def read_stat_header(path: Path, kind: str) -> tuple[tuple[str, ...], int]:
    """The column names and the number of rows. Raises ContractBroken where the file is damaged or cut short."""
    rows = count_xport_rows(path) if kind == "sas_xport" else None
    meta = _read(path, kind, metadataonly=True)[1]
    return tuple(meta.column_names), int(meta.number_rows if rows is None else rows)


def read_stat_file(
    path: Path, kind: str, rows: int, person_id: str, columns: Sequence[str], key_path: Path
) -> pa.Table:
    """`person_id` (pseudonym) and the columns, all strings. Raises ContractBroken where rows are missing."""
    schema = pa.schema([("person_id", pa.string()), *[(name, pa.string()) for name in columns]])
    key, read = read_key(key_path), 0
    tables: list[pa.Table] = []
    while read < rows or not tables:
        data, _ = _read(path, kind, usecols=[person_id, *columns], row_offset=read, row_limit=CHUNK_ROWS)
        ids = [None if text is None else text.encode() for text in to_texts(data[person_id])]
        arrays = [digest_ids(ids, key), *[to_texts(data[name]) for name in columns]]
        tables.append(pa.table([pa.array(a, pa.string()) for a in arrays], schema=schema))
        read += len(ids)
        if len(ids) < CHUNK_ROWS:
            break
    if read != rows:
        raise ContractBroken(f"{path.name}: {read} rows could be read where the file should hold {rows}: {REPAIR}")
    return pa.concat_tables(tables)


def _read(path: Path, kind: str, **options: Any) -> tuple[dict[str, list[Any]], Any]:
    readers: dict[str, Callable[..., Any]] = {"sas_xport": pyreadstat.read_xport, "spss_sav": pyreadstat.read_sav}
    if kind == "spss_sav":
        # User-missing codes come as codes: the codebook says what they mean.
        options["user_missing"] = True
    try:
        data, meta = readers[kind](str(path), output_format="dict", **options)
    except UnicodeDecodeError:
        # The original error holds the text that it could not decode.
        raise ContractBroken(f"{path.name}: text that is not in the file's encoding: save it again as UTF-8") from None
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, OverflowError, ValueError) as error:
        reason = str(error) if isinstance(error, pyreadstat.ReadstatError) else "a value is out of range"
        raise ContractBroken(f"{path.name} is not a whole {NAMES[kind]} ({reason}): {REPAIR}") from None
    return data, meta


def to_texts(values: Iterable[Any]) -> list[str | None]:
    """Canonical text of each value; equal values are formatted once."""
    values = list(values)
    texts = {value: to_text(value) for value in set(values)}
    return [texts[value] for value in values]


def to_text(value: Any) -> str | None:
    """Integral numbers without a point, others so that reading them back is exact, dates as ISO 8601, blanks None."""
    match value:
        case None:
            return None
        case float():
            if math.isnan(value):
                return None
            if math.isinf(value):
                return "Infinity" if value > 0 else "-Infinity"
            return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            text = str(value)
            return text if text.strip() else None


def count_xport_rows(path: Path) -> int:
    """The rows that the file's structure says it holds.

    Raises ContractBroken where it is no transport file, is cut short, or holds more than one data set. A file cut just
    where a row and a record of the layout end together looks whole, unless its header (version 8) has the count.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            start, length, declared = _measure_xport(content)
        except ValueError:
            raise ContractBroken(f"{path.name} has no whole SAS transport header: {REPAIR}") from None
        if content.find(b"HEADER RECORD*******MEMB", start) >= 0:
            raise ContractBroken(f"{path.name} holds more than one data set: deliver each in a file of its own")
        # Blanks fill the last record up; a row's own trailing blanks are told from them by its length.
        tail = max(start, len(content) - CARD + 1)
        filled, end = tail + len(content[tail:].rstrip(b" ")), len(content)
    size = end - start
    rows = -(-(filled - start) // length)
    if end % CARD or rows * length > size or declared not in (None, rows):
        whole = min(size // length, rows)
        raise ContractBroken(f"{path.name} is cut short after {whole} whole rows: {REPAIR}")
    return rows


def _measure_xport(content: mmap.mmap) -> tuple[int, int, int | None]:
    """Where the rows start, a row's length in bytes, and the count of rows where the header has one (version 8)."""
    if not content[:CARD].startswith((b"HEADER RECORD*******LIBRARY", b"HEADER RECORD*******LIBV8")):
        raise ValueError("no library header")
    member, names = content[3 * CARD : 4 * CARD], content[7 * CARD : 8 * CARD]
    if not member.startswith(b"HEADER RECORD*******MEMB") or not names.startswith(b"HEADER RECORD*******NAM"):
        raise ValueError("no member header")
    width, count = int(member[74:78]), int(names[48:58])
    first = 8 * CARD
    lengths = [int.from_bytes(content[p + 4 : p + 6]) for p in range(first, first + count * width, width)]
    header = content.find(b"HEADER RECORD*******OBS", first + count * width)
    if header < 0 or not sum(lengths):
        raise ValueError("no columns or no rows")
    declared = content[header + 48 : header + 78].strip() if content[header + 20 : header + 25] == b"OBSV8" else b""
    return header + CARD, sum(lengths), int(declared) if declared.strip(b"0") else None
