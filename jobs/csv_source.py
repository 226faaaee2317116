"""CSV files: the header checked strictly here, the rows read and cut into fields by Spark.

Each line is one record (RFC 4180, but without line breaks inside quotes), so that a large file can be split between
executors and one stray quote cannot swallow the rows after it. A line that is not in the declared encoding, or cannot
be cut into exactly the header's fields, is a malformed row: it stays a row, all its fields empty, because any of them
might be the id, and none can be trusted to say that somebody agrees. Blank lines and lines that repeat the header are
no rows.
Spark's own CSV parser is not used: it quotes the record in an exception where a line has more fields than it allows.
"""

import codecs
import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.codebook_parts import Source
from expectations.errors import ContractBroken
from jobs.pseudonym import pseudonymise
from jobs.source_files import escape_path, file_name_column

SCANNED = 2**20  # bytes at the start of a file that must be in the declared encoding
BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", ":": "colon"}
# Quotes doubled inside quotes: bounded, because the pattern matcher recurses once for each.
QUOTED = '"[^"]*+(?:""[^"]*+){0,200}+"'


class CsvHeader(NamedTuple):
    """The names of the columns, and the line that holds them as it stands in the file."""

    columns: tuple[str, ...]
    line: bytes


def read_csv_header(path: Path, source: Source, expected: Iterable[str]) -> CsvHeader:
    """Reads the header and checks the start of the file.

    Raises ContractBroken for another encoding or delimiter, a byte-order mark, or a broken header.
    """
    with path.open("rb") as file:
        start = file.read(SCANNED)
        whole = len(start) < SCANNED
        _check_encoding(path.name, start, whole, source.encoding)
        content = start.removeprefix(codecs.BOM_UTF8)
        line = re.split(rb"[\r\n]", content, maxsplit=1)[0]
    if len(line) == len(content) and not whole:
        raise ContractBroken(f"{path.name}: the first line is longer than {SCANNED} bytes: is this a CSV file?")
    if not line.strip():
        raise ContractBroken(f"{path.name}: the first line is blank: it must hold the columns' names")
    text = line.decode(source.encoding)
    columns = _split_header(path.name, text, source.delimiter)
    _check_delimiter(path.name, text, columns, source.delimiter, set(expected))
    return CsvHeader(columns, line)


def count_csv_rows(path: Path, headers: Iterable[bytes]) -> int:
    """The rows of a file, counted without Spark: its lines less blank ones and those that repeat a header."""
    others = {"", *(header.decode("latin-1") for header in headers)}
    # Any byte is text in Latin-1, and the line breaks are those of Spark: CR, LF or both.
    with path.open(encoding="latin-1", newline=None) as file:
        mark = codecs.BOM_UTF8.decode("latin-1")
        return sum(line.rstrip("\n").removeprefix(mark).strip(" ") not in others for line in file)


def _check_encoding(name: str, start: bytes, whole: bool, encoding: str) -> None:
    for mark, what in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            raise ContractBroken(f"{name} is in {what}; the codebook says {encoding}: save the file again as UTF-8")
    if start.startswith(codecs.BOM_UTF8) and encoding != "utf-8-sig":
        advice = "declare `encoding: utf-8-sig` in the codebook, or save the file again without the mark"
        raise ContractBroken(f"{name} begins with a UTF-8 byte-order mark; the codebook says {encoding}: {advice}")
    if b"\0" in start:
        offset = start.index(b"\0")
        raise ContractBroken(f"{name}: byte {offset} is zero: this is not {encoding} text; save it again as UTF-8")
    try:
        codecs.getincrementaldecoder(encoding)().decode(start, whole)
    except UnicodeDecodeError as error:
        # A byte-order mark's three bytes are not in the decoder's own count.
        offset = error.start + (3 if start.startswith(codecs.BOM_UTF8) else 0)
        row = len(re.findall(rb"\r\n|\r|\n", start[:offset])) + 1
        advice = "declare the file's encoding in the codebook (`iso-8859-1` for Western European), or save it as UTF-8"
        raise ContractBroken(f"{name}: byte {offset}, in line {row}, is not {encoding}: {advice}") from None


def _split_header(name: str, text: str, delimiter: str) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader([text], delimiter=delimiter, strict=True)))
    except csv.Error:
        raise ContractBroken(
            f"{name}: a quote in the header is not closed: all names must be on the first line"
        ) from None


def _check_delimiter(name: str, text: str, columns: Sequence[str], declared: str, expected: set[str]) -> None:
    def count_known(delimiter: str) -> int:
        return len(expected.intersection(field.strip('" ') for field in text.split(delimiter)))

    best = max(DELIMITERS, key=count_known)
    if count_known(best) > max(1, len(expected.intersection(columns))):
        said = DELIMITERS.get(declared, repr(declared))
        advice = f"declare `delimiter: {best!r}` in the codebook, or save the file again"
        raise ContractBroken(
            f"{name}: its delimiter seems to be a {DELIMITERS[best]}, the codebook says {said}: {advice}"
        )


def read_csv_rows(
    spark: SparkSession,
    files: Sequence[Path],
    headers: Sequence[CsvHeader],
    source: Source,
    person_id: str,
    columns: Sequence[str],
    key_path: Path,
) -> DataFrame:
    """`person_id` (pseudonym), the columns as strings, `source_file`, `malformed`; one row for each line of data."""
    names = headers[0].columns
    paths = [escape_path(file) for file in files]
    raw = spark.read.option("recursiveFileLookup", True).text(paths)
    repeated = [F.lit(bytearray(line)) for line in sorted({header.line for header in headers})]
    line = F.col("value")
    kept = raw.where((F.trim(line) != "") & ~line.cast("binary").isin(*repeated))
    if source.encoding == "iso-8859-1":
        text, valid = F.decode(line.cast("binary"), "ISO-8859-1"), F.lit(True)
    else:
        text, valid = F.make_valid_utf8(line), F.is_valid_utf8(line)
    lines = kept.select(text.alias("line"), valid.alias("valid"), file_name_column(files).alias("source_file"))
    tokens = lines.select(_split_line(F.col("line"), source.delimiter).alias("tokens"), "line", "valid", "source_file")
    whole = F.when(F.col("valid"), _whole_fields(len(names), source.delimiter))
    fields = tokens.select(whole.alias("fields"), "source_file")
    cut = fields.select(
        *[F.get("fields", F.lit(names.index(name))).alias(name) for name in (person_id, *columns)],
        "source_file",
        F.isnull("fields").alias("malformed"),
    )
    return cut.select(pseudonymise(F.col(person_id), key_path).alias("person_id"), *columns, "source_file", "malformed")


def _split_line(line: Column, delimiter: str) -> Column:
    """The line's parts between delimiters, quotes and all: an array of strings."""
    mark = delimiter if delimiter.isalnum() or delimiter.isspace() else "\\" + delimiter
    pattern = f'{mark}({QUOTED}(?={mark}|\\z)|(?!")[^{mark}]*+)'
    # With a delimiter before it each part is the same match, and none is empty.
    quoted = F.regexp_extract_all(F.concat(F.lit(delimiter), line), F.lit(pattern), 1)
    return F.when(line.contains('"'), quoted).otherwise(F.split(line, mark, -1))


def _whole_fields(count: int, delimiter: str) -> Column:
    """The fields' values; null where they are not as many as the header's, or a quote is open."""
    tokens, line = F.col("tokens"), F.col("line")
    # Joined again the parts are the line, unless the pattern had to pass over something.
    unquoted = F.when(F.array_join(tokens, delimiter) == line, F.transform(tokens, _unquote))
    return F.when(F.size(tokens) == count, F.when(line.contains('"'), unquoted).otherwise(tokens))


def _unquote(token: Column) -> Column:
    inner = F.replace(F.substring(token, F.lit(2), F.length(token) - 2), F.lit('""'), F.lit('"'))
    return F.when(token.startswith('"'), inner).otherwise(token)
