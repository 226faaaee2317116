"""The data dictionary: every table and column with its meaning, made of the lists that drive the tables themselves."""

import csv
import io
from pathlib import Path

from expectations.codebook import Codebook
from jobs.lake import PUBLIC_TABLES, write_atomically
from jobs.pages import render_page
from jobs.tables import TABLES, ColumnSpec

FIELDS = ("table", "zone", "column", "type", "nullable", "unit", "meaning", "source")
RUN_DATE = ColumnSpec("run_date", "date", "Night that the row belongs to; the partition of the folder", nullable=False)


def write_dictionary(folder: Path, book: Codebook) -> None:
    """Writes data_dictionary.csv and data_dictionary.html, each replaced in one step and readable by everybody."""
    tables = {table: [*columns(book), RUN_DATE] for table, columns in sorted(TABLES.items(), key=_public_first)}
    page = render_page(
        "dictionary.html.j2", book=book, tables=[(t, _zone(t), columns) for t, columns in tables.items()]
    )
    for name, content in (("data_dictionary.csv", _write_csv(tables)), ("data_dictionary.html", page)):
        write_atomically(folder / name, content, 0o644)


def _public_first(entry: tuple[str, object]) -> bool:
    return entry[0] not in PUBLIC_TABLES


def _zone(table: str) -> str:
    return "public" if table in PUBLIC_TABLES else "restricted"


def _write_csv(tables: dict[str, list[ColumnSpec]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for table, columns in tables.items():
        for c in columns:
            nullable = "yes" if c.nullable else "no"
            writer.writerow((table, _zone(table), c.name, c.type, nullable, c.unit, c.meaning, c.source))
    return text.getvalue()
