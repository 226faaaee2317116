import csv
import re
from pathlib import Path

import pytest

from expectations.codebook import Codebook, read_codebook
from jobs.dictionary import FIELDS, write_dictionary
from jobs.tables import TABLES

BOOKS = ("demo_population", "nhanes_2017_2018")


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "data_dictionary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", BOOKS)
def test_every_column_of_every_table_is_there_once_and_has_a_meaning(name: str, tmp_path: Path) -> None:
    book = read_codebook(name)[0]
    write_dictionary(tmp_path, book)
    rows = read_rows(tmp_path)
    listed = [(row["table"], row["column"]) for row in rows]
    expected = [(table, c.name) for table, columns in TABLES.items() for c in columns(book)]
    assert sorted(listed) == sorted([*expected, *((table, "run_date") for table in TABLES)])
    assert all(row["meaning"] and row["type"] for row in rows)
    assert tuple(rows[0]) == FIELDS


def test_public_tables_come_first_and_are_called_public(tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook("demo_population")[0])
    zones = {row["table"]: row["zone"] for row in read_rows(tmp_path)}
    assert list(zones.items())[:2] == [("cohorts", "public"), ("quality", "public")]
    assert set(list(zones.values())[2:]) == {"restricted"}


def test_the_page_names_the_same_columns_and_loads_nothing(tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook("demo_population")[0])
    page = (tmp_path / "data_dictionary.html").read_text()
    assert all(f"<code>{row['column']}</code>" in page for row in read_rows(tmp_path))
    assert not re.search(r"https?://|<script|<link|<img", page)
    assert page.count("<caption>") == len(TABLES)


def test_a_codebooks_words_are_escaped(tmp_path: Path) -> None:
    book = Codebook.model_validate(read_codebook("demo_population")[0].model_dump() | {"title": "<b>&"})
    write_dictionary(tmp_path, book)
    assert "&lt;b&gt;&amp;" in (tmp_path / "data_dictionary.html").read_text()


def test_writing_again_changes_nothing_and_leaves_nothing_over(tmp_path: Path) -> None:
    book = read_codebook("demo_population")[0]
    write_dictionary(tmp_path, book)
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_dictionary(tmp_path, book)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first
    assert set(first) == {"data_dictionary.csv", "data_dictionary.html"}
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}
