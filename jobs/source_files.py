"""The delivered files: found by the codebook's names, described for the manifest, and named for Spark."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import Column
from pyspark.sql import functions as F

from expectations.codebook_parts import Source
from expectations.errors import ContractBroken
from jobs.lake import hash_file


@dataclass(frozen=True)
class SourceFile:
    """A delivered file, as the manifest names it; `size` in bytes."""

    name: str
    size: int
    sha256: str


def describe_file(file: Path) -> SourceFile:
    return SourceFile(file.name, file.stat().st_size, hash_file(file))


def find_files(source: Source, extract: Path) -> list[tuple[Path, ...]]:
    """The files of each entry of the codebook's `files`, in the order of their names.

    Raises ContractBroken where an entry matches nothing or a file is empty, PermissionError where a folder is closed.
    """
    if not extract.exists():
        raise ContractBroken(f"{extract}: no such file or folder: has the extract been delivered?")
    if extract.is_dir():
        found = [_match_entry(source, extract, entry) for entry in source.files]
    elif len(source.files) == 1:
        found = [(extract,)]
    else:
        names = ", ".join(source.files)
        raise ContractBroken(f"{extract.name} is one file, the codebook joins {names}: give the folder that holds them")
    for file in (file for files in found for file in files):
        if not file.stat().st_size:
            raise ContractBroken(f"{file.name} is empty (0 bytes): ask for the delivery again")
    return found


def _match_entry(source: Source, folder: Path, entry: str) -> tuple[Path, ...]:
    # A closed folder raises PermissionError here; a pattern would only find nothing in it.
    names = sorted(path.name for path in folder.iterdir())
    exact = folder / entry
    matches = [exact] if exact.exists() else sorted(folder.glob(entry))
    if source.format == "parquet":
        # Other programs write a table as a folder of parts.
        parts = [sorted(path.rglob("[!._]*.parquet")) if path.is_dir() else [path] for path in matches]
        matches = [file for files in parts for file in files]
    files = tuple(path for path in matches if path.is_file())
    if not files:
        near = difflib.get_close_matches(entry, names, n=1, cutoff=0.75)
        hint = f"there is {near[0]}" if near else f"the folder holds {len(names)} other files"
        raise ContractBroken(f"{folder}: no file {entry} ({hint}): ask for the delivery, or correct `source.files`")
    return files


def escape_path(path: Path) -> str:
    """The path as Spark's pattern for this file alone.

    Raises ContractBroken for a name that Spark would pass over in silence or cannot open.
    """
    if path.name.startswith(("_", ".")):
        raise ContractBroken(f"{path.name}: Spark passes over files whose names begin with `_` or `.`: rename it")
    if ":" in path.name:
        raise ContractBroken(f"{path.name}: Spark cannot open a file with a colon in its name: rename it")
    return re.sub(r"([\\\[\]{}*?^])", r"\\\1", str(path.resolve()))


def file_name_column(files: Sequence[Path]) -> Column:
    """The base name of the file that a row comes from."""
    if len(files) == 1:
        return F.lit(files[0].name)
    # Spark percent-encodes the name, but leaves a plus sign as it is.
    return F.url_decode(F.replace(F.col("_metadata.file_name"), F.lit("+"), F.lit("%2B")))
