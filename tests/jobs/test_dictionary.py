import csv
import re
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from expectations.codebook import Codebook, read_codebook
from jobs.ddi import NAMESPACE
from jobs.dictionary import FIELDS, write_dictionary
from jobs.tables import TABLES

# Children of the elements that are written, in the order that the schema of DDI-Codebook 2.5 wants.
CHILDREN = {
    "codeBook": ["docDscr", "stdyDscr", "fileDscr", "dataDscr"],
    "docDscr": ["citation"],
    "stdyDscr": ["citation", "stdyInfo"],
    "citation": ["titlStmt"],
    "titlStmt": ["titl"],
    "stdyInfo": ["sumDscr"],
    "sumDscr": ["anlyUnit", "universe"],
    "fileDscr": ["fileTxt"],
    "fileTxt": ["fileName", "fileCont", "dimensns", "fileType"],
    "dimensns": ["varQnty"],
    "dataDscr": ["var"],
    "var": ["labl", "catgry", "derivation", "varFormat", "notes"],
    "catgry": ["catValu", "labl"],
    "derivation": ["drvdesc"],
}
REPEATED = {"fileDscr", "var", "catgry", "notes"}
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
    assert sorted(listed) == sorted(
        [*expected, *((table, "run_date") for table, columns in TABLES.items() if columns(book))]
    )
    assert all(row["meaning"] and row["type"] for row in rows)
    assert tuple(rows[0]) == FIELDS


def test_public_tables_come_first_and_are_called_public(tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook("demo_population")[0])
    zones = {row["table"]: row["zone"] for row in read_rows(tmp_path)}
    assert list(zones.items())[:3] == [(table, "public") for table in ("cohorts", "quality", "distributions")]
    assert set(list(zones.values())[3:]) == {"restricted"}


def test_the_page_names_the_same_columns_and_loads_nothing(tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook("demo_population")[0])
    page = (tmp_path / "data_dictionary.html").read_text()
    assert all(f"<code>{row['column']}</code>" in page for row in read_rows(tmp_path))
    assert not re.search(r"https?://|<script|<link|<img", page)
    assert page.count("<caption>") == len({row["table"] for row in read_rows(tmp_path)})


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
    assert set(first) == {"data_dictionary.csv", "data_dictionary.html", "data_dictionary.xml"}
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}


def test_what_is_made_or_chosen_says_how(tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook("demo_population")[0])
    rows = {(row["table"], row["column"]): row for row in read_rows(tmp_path)}
    figures = ("n", "n_weighted", "estimate", "se", "df", "ci_low", "ci_high", "deff", "presentation", "disclosure")
    assert all(rows["cohorts", name]["rule"] for name in figures)
    assert rows["cohorts", "sex"]["values"] == "men = Men; women = Women"
    assert rows["cohorts", "age_band"]["source"] == "the extract's column age"
    assert rows["features", "pss4_2"]["rule"] == (
        "4 becomes 0, 3 becomes 1, 2 becomes 2, 1 becomes 3, 0 becomes 4; anything else -1"
    )
    assert rows["features", "who5_total"]["rule"].startswith("sum of who5_1, who5_2, who5_3, who5_4, who5_5, times 4;")
    assert "mild = from 5" in rows["profiles", "phq9_band"]["values"]


@pytest.mark.parametrize("name", BOOKS)
def test_the_ddi_has_its_elements_in_the_order_of_the_schema(name: str, tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook(name)[0])
    root = ET.parse(tmp_path / "data_dictionary.xml").getroot()
    assert root.attrib["version"] == "2.5"
    for element in root.iter():
        assert element.tag.startswith(f"{{{NAMESPACE}}}")
        children = [child.tag.split("}")[1] for child in element]
        allowed = CHILDREN.get(element.tag.split("}")[1], [])
        runs = [(child, len(list(run))) for child, run in groupby(children)]
        assert [child for child, _ in runs] == [child for child in allowed if child in children]
        assert all(count == 1 or child in REPEATED for child, count in runs)
    identifiers = [element.attrib["ID"] for element in root.iter() if "ID" in element.attrib]
    assert len(identifiers) == len(set(identifiers))


def test_the_ddi_has_a_file_a_table_and_a_variable_a_column(tmp_path: Path) -> None:
    write_dictionary(tmp_path, read_codebook("demo_population")[0])
    root, space = ET.parse(tmp_path / "data_dictionary.xml").getroot(), {"d": NAMESPACE}
    variables = {element.attrib["ID"]: element for element in root.findall(".//d:var", space)}
    assert list(variables) == [f"{row['table']}.{row['column']}" for row in read_rows(tmp_path)]
    files = {element.attrib["ID"] for element in root.findall("d:fileDscr", space)}
    assert {element.attrib["files"] for element in variables.values()} == files
    estimate = variables["cohorts.estimate"]
    assert estimate.attrib["measUnit"] == "of the outcome; proportions 0-1"
    assert "people outside the cell weigh zero" in estimate.findtext("d:derivation/d:drvdesc", "", space)
    shown = [element.text for element in variables["cohorts.disclosure"].findall("d:catgry/d:catValu", space)]
    assert shown == ["shown", "suppressed"]
    assert variables["profiles.weight"].attrib["wgt"] == "wgt"
