"""Planted values, looked for byte by byte in all that nights leave behind."""

import os
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

Needles = Mapping[str, Sequence[bytes]]  # each planted value with all the bytes that it may appear as


@dataclass(frozen=True)
class Find:
    """A needle that was found, and where."""

    needle: str
    place: str


def spell_text(text: str) -> list[bytes]:
    return [text.encode(), text.encode("utf-16-le")]


def spell_number(value: float, text: str) -> list[bytes]:
    """As it is written, and as a double: it should have so many binary digits that no other number has its bytes."""
    return [text.encode(), struct.pack("<d", value), struct.pack(">d", value)]


def search_tree(root: Path, needles: Needles) -> set[Find]:
    """All needles in all files under the root: as bytes and, in Parquet and DuckDB files, as values."""
    found = set()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            data, place = path.read_bytes(), str(path.relative_to(root))
        except FileNotFoundError:
            continue  # a process that was ending has tidied up
        values = read_values(path, data)
        for needle, forms in needles.items():
            if any(form in data for form in forms) or needle in values:
                found.add(Find(needle, place))
    return found


def read_values(path: Path, data: bytes) -> str:
    """What a compressed file holds, as one text."""
    if data[:4] == b"PAR1" and data[-4:] == b"PAR1":
        table = pq.read_table(path, partitioning=None)
        return "\n".join(str(value) for column in table.columns for value in column.to_pylist())
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
            views = connection.execute("SELECT sql FROM duckdb_views()").fetchall()
            return str([connection.execute(f"FROM {table}").fetchall() for table in tables]) + str(views)
    return ""


class ScratchCopy(threading.Thread):
    """Links every file that appears in the folders, so that what is removed again can still be searched."""

    def __init__(self, folders: Sequence[Path], copy: Path) -> None:
        super().__init__(daemon=True)
        self._folders, self._copy, self._ended = folders, copy, threading.Event()
        self._linked: set[tuple[int, str]] = set()
        copy.mkdir()

    def run(self) -> None:
        while not self._ended.wait(0.005):
            for folder in self._folders:
                for parent, _, names in os.walk(folder):
                    for name in names:
                        self._link(Path(parent) / name)

    def _link(self, path: Path) -> None:
        with suppress(OSError):
            known = (path.stat().st_ino, path.name)
            if known not in self._linked:
                os.link(path, self._copy / f"{len(self._linked):06d}-{path.name}")
                self._linked.add(known)

    def finish(self) -> None:
        self._ended.set()
        self.join()
