"""The public tables as files inside the page: CSV, Excel and Parquet as data links, so that nothing is fetched."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import xlsxwriter

MOST_BYTES = 3_000_000  # of one file; more is read in the public folder
TYPES = {
    "csv": "text/csv;charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True)
class Download:
    """A file: its name, its format, its size, and its content as a link; no link where it is too large."""

    name: str
    format: str
    kilobytes: int
    link: str | None


def make_downloads(tables: Mapping[str, pa.Table], run_date: date) -> dict[str, list[Download]]:
    """For each table its files. The same tables give the same bytes."""
    makers = {"csv": _write_csv, "xlsx": _write_xlsx, "parquet": _write_parquet}
    made: dict[str, list[Download]] = {}
    for name, table in tables.items():
        made[name] = []
        for kind, write in makers.items():
            data = write(table)
            text = base64.b64encode(data).decode()
            link = f"data:{TYPES[kind]};base64,{text}" if len(data) <= MOST_BYTES else None
            made[name].append(Download(f"{name}-{run_date}.{kind}", kind, -(-len(data) // 1000), link))
    return made


def _write_csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _write_parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _write_xlsx(table: pa.Table) -> bytes:
    """One sheet, its head frozen; text is never read as a formula, and what is null stays empty."""
    buffer = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(buffer, options) as book:
        # The time of making would be another one each time.
        book.set_properties({"created": datetime(2000, 1, 1)})
        sheet = book.add_worksheet("table")
        sheet.freeze_panes(1, 0)
        sheet.write_row(0, 0, table.column_names, book.add_format({"bold": True}))
        for column, name in enumerate(table.column_names):
            for row, value in enumerate(table[name].to_pylist(), start=1):
                if value is not None:
                    sheet.write(row, column, value.isoformat() if isinstance(value, date) else value)
    return buffer.getvalue()
