"""`mindcensus query`: a question in SQL to a zone's catalog, which reads that catalog's tables and nothing else."""

import csv
import os
import re
import shutil
import sys

import duckdb

from jobs.audit import check_reason, log_access
from jobs.catalog import CATALOG, EXPLANATIONS
from jobs.errors import StageError, UsageError
from jobs.lake import PEOPLE_TABLES, Lake

MAX_ROWS = 100  # of a printed table; what is left out is said under it
NAMED_FILE = re.compile(r"'((?:[^']|'')+\.parquet)'")
OF_PEOPLE = re.compile("|".join((*PEOPLE_TABLES, EXPLANATIONS, "query", "parquet")), re.IGNORECASE)
NAMED_PERSON = re.compile(r"\b[0-9a-f]{64}\b")
ESCAPED = re.compile(r"\[([*?[])\]")
# What their messages quote is the query's own text; any other message may quote a value of a table.
WRONG_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


def print_answer(lake: Lake, sql: str, restricted: bool = False, as_csv: bool = False) -> None:
    """Prints the answer as a table as wide as the terminal, or as CSV with a header, nulls empty.

    Raises UsageError where the SQL is wrong or more than one question, StageError where the catalog or one of its files
    is missing or cannot be read.
    """
    with _open(lake, restricted) as connection:
        try:
            answer = connection.sql(_check_question(sql))
            if as_csv:
                _write_csv(answer)
            else:
                answer.show(max_width=shutil.get_terminal_size().columns, max_rows=MAX_ROWS)
        except WRONG_SQL as error:
            raise UsageError(_shorten(error)) from None
        except duckdb.PermissionException:
            raise UsageError("a query reads the catalog's own tables alone: `SHOW TABLES` names them") from None
        except duckdb.IOException:
            raise StageError(
                "a file that the catalog names is missing or damaged: restore it from a backup, and where the lake was "
                "moved, run `mindcensus publish` of its last night again"
            ) from None
        except duckdb.OutOfMemoryException:
            raise StageError("the query needs more memory than there is: ask for fewer rows or columns") from None
        except duckdb.Error as error:
            name = type(error).__name__
            raise UsageError(f"the query fails on a value ({name}): `try_cast` gives null instead") from None


def log_question(lake: Lake, sql: str, reason: str | None) -> None:
    """Notes in the access log that tables of people were asked, and the pseudonyms that the question names.

    Nobody can tell from SQL whether its answer shows one person, so that every question that names such a table counts,
    and one that could name it by a function. The SQL itself is not kept: it may compare with an answer.
    Raises UsageError without a reason.
    """
    if lake.restricted.is_dir() and OF_PEOPLE.search(sql):
        log_access(lake, "query", sorted(set(NAMED_PERSON.findall(sql))) or [None], check_reason(reason))


def _open(lake: Lake, restricted: bool) -> duckdb.DuckDBPyConnection:
    """The zone's catalog, read-only, without any file but those that its views name, however a query asks for one."""
    if not lake.root.is_dir():
        raise UsageError(f"there is no lake {lake.root}: name its folder by --lake")
    catalog = (lake.restricted if restricted else lake.public) / CATALOG
    if not catalog.is_file():
        raise StageError(f"no night is published in {lake.root}: run `mindcensus run` first")
    try:
        connection = duckdb.connect(str(catalog), read_only=True)
    except duckdb.Error as error:
        if "Permission denied" in str(error):
            raise
        raise StageError(f"{catalog} cannot be read: run `mindcensus publish` of the last night again") from None
    connection.execute("SET allowed_paths = ?", [_find_named(connection)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _find_named(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The files of the catalog's views: DuckDB asks for leave for the pattern first, and then for the file itself."""
    views = connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
    patterns = {name.replace("''", "'") for (sql,) in views for name in NAMED_FILE.findall(sql)}
    return sorted(patterns | {ESCAPED.sub(r"\1", pattern) for pattern in patterns})


def _check_question(sql: str) -> str:
    """The SQL, where it is one SELECT (so are DESCRIBE, SHOW and SUMMARIZE): a COPY would write."""
    statements = duckdb.extract_statements(sql)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise UsageError("a query is one SELECT, DESCRIBE, SHOW or SUMMARIZE; nothing can be written by it")
    return sql


def _shorten(error: duckdb.Error) -> str:
    """The message in one line, without the picture of the query under it."""
    return " ".join(str(error).split("\n\n")[0].split())


def _write_csv(answer: duckdb.DuckDBPyRelation) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    try:
        writer.writerow(answer.columns)
        rows = answer.project("COLUMNS(*)::VARCHAR")  # as DuckDB itself writes each type
        writer.writerows(rows.iter_rows())
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough; Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
