"""The data dictionary as DDI-Codebook 2.5, the XML by which data archives exchange what a study's columns mean."""

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from expectations.codebook import Codebook
from jobs.lake import PUBLIC_TABLES
from jobs.tables import ColumnSpec

NAMESPACE = "ddi:codebook:2_5"
NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double")
DATES = ("date", "timestamp")


def write_ddi(book: Codebook, tables: Mapping[str, Sequence[ColumnSpec]]) -> str:
    """A study with a `fileDscr` a table and a `var` a column; children stand in the order that the schema wants."""
    root = ET.Element("codeBook", {"xmlns": NAMESPACE, "version": "2.5", "xml:lang": "en"})
    title = f"{book.title} (codebook {book.codebook}, version {book.version})"
    _cite(ET.SubElement(root, "docDscr"), f"Data dictionary: {title}")
    study = ET.SubElement(root, "stdyDscr")
    _cite(study, title)
    summary = ET.SubElement(ET.SubElement(study, "stdyInfo"), "sumDscr")
    _add(summary, "anlyUnit", "person; in the public tables a cohort of people")
    _add(summary, "universe", f"people for whom {book.eligible}" if book.eligible else "everybody in the extract")
    for table in tables:
        file = ET.SubElement(ET.SubElement(root, "fileDscr", {"ID": f"file.{table}"}), "fileTxt")
        _add(file, "fileName", table)
        _add(file, "fileCont", f"{'Public' if table in PUBLIC_TABLES else 'Restricted'} table of the lake")
        _add(ET.SubElement(file, "dimensns"), "varQnty", str(len(tables[table])))
        _add(file, "fileType", "Apache Parquet, one folder a night")
    variables = ET.SubElement(root, "dataDscr")
    for table, columns in tables.items():
        for column in columns:
            _add_variable(variables, table, column)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_variable(parent: ET.Element, table: str, column: ColumnSpec) -> None:
    number = column.type in NUMBERS
    kind = {"intrvl": "contin" if column.type in ("float", "double") else "discrete"}
    unit = {"measUnit": column.unit} if column.unit else {}
    weight = {"wgt": "wgt"} if column.name == "weight" else {}
    names = {"ID": f"{table}.{column.name}", "name": column.name, "files": f"file.{table}"}
    variable = ET.SubElement(parent, "var", {**names, **kind, **unit, **weight})
    _add(variable, "labl", column.meaning)
    for value, meaning in column.categories:
        category = ET.SubElement(variable, "catgry")
        _add(category, "catValu", value)
        _add(category, "labl", meaning)
    if column.rule:
        _add(ET.SubElement(variable, "derivation"), "drvdesc", column.rule)
    form = {"type": "numeric" if number else "character", "schema": "other", "formatname": column.type}
    _add(variable, "varFormat", "", form | ({"category": "date"} if column.type in DATES else {}))
    _add(variable, "notes", "may be null" if column.nullable else "never null", {"type": "null"})
    if column.source:
        _add(variable, "notes", column.source, {"type": "source"})


def _cite(parent: ET.Element, title: str) -> None:
    _add(ET.SubElement(ET.SubElement(parent, "citation"), "titlStmt"), "titl", title)


def _add(parent: ET.Element, name: str, text: str, attributes: Mapping[str, str] = {}) -> None:
    ET.SubElement(parent, name, dict(attributes)).text = text or None
