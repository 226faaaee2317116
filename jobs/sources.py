"""Reading an extract: from the files as they were delivered to one frame of text, its ids pseudonymised at once."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from expectations.purpose import Consent
from jobs.csv_source import count_csv_rows, read_csv_header, read_csv_rows
from jobs.delivery import check_delivery
from jobs.parquet_source import read_parquet_header, read_parquet_rows
from jobs.source_files import SourceFile, describe_file, find_files
from jobs.stat_files import read_stat_file, read_stat_header

OWN_COLUMNS = ("person_id", "source_file", "malformed", "unmatched")
Names = tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """The file of feedback: `person_id`, its columns as text, `source_file`, `malformed`; its `rows`, counted apart."""

    frame: DataFrame
    rows: int


@dataclass(frozen=True)
class Delivered:
    """What was delivered.

    `frame` has a row for each delivered record: `person_id` (pseudonym; null where no id was delivered), every other
    column of the codebook as text (blank or null where nothing was said), `source_file`, `malformed` (a CSV line that
    is not in the declared encoding, or cannot be cut into its fields: all of these are null then, the id too),
    `unmatched` (a row of a joined file without a partner in the first file). `new_columns` were delivered although the
    codebook does not know them. `rows` of the first entry are counted in its files and not by Spark: `frame` holds as
    many, unmatched ones apart. `feedback` is None where the codebook has none.
    """

    frame: DataFrame
    rows: int
    new_columns: Names
    files: tuple[SourceFile, ...]
    feedback: Told | None = None


@dataclass(frozen=True)
class Entry:
    """One entry of the codebook's `files`; of each file its columns, its format's header, and its rows."""

    files: tuple[Path, ...]
    columns: tuple[Names, ...]
    headers: tuple[Any, ...]
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        more = f" (and {len(self.files) - 1} more)" if len(self.files) > 1 else ""
        return self.files[0].name + more


def read_extract(spark: SparkSession, book: Codebook, extract: Path, key_path: Path) -> Delivered:
    """Reads the extract, a folder or the one file that the codebook names.

    Raises ContractBroken, which names the file, the column and what to do, and PermissionError.
    """
    found = find_files(book.source, extract)
    lists = _find_beside(book, extract, book.consent.list if book.consent else None)
    told = _find_beside(book, extract, book.feedback.file if book.feedback else None)
    files = [file for group in (*found, *lists, *told) for file in group]
    described = tuple(describe_file(file) for file in files)
    check_delivery(extract, {file: told.sha256 for file, told in zip(files, described, strict=True)})
    entries = [_read_headers(group, book, book.column_types()) for group in found]
    consents = [_read_headers(group, book, book.column_types()) for group in lists]
    _check_columns(book, entries, consents)
    types = book.column_types()
    frames = [_read_rows(spark, entry, book, types, key_path) for entry in entries]
    frame = reduce(_join_frames, frames[1:], frames[0].withColumn("unmatched", F.lit(False)))
    for entry in consents:
        frame = _join_consents(frame, _read_rows(spark, entry, book, types, key_path), book.consent)
    delivered = dict.fromkeys(name for entry in entries for name in entry.columns[0] if name.strip())
    new = tuple(name for name in delivered if name not in types)
    columns = [name for name in types if name != book.person_id]
    chosen = frame.select("person_id", *columns, "source_file", "malformed", "unmatched")
    feedback = [_read_feedback(spark, group, book, key_path) for group in told]
    return Delivered(chosen, sum(entries[0].rows), new, described, *feedback)


def _read_feedback(spark: SparkSession, files: tuple[Path, ...], book: Codebook, key_path: Path) -> Told:
    """It may have no rows: then nobody has said anything yet."""
    assert book.feedback
    wanted = book.feedback.columns
    entry = _read_headers(files, book, (book.person_id, *wanted))
    if missing := [name for name in (book.person_id, *wanted) if name not in entry.columns[0]]:
        raise ContractBroken(f"{entry.name}: the feedback has no column {', '.join(missing)}")
    for file, columns in zip(entry.files, entry.columns, strict=True):
        _compare_parts(book, file.name, columns, entry)
    return Told(_read_rows(spark, entry, book, wanted, key_path), sum(entry.rows))


def _read_headers(files: tuple[Path, ...], book: Codebook, expected: Iterable[str]) -> Entry:
    match book.source.format:
        case "csv":
            lines = tuple(read_csv_header(file, book.source, expected) for file in files)
            counts = tuple(count_csv_rows(file, {h.line for h in lines}) for file in files)
            return Entry(files, tuple(h.columns for h in lines), lines, counts)
        case "parquet":
            schemas = tuple(read_parquet_header(file) for file in files)
            names = tuple(tuple(schema.names) for schema, _ in schemas)
            return Entry(files, names, tuple(schema for schema, _ in schemas), tuple(rows for _, rows in schemas))
        case kind:
            found = tuple(read_stat_header(file, kind) for file in files)
            rows = tuple(count for _, count in found)
            return Entry(files, tuple(names for names, _ in found), rows, rows)


def _find_beside(book: Codebook, extract: Path, name: str | None) -> list[tuple[Path, ...]]:
    """The files of the consents' list or of the feedback, as one entry; none where the codebook names none."""
    if name is None:
        return []
    if extract.is_file():
        raise ContractBroken(f"{extract.name} is one file, and {name} belongs to it: give the folder that holds both")
    return find_files(book.source.model_copy(update={"files": (name,)}), extract)


def _check_columns(book: Codebook, entries: Sequence[Entry], consents: Sequence[Entry] = ()) -> None:
    """Raises ContractBroken for columns missing, repeated or different between parts, and entries without rows.

    The consents' column is looked for in their list, where there is one, and nowhere else.
    """
    expected = book.column_types()
    for entry in consents:
        assert book.consent
        own = (book.person_id, book.consent.column)
        if missing := [name for name in own if name not in entry.columns[0]]:
            raise ContractBroken(f"{entry.name}: the list of consents has no column {', '.join(missing)}")
        if twice := [one.name for one in entries if book.consent.column in one.columns[0]]:
            raise ContractBroken(f"column {book.consent.column} stands in {twice[0]}, too: deliver it in the list only")
        for file, columns in zip(entry.files, entry.columns, strict=True):
            _compare_parts(book, file.name, columns, entry)
        del expected[book.consent.column]
    delivered = list(dict.fromkeys(name for entry in entries for name in entry.columns[0]))
    where = ", ".join(entry.name for entry in entries)
    missing = [name for name in expected if name not in delivered]
    if missing:
        # Without a header the first line is somebody's answers: none of it may be shown.
        known = len(missing) < len(expected)
        hints = [_suggest(name, [d for d in delivered if d not in expected]) if known else name for name in missing]
        question = "" if known else " (is the first line a header?)"
        raise ContractBroken(
            f"{where}: {len(missing)} of the codebook's {len(expected)} columns missing{question}: {', '.join(hints)}. "
            "Ask for a complete delivery, or correct the codebook"
        )
    for entry in entries:
        if book.person_id not in entry.columns[0]:
            raise ContractBroken(f"{entry.name}: the column {book.person_id}, which joins the files, is missing")
        for file, columns in zip(entry.files, entry.columns, strict=True):
            _compare_parts(book, file.name, columns, entry)
        if not any(entry.rows):
            raise ContractBroken(f"{entry.name} has no rows: ask for the delivery again")
    holders = Counter(name for entry in entries for name in entry.columns[0])
    for name in sorted(name for name in expected if holders[name] > 1 and name != book.person_id):
        raise ContractBroken(f"column {name} stands in several of {where}: deliver it in one of them only")
    names = Counter(name.lower() for name in (*OWN_COLUMNS, *expected) if name != book.person_id)
    names["person_id"] += book.person_id == "person_id"
    for name in sorted(name for name, count in names.items() if count > 1):
        raise ContractBroken(f"two columns would be called {name}, capitals apart: rename one in extract and codebook")


def _suggest(name: str, others: Sequence[str]) -> str:
    for other in others:
        if other.strip().lower() == name.lower():
            return f"{name} (there is {other!r}: capitals and blanks count)"
    near = difflib.get_close_matches(name, [o for o in others if re.match("[A-Za-z_]", o)], n=1, cutoff=0.6)
    return f"{name} (renamed to {near[0]}?)" if near else name


def _compare_parts(book: Codebook, file: str, columns: Names, entry: Entry) -> None:
    first, first_name = entry.columns[0], entry.files[0].name
    # Spark takes a Parquet file's names as equal where only their capitals differ.
    counts = Counter(c.lower() if book.source.format == "parquet" else c for c in first if c.strip())
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ContractBroken(f"{first_name}: column names that stand twice: {', '.join(repeated)}; rename one of each")
    if set(columns) != set(first):
        lacking = ", ".join(sorted(set(first) - set(columns))) or "none"
        more = len(set(columns) - set(first))
        raise ContractBroken(f"{file} lacks columns of {first_name}: {lacking}; {more} are new: deliver equal parts")
    if columns != first and book.source.format == "csv":
        raise ContractBroken(f"{file}: columns in another order than in {first_name}: deliver equal parts")


def _read_rows(spark: SparkSession, entry: Entry, book: Codebook, wanted: Iterable[str], key_path: Path) -> DataFrame:
    """`person_id`, those of the wanted columns that the entry has, `source_file`, `malformed`."""
    columns = [name for name in wanted if name in entry.columns[0] and name != book.person_id]
    match book.source.format:
        case "csv":
            return read_csv_rows(spark, entry.files, entry.headers, book.source, book.person_id, columns, key_path)
        case "parquet":
            return read_parquet_rows(spark, entry.files, entry.headers, book.person_id, columns, key_path)
        case kind:
            tables = []
            for file, rows in zip(entry.files, entry.headers, strict=True):
                table = read_stat_file(file, kind, rows, book.person_id, columns, key_path)
                tables.append(table.append_column("source_file", pa.array([file.name] * len(table), pa.string())))
            # Ids are pseudonyms already: the table may lie in Spark's scratch folder on its way.
            return spark.createDataFrame(pa.concat_tables(tables)).withColumn("malformed", F.lit(False))


def _join_consents(frame: DataFrame, consents: DataFrame, consent: Consent | None) -> DataFrame:
    """The frame with everybody's consent; of several for one person one that does not agree counts."""
    assert consent
    code = F.nullif(F.trim(consent.column), F.lit(""))
    told = F.array_sort(F.collect_set(code))
    refusing = F.filter(told, lambda one: ~one.isin(*consent.agreed_texts))
    # An empty code is in no set.
    agreeing = F.when(~F.bool_or(code.isNull()), F.get(told, F.lit(0)))
    decided = F.coalesce(F.get(refusing, F.lit(0)), agreeing).alias(consent.column)
    listed = consents.where(F.col("person_id").isNotNull()).groupBy("person_id").agg(decided)
    return frame.join(listed, on="person_id", how="left")


def _join_frames(base: DataFrame, other: DataFrame) -> DataFrame:
    """All rows of both, each once; a row of `other` without a partner is unmatched.

    Rows without an id have no partner, and neither has an id that `other` holds twice: it would double rows of `base`.
    """
    times = F.count(F.lit(1)).over(Window.partitionBy("person_id"))
    keyed = other.select("*", F.when(times == 1, F.col("person_id")).alias("partner"))
    left, right = base.alias("base"), keyed.alias("other")
    joined = left.join(right, F.col("base.person_id") == F.col("other.partner"), how="full_outer")
    own = {*OWN_COLUMNS}
    malformed = [F.coalesce(F.col(f"{side}.malformed"), F.lit(False)) for side in ("base", "other")]
    return joined.select(
        F.coalesce("base.person_id", "other.person_id").alias("person_id"),
        *[F.col(f"base.{name}") for name in base.columns if name not in own],
        *[F.col(f"other.{name}") for name in other.columns if name not in own],
        F.coalesce("base.source_file", "other.source_file").alias("source_file"),
        (malformed[0] | malformed[1]).alias("malformed"),
        F.coalesce("base.unmatched", F.lit(True)).alias("unmatched"),
    )
