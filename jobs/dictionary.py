"""The data dictionary: every table and column with its meaning, made of the lists that drive the tables themselves."""

import csv
import io
from pathlib import Path

from expectations.codebook import Codebook
from jobs.ddi import write_ddi
from jobs.lake import PUBLIC_TABLES, write_atomically
from jobs.pages import render_page
from jobs.tables import TABLES, ColumnSpec

FIELDS = ("table", "zone", "column", "type", "nullable", "unit", "meaning", "source", "rule", "values")
RUN_DATE = ColumnSpec("run_date", "date", "Night that the row belongs to; the partition of the folder", nullable=False)


def write_dictionary(folder: Path, book: Codebook) -> None:
    """Writes data_dictionary.csv, .html and .xml (DDI), each replaced in one step and readable by everybody."""
    chosen = {table: columns(book) for table, columns in sorted(TABLES.items(), key=_public_first)}
    # Some tables are of codebooks with feedback alone.
    tables = {table: [*columns, RUN_DATE] for table, columns in chosen.items() if columns}
    page = render_page(
        "dictionary.html.j2", book=book, tables=[(t, _zone(t), columns) for t, columns in tables.items()]
    )
    for kind, content in (("csv", _write_csv(tables)), ("html", page), ("xml", write_ddi(book, tables))):
        write_atomically(folder / f"data_dictionary.{kind}", content, 0o644)


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
            values = "; ".join(f"{value} = {meaning}" for value, meaning in c.categories)
            named = (table, _zone(table), c.name, c.type, nullable)
            writer.writerow((*named, c.unit, c.meaning, c.source, c.rule, values))
    return text.getvalue()
