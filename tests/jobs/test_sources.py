"""Reading extracts: every format gives the same frame; each way to be broken has its own message."""

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from expectations.codebook import Codebook, read_codebook
from expectations.errors import ContractBroken
from jobs.pseudonym import digest_ids
from jobs.sources import Delivered, read_extract
from jobs.stat_files import count_xport_rows, to_text

KEY = "0123456789abcdef-key-of-the-test"
NAMES = ["pid", "w", "st", "psu", "q1", "q2"]
HEADER = ",".join(NAMES)
GOOD = f"{HEADER}\n70001,1,1,1,1,1\n"
SHARED = Path(os.environ.get("MINDCENSUS_SHARED", Path(__file__).parents[2] / "../shared"))
NHANES = SHARED / "data/nhanes_2017_2018"

Read = Callable[..., Delivered]


def make_book(person_id: str = "pid", stratum: str = "st", **source: Any) -> Codebook:
    return Codebook.model_validate(
        {
            "codebook": "small",
            "version": 1,
            "title": "Small",
            "source": {"format": "csv", "files": ["people.csv"], **source},
            "person_id": person_id,
            "design": {"weight": "w", "stratum": stratum, "psu": "psu"},
            "items": [{"key": k, "column": k, "levels": [0, 1, 2, 3]} for k in ("q1", "q2")],
            "scales": [{"key": "s", "items": ["q1", "q2"], "source": "test"}],
            "traits": [{"key": "t", "scale": "s"}],
            "outcomes": ["s_total"],
        }
    )


@pytest.fixture(scope="session")
def key_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    return path


@pytest.fixture
def read(spark: SparkSession, key_path: Path, tmp_path: Path) -> Read:
    """Reads the test's folder, after its files are written: content by name."""

    def read_files(content: dict[str, Any] | None = None, extract: Path = tmp_path, **source: Any) -> Delivered:
        for name, text in (content or {}).items():
            (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return read_extract(spark, make_book(**source), extract, key_path)

    return read_files


def pseudonym(raw: str | None) -> str | None:
    return digest_ids([raw.encode() if raw else None], KEY.encode())[0]


def cells(delivered: Delivered, *columns: str) -> list[tuple[Any, ...]]:
    """Rows in the order of the frame, which is the order of the file; blank text is no text."""
    rows = delivered.frame.select(*(columns or NAMES[1:])).collect()
    return [tuple(None if isinstance(cell, str) and not cell.strip(" ") else cell for cell in row) for row in rows]


def broken(read: Read, words: Sequence[str], content: dict[str, Any] | None = None, **arguments: Any) -> str:
    with pytest.raises(ContractBroken) as caught:
        read(content, **arguments)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    return message


def write_stat(path: Path, **columns: Sequence[Any]) -> None:
    frame = pd.DataFrame({name: columns.get(name, [0.0] * len(columns["pid"])) for name in [*NAMES, *columns]})
    if path.suffix == ".sav":
        pyreadstat.write_sav(frame, str(path))
    else:
        pyreadstat.write_xport(frame, str(path), file_format_version=5)


# The list of consents

CONSENT = {"column": "ok", "agreed": ["1"], "refused": ["0"], "list": "consents.csv"}
# Of each person the consents on the list, and what counts.
CONSENTS = {
    "p1": (["1"], "1"),
    "p2": (["1", " 1 "], "1"),
    "p3": (["1", "0"], "0"),
    "p4": (["1", ""], None),
    "p5": (["maybe", "1"], "maybe"),
    "p6": ([], None),
}


def read_consents(spark: SparkSession, key_path: Path, folder: Path, listed: str) -> Delivered:
    lines = "".join(f"{person},1,A,1,0,3\n" for person in CONSENTS)
    (folder / "people.csv").write_text(f"{HEADER}\n{lines},1,A,1,0,3\np7,1,A\n")
    (folder / "consents.csv").write_text(listed)
    book = Codebook.model_validate({**make_book().model_dump(), "consent": CONSENT})
    return read_extract(spark, book, folder, key_path)


def test_everybody_has_the_consent_of_the_list(spark: SparkSession, key_path: Path, tmp_path: Path) -> None:
    """Whoever is on the list and not in the extract is passed over; no row is lost or doubled by it."""
    lines = [f"{person},{code}" for person, (codes, _) in CONSENTS.items() for code in codes]
    delivered = read_consents(spark, key_path, tmp_path, "\n".join(["pid,ok", *lines, "stranger,1", ",1"]) + "\n")
    found = {(row.person_id, row.malformed, row.ok) for row in delivered.frame.collect()}
    wanted = {(pseudonym(person), False, code) for person, (_, code) in CONSENTS.items()}
    assert found == wanted | {(None, False, None), (None, True, None)}
    assert (delivered.rows, delivered.frame.count()) == (len(CONSENTS) + 2,) * 2
    assert [file.name for file in delivered.files] == ["people.csv", "consents.csv"]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("pid,agreed\np1,1\n", "consents.csv: the list of consents has no column ok"),
        ("ok\n1\n", "consents.csv: the list of consents has no column pid"),
        ("", "consents.csv is empty"),
    ],
)
def test_a_list_of_consents_that_is_none(
    spark: SparkSession, key_path: Path, tmp_path: Path, listed: str, words: str
) -> None:
    with pytest.raises(ContractBroken, match=words):
        read_consents(spark, key_path, tmp_path, listed)


# The frame


def test_frame_of_a_csv(read: Read) -> None:
    delivered = read({"people.csv": f"extra,{HEADER}\nx,1001,1.5,A,1,0,3\ny,1002,2,,2,,7\n"})
    assert delivered.frame.columns == ["person_id", *NAMES[1:], "source_file", "malformed", "unmatched"]
    assert {name: kind for name, kind in delivered.frame.dtypes if kind != "string"} == {
        "malformed": "boolean",
        "unmatched": "boolean",
    }
    assert [tuple(row) for row in delivered.frame.collect()] == [
        (pseudonym("1001"), "1.5", "A", "1", "0", "3", "people.csv", False, False),
        (pseudonym("1002"), "2", "", "2", "", "7", "people.csv", False, False),
    ]
    assert delivered.new_columns == ("extra",)
    (file,) = delivered.files
    assert (file.name, file.size, len(file.sha256)) == ("people.csv", 59, 64)


def test_plan_has_neither_id_nor_key(read: Read, tmp_path: Path) -> None:
    write_stat(tmp_path / "a.xpt", pid=[70001.0, 70002.0])
    for delivered in (
        read({"people.csv": f"{HEADER}\n70001,1,1,1,1,1\n"}),
        read(format="sas_xport", files=["a.xpt"]),
    ):
        plan = delivered.frame._jdf.queryExecution().toString()
        assert KEY not in plan and "70001" not in plan
        assert "70001" not in str(delivered.frame.collect())


def test_the_file_itself_is_an_extract(read: Read, tmp_path: Path) -> None:
    content = {"other name.csv": f"{HEADER}\n1,1,1,1,1,1\n"}
    assert cells(read(content, extract=tmp_path / "other name.csv"), "source_file") == [("other name.csv",)]


def test_parts_of_one_entry(read: Read) -> None:
    rows = {f"part {i}+[é%20].csv": f"{HEADER}\n{i},1,1,1,1,1\n" for i in range(3)}
    delivered = read({**rows, "part 9.csv": f"{HEADER}\n"}, files=["part*.csv"])
    assert sorted(cells(delivered, "person_id", "source_file")) == sorted(
        (pseudonym(str(i)), f"part {i}+[é%20].csv") for i in range(3)
    )
    assert len(delivered.files) == 4


def test_names_of_the_frames_own_columns(read: Read) -> None:
    content = {"people.csv": GOOD.replace("pid", "person_id")}
    assert cells(read(content, person_id="person_id"), "person_id") == [(pseudonym("70001"),)]
    content = {"people.csv": GOOD.replace("st", "Person_Id")}
    broken(read, ["two columns would be called person_id"], content, stratum="Person_Id")


# CSV


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7,1,1,1,1,1", ("1", False)),
        ('7,1,"a, b",1,1,1', ("a, b", False)),
        ('7,1,"say ""ah""",1,1,"1"', ('say "ah"', False)),
        ('7,1,"""",1,1,1', ('"', False)),
        ('7,1,"",1,1,1', (None, False)),
        ("7,1, ,1,1,1", (None, False)),
        ('7,1,6" 2,1,1,1', ('6" 2', False)),
        ("7,1,A,1,1", (None, True)),
        ("7,1,A,1,1,1,1", (None, True)),
        ("7", (None, True)),
        (",,,,,", (None, False)),
        ('7,1,"A,1,1,1', (None, True)),
        ('7,1,A,1,1,"1', (None, True)),
        ('7,1,"A"B,1,1,1', (None, True)),
        ("7" + "," * 30_000, (None, True)),
        ("7,1," + '"' + '""' * 50_000 + '",1,1,1', (None, True)),
    ],
    ids=range(16),
)
def test_csv_lines(line: str, expected: tuple[str | None, bool], read: Read) -> None:
    delivered = read({"people.csv": f"{HEADER}\n{line}\n8,1,B,1,1,1\n"})
    assert cells(delivered, "st", "malformed") == [expected, ("B", False)]


def test_cells_of_a_ragged_row_are_withheld(read: Read) -> None:
    # A stray delimiter before the id moves it into the weight's place.
    delivered = read({"people.csv": f"{HEADER}\n,70001,1,A,1,1,1\n"})
    assert "70001" not in str(delivered.frame.collect())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", ["", "{0}", "{0}{0}  {0}"])
def test_line_ends_and_blank_lines(end: str, tail: str, read: Read) -> None:
    lines = [HEADER, "1,1,1,1,1,0", "", "2,1,1,1,1,3"]
    delivered = read({"people.csv": (end.join(lines) + tail.format(end)).encode()})
    assert cells(delivered, "q2", "malformed") == [("0", False), ("3", False)]


def test_a_repeated_header_is_no_row(read: Read) -> None:
    delivered = read({"people.csv": f"{HEADER}\n1,1,1,1,1,1\n{HEADER}\n2,1,1,1,1,1\n"})
    assert delivered.frame.count() == 2


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "^", "x"])
def test_other_delimiters(delimiter: str, read: Read) -> None:
    lines = [NAMES, ["1", "1", "A", "1", "1", "1"], ["2", "1", f'"A{delimiter}B"', "1", "1", "1"]]
    content = "\n".join(delimiter.join(line) for line in lines)
    assert cells(read({"people.csv": content}, delimiter=delimiter), "st") == [("A",), (f"A{delimiter}B",)]


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_utf_8_sig(mark: bytes, read: Read) -> None:
    content = mark + f"{HEADER}\n1,1,é,1,1,1\n".encode()
    delivered = read({"people.csv": content, "second.csv": content}, encoding="utf-8-sig", files=["*.csv"])
    assert cells(delivered, "person_id", "st", "malformed") == [(pseudonym("1"), "é", False)] * 2


def test_iso_8859_1(read: Read) -> None:
    content = f"{HEADER},é\n1,1,Málaga,1,1,1,0\n".encode("latin-1")
    delivered = read({"people.csv": content}, encoding="iso-8859-1")
    assert cells(delivered, "st", "malformed") == [("Málaga", False)]
    assert delivered.new_columns == ("é",)


def test_later_undecodable_bytes_are_a_malformed_row_of_nobody(read: Read) -> None:
    filler = "".join(f"{i},1,A,1,1,1\n" for i in range(100_000))
    delivered = read({"people.csv": f"{HEADER}\n{filler}".encode() + b"x,1,B\xff,1,1,1\ny,1,B,1,1,1\n"})
    assert delivered.frame.count() == delivered.rows == 100_002
    few = replace(delivered, frame=delivered.frame.where("malformed OR st = 'B'"))
    assert cells(few, "person_id", "st", "malformed") == [(None, None, True), (pseudonym("y"), "B", False)]


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=20, max_size=60))
def test_any_text_survives_quoting(read: Read, rows: list[tuple[str, str]]) -> None:
    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [f"{i},1,{quote(a)},{quote(b)},1,1" for i, (a, b) in enumerate(rows)]
    delivered = read({"people.csv": "\n".join([HEADER, *lines])})
    kept = [tuple(text if text.strip(" ") else None for text in row) for row in rows]
    assert cells(delivered, "st", "psu", "malformed") == [(*row, False) for row in kept]


# The other formats


def test_text_of_values() -> None:
    values = [0.0, -0.0, 134.0, 7.5, 0.1, 1e300, float("nan"), float("inf"), -7, None, "  ", " a", True]
    assert [to_text(value) for value in values] == [
        "0", "0", "134", "7.5", "0.1", "1e+300", None, "Infinity", "-7", None, None, " a", "True",
    ]  # fmt: skip
    assert to_text(datetime.datetime(2020, 1, 2, 3, 4, 5)) == "2020-01-02T03:04:05"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_text_of_a_number_is_exact(number: float) -> None:
    assert float(to_text(number) or "") == number


@pytest.mark.parametrize("version", [5, 8])
def test_sas_transport(version: int, read: Read, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "pid": [70001.0, 70002.0, float("nan")],
            "w": [0.0, 12345.678901234567, 1.0],
            "st": ["134", "a ", ""],
            "psu": pd.to_datetime(["2020-01-02T00:00:00", "2020-01-03T04:05:06", None]),
            "q1": [0.0, 3.0, float("nan")],
            "q2": [-1.0, 9.0, 0.5],
        }
    )
    pyreadstat.write_xport(frame, str(tmp_path / "people.xpt"), file_format_version=version)
    delivered = read(format="sas_xport", files=["people.xpt"])
    assert cells(delivered, "person_id", *NAMES[1:]) == [
        (pseudonym("70001"), "0", "134", "2020-01-02T00:00:00", "0", "-1"),
        (pseudonym("70002"), "12345.678901234567", "a", "2020-01-03T04:05:06", "3", "9"),
        (None, "1", None, None, None, "0.5"),
    ]


def test_spss_with_missing_codes_labels_and_dates(read: Read, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "pid": ["é1", "b2"],
            "w": [0.5, 2.0],
            "st": [1.0, None],
            "psu": [datetime.date(2020, 1, 2), None],
            "q1": [0.0, 9.0],
            "q2": [3.0, -7.0],
            "more": [1.0, 2.0],
        }
    )
    pyreadstat.write_sav(
        frame,
        str(tmp_path / "people.sav"),
        missing_ranges={"q1": [9.0], "q2": [{"lo": -9, "hi": -1}]},
        variable_value_labels={"q1": {0.0: "never", 9.0: "refused"}},
    )
    delivered = read(format="spss_sav", files=["people.sav"])
    assert cells(delivered, "person_id", *NAMES[1:]) == [
        (pseudonym("é1"), "0.5", "1", "2020-01-02", "0", "3"),
        (pseudonym("b2"), "2", None, None, "9", "-7"),
    ]
    assert delivered.new_columns == ("more",)


def write_parquet(path: Path, **columns: pa.Array) -> None:
    rows = len(next(iter(columns.values()))) if columns else 2
    default = {name: pa.array([1] * rows) for name in NAMES}
    pq.write_table(pa.table({**default, **columns}), path)


MOMENT = datetime.datetime(2020, 1, 2, 3, 4, 5, 600_000)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], pa.int8(), ["1", None]),
        ([2**63, 1], pa.uint64(), [str(2**63), "1"]),
        ([0.0, -0.0], pa.float64(), ["0", "0"]),
        ([134.0, 7.5], pa.float32(), ["134", "7.5"]),
        ([float("nan"), float("inf")], pa.float64(), [None, "Infinity"]),
        ([True, False], pa.bool_(), ["1", "0"]),
        (["", " a"], pa.string(), [None, " a"]),
        (["a", "b"], pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
        ([b"a", None], pa.binary(), ["a", None]),
        ([134, 0], pa.decimal128(9, 2), ["134", "0"]),
        ([MOMENT.date(), datetime.date(1, 1, 1)], pa.date32(), ["2020-01-02", "0001-01-01"]),
        ([MOMENT, None], pa.timestamp("us"), ["2020-01-02T03:04:05.6", None]),
        ([MOMENT, None], pa.timestamp("ms", "Europe/Madrid"), ["2020-01-02T03:04:05.6Z", None]),
        ([MOMENT, None], pa.timestamp("ns"), ["2020-01-02T03:04:05.6Z", None]),
        ([None, None], pa.null(), [None, None]),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_parquet_types(
    values: list[Any], kind: pa.DataType, expected: list[str | None], read: Read, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "people.parquet", st=pa.array(values, kind))
    delivered = read(format="parquet", files=["people.parquet"])
    assert [row[0] for row in cells(delivered, "st")] == expected


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string(), pa.decimal128(21, 2)])
def test_an_id_is_the_same_person_in_any_type(kind: pa.DataType, read: Read, tmp_path: Path) -> None:
    write_parquet(tmp_path / "people.parquet", pid=pa.array([70001]).cast(kind))
    assert cells(read(format="parquet", files=["people.parquet"]), "person_id") == [(pseudonym("70001"),)]


def test_parquet_parts_of_different_types_in_a_folder(read: Read, tmp_path: Path) -> None:
    (tmp_path / "people.parquet").mkdir()
    write_parquet(tmp_path / "people.parquet/part-0.parquet", q1=pa.array([0, 3]))
    write_parquet(tmp_path / "people.parquet/part-1.parquet", q1=pa.array([0.0, None]))
    (tmp_path / "people.parquet/_SUCCESS").touch()
    delivered = read(format="parquet", files=["people.parquet"])
    assert sorted(cells(delivered, "source_file", "q1"), key=str) == [
        ("part-0.parquet", "0"), ("part-0.parquet", "3"), ("part-1.parquet", "0"), ("part-1.parquet", None),
    ]  # fmt: skip


@pytest.mark.parametrize("number", [12345.678901234567, 1e-310, 5e300, 0.1, float(2**53), -1e15])
def test_parquet_numbers_are_exact(number: float, read: Read, tmp_path: Path) -> None:
    write_parquet(tmp_path / "people.parquet", w=pa.array([number]))
    frame = read(format="parquet", files=["people.parquet"]).frame
    assert frame.selectExpr("CAST(w AS DOUBLE)").collect()[0][0] == number


# Joined files


def test_join_keeps_every_row(read: Read) -> None:
    delivered = read(
        {
            "a.csv": "pid,w,st,psu\n1,1,A,1\n2,1,B,1\n,1,C,1\nbroken\n",
            "b.csv": "pid,q1,q2\n2,0,3\n3,1,1\n,2,2\n2,0,0,0\n",
        },
        files=["a.csv", "b.csv"],
        join="pid",
    )
    rows = cells(delivered, "person_id", "st", "q1", "source_file", "malformed", "unmatched")
    assert sorted(rows, key=str) == sorted(
        [
            (pseudonym("1"), "A", None, "a.csv", False, False),
            (pseudonym("2"), "B", "0", "a.csv", False, False),
            (None, None, None, "b.csv", True, True),
            (pseudonym("3"), None, "1", "b.csv", False, True),
            (None, "C", None, "a.csv", False, False),
            (None, None, "2", "b.csv", False, True),
            (None, None, None, "a.csv", True, False),
        ],
        key=str,
    )


def test_rows_of_a_third_file_without_the_first(read: Read) -> None:
    content = {"a.csv": "pid,w,st,psu\n1,1,A,1\n", "b.csv": "pid,q1\n2,0\n", "c.csv": "pid,q2\n2,3\n1,1\n"}
    delivered = read(content, files=["a.csv", "b.csv", "c.csv"], join="pid")
    assert sorted(cells(delivered, "st", "q1", "q2", "unmatched"), key=str) == [
        ("A", None, "1", False),
        (None, "0", "3", True),
    ]


# Broken extracts


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["people.csv", "0 bytes"]),
        (HEADER, ["people.csv", "no rows"]),
        (HEADER + "\r\n\n", ["people.csv", "no rows"]),
        ("\n" + GOOD, ["people.csv", "first line is blank"]),
        (GOOD.replace(",", ";"), ["people.csv", "semicolon", "the codebook says comma", "delimiter: ';'"]),
        (GOOD.replace(",", "\t"), ["tab", "comma"]),
        (b"\xef\xbb\xbf" + GOOD.encode(), ["people.csv", "byte-order mark", "encoding: utf-8-sig"]),
        (GOOD.encode("utf-16"), ["people.csv", "UTF-16"]),
        (GOOD.encode("utf-32"), ["people.csv", "UTF-32"]),
        (GOOD.encode("utf-16-le"), ["people.csv", "byte 1 is zero"]),
        (GOOD.encode() + b"2,1,1,1,1,\xe9\n", ["people.csv", "byte 45, in line 3, is not utf-8", "iso-8859-1"]),
        (b"p\xe9" + GOOD.encode(), ["byte 1, in line 1"]),
        (GOOD.replace("q2", "q1"), ["people.csv", "1 of the codebook's 6 columns missing", "q2"]),
        (GOOD.replace("q2", "q2,extra,extra"), ["people.csv", "stand twice", "extra"]),
        (GOOD.replace("q2", '"q2'), ["people.csv", "quote in the header"]),
        (GOOD.replace("q2", "Q2"), ["q2 (there is 'Q2'"]),
        (GOOD.replace("psu", "psu_1"), ["psu (renamed to psu_1?)"]),
        (GOOD.replace("w,st,psu", "a,b,c"), ["3 of the codebook's 6 columns missing", "w, st, psu"]),
    ],
    ids=range(18),
)
def test_broken_csv(content: bytes | str, words: list[str], read: Read) -> None:
    assert "70001" not in broken(read, words, {"people.csv": content})


def test_without_a_header_no_answer_is_shown(read: Read) -> None:
    message = broken(read, ["first line a header"], {"people.csv": "70001,q,stt,psu1,q11,9\n"})
    assert not [cell for cell in ("70001", "stt", "psu1", "q11") if cell in message]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (GOOD.replace("q1,q2", "q2,q1"), ["another order"]),
        (GOOD.replace("q2", "q3"), ["lacks columns of a.csv: q2", "1 are new"]),
        ("70001,1,1,1,1,1\n", ["lacks columns"]),
    ],
)
def test_parts_that_differ(second: str, words: list[str], read: Read) -> None:
    message = broken(read, ["b.csv", "a.csv", *words], {"a.csv": GOOD, "b.csv": second}, files=["*.csv"])
    assert "70001" not in message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"files": ["a.csv", "b.csv"], "join": "pid"}, ["no file b.csv"]),
        ({"files": ["part-*.csv"]}, ["no file part-*.csv", "2 other files"]),
        ({"files": ["peoples.csv"]}, ["no file peoples.csv", "there is people.csv"]),
        ({"files": ["a.csv", "people.csv"], "join": "pid"}, ["column psu stands in several of a.csv, people.csv"]),
    ],
)
def test_files_that_do_not_fit(source: dict[str, Any], words: list[str], read: Read) -> None:
    broken(read, words, {"people.csv": GOOD, "a.csv": GOOD}, **source)


def test_extracts_that_are_not_there(read: Read, tmp_path: Path) -> None:
    broken(read, ["nowhere", "no such file or folder"], extract=tmp_path / "nowhere")
    one = tmp_path / "a.csv"
    broken(
        read, ["a.csv is one file", "a.csv, b.csv"], {"a.csv": GOOD}, extract=one, files=["a.csv", "b.csv"], join="pid"
    )


@pytest.mark.parametrize("name", ["_people.csv", ".people.csv", "at 12:00.csv"])
def test_names_that_spark_cannot_read(name: str, read: Read) -> None:
    broken(read, [name, "rename"], {name: GOOD}, files=[name])


def test_a_joined_file_without_the_key(read: Read) -> None:
    content = {"a.csv": "pid,w,st,psu\n1,1,1,1\n", "b.csv": "PID,q1,q2\n1,0,0\n"}
    broken(read, ["b.csv", "the column pid", "missing"], content, files=["a.csv", "b.csv"], join="pid")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_permission_error_comes_through(read: Read, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(GOOD)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            read()
    finally:
        os.seteuid(0)


def xport_bytes(tmp_path: Path, rows: int = 200) -> bytes:
    path = tmp_path / "people.xpt"
    write_stat(path, pid=[float(70001 + i) for i in range(rows)], extra=["some text"] * rows)
    return path.read_bytes()


def test_a_whole_xport_of_any_length_is_whole(tmp_path: Path) -> None:
    for rows in range(1, 30):
        xport_bytes(tmp_path, rows)
        assert count_xport_rows(tmp_path / "people.xpt") == rows


def test_every_truncation_of_an_xport_is_found(tmp_path: Path) -> None:
    # A row has 57 bytes, so a row ends together with a record of 80 bytes after 80 rows and after 160.
    content = xport_bytes(tmp_path)
    start = content.index(b"HEADER RECORD*******OBS") + 80
    unseen = []
    for length in [*range(1, start, 7), *range(start, len(content), 40), len(content) - 1]:
        (tmp_path / "people.xpt").write_bytes(content[:length])
        try:
            count_xport_rows(tmp_path / "people.xpt")
            unseen.append((length - start) // 57)
        except ContractBroken as error:
            assert "people.xpt" in str(error) and "70001" not in str(error)
    assert unseen == [0, 80, 160]


def test_broken_xports(read: Read, tmp_path: Path) -> None:
    source = {"format": "sas_xport", "files": ["people.xpt"]}
    content = xport_bytes(tmp_path)
    broken(read, ["people.xpt", "cut short after 140 whole rows"], {"people.xpt": content[: -80 * 43]}, **source)
    broken(read, ["people.xpt", "no whole SAS transport header"], {"people.xpt": GOOD}, **source)
    broken(read, ["people.xpt", "more than one data set"], {"people.xpt": content + content[240:]}, **source)
    start = content.index(b"HEADER RECORD*******OBS") + 80
    broken(read, ["people.xpt", "no rows"], {"people.xpt": content[:start]}, **source)
    write_stat(tmp_path / "people.xpt", pid=[1.0])
    renamed = (tmp_path / "people.xpt").read_bytes().replace(b"psu ", b"psv ")
    broken(read, ["people.xpt", "psu (renamed to psv?)"], {"people.xpt": renamed}, **source)


def test_broken_savs(read: Read, tmp_path: Path) -> None:
    source = {"format": "spss_sav", "files": ["people.sav"]}
    write_stat(tmp_path / "people.sav", pid=[70001.0] * 200)
    content = (tmp_path / "people.sav").read_bytes()
    for length in (3, 100, 300, len(content) // 2, len(content) - 20):
        broken(read, ["people.sav is not a whole SPSS file", "ask for"], {"people.sav": content[:length]}, **source)


def test_broken_parquet(read: Read, tmp_path: Path) -> None:
    source = {"format": "parquet", "files": ["people.parquet"]}
    path = tmp_path / "people.parquet"
    write_parquet(path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"PAR1", whole[:-12] + b"\xff" * 4 + whole[-8:], GOOD.encode()):
        broken(read, ["people.parquet is not a whole Parquet file"], {"people.parquet": damaged}, **source)
    write_parquet(path, pid=pa.array([], pa.int64()))
    broken(read, ["people.parquet has no rows"], **source)
    write_parquet(path, q1=pa.array([[1], [2]]))
    broken(read, ["people.parquet: column q1 holds array"], **source)
    write_parquet(path, EXTRA=pa.array([1]), extra=pa.array([1]))
    broken(read, ["stand twice", "extra"], **source)


# Real people's answers


@pytest.mark.skipif(not NHANES.is_dir(), reason=f"the NHANES extract is not at {NHANES}")
def test_nhanes(spark: SparkSession, key_path: Path) -> None:
    book, _ = read_codebook("nhanes_2017_2018")
    delivered = read_extract(spark, book, NHANES, key_path)
    rows = delivered.frame.toPandas()
    asked = rows[[item.column for item in book.items]].notna().any(axis=1)
    raw, _ = pyreadstat.read_xport(str(NHANES / "DEMO_J.xpt"))
    screener, _ = pyreadstat.read_xport(str(NHANES / "DPQ_J.xpt"))
    assert len(rows) == rows.person_id.nunique() == 9254
    assert set(rows.person_id) == set(digest_ids([b"%d" % i for i in raw.SEQN], KEY.encode()))
    assert asked.sum() == screener.drop(columns=["SEQN", "DPQ100"]).notna().any(axis=1).sum()
    for item in book.items:
        assert set(rows[item.column].dropna()) <= {"0", "1", "2", "3", "7", "9"}
        assert (rows[item.column] == "0").sum() == (screener[item.column] == 0).sum() > 2500
    assert sorted(rows.WTMEC2YR.astype(float)) == sorted(raw.WTMEC2YR)
    assert (rows.WTMEC2YR == "0").sum() == 550
    assert not rows.malformed.any() and not rows.unmatched.any()
    ids = {f"{seqn:.0f}" for seqn in raw.SEQN}
    assert not [name for name in rows if rows[name].isin(ids).any()]
    assert "DPQ100" in delivered.new_columns and "SEQN" not in delivered.new_columns
    assert [(file.name, file.size) for file in delivered.files] == [("DEMO_J.xpt", 3412720), ("DPQ_J.xpt", 489280)]
    with_screener = read_extract(spark, book.model_copy(update={"source": _swap(book)}), NHANES, key_path)
    assert with_screener.frame.where("NOT unmatched").count() == 5533


def _swap(book: Codebook) -> Any:
    """The screener first, so that people without it are unmatched."""
    return book.source.model_copy(update={"files": tuple(reversed(book.source.files))})
