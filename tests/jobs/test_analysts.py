"""The blocks of docs/analysts.md, run as they stand: every tool gives the same ten answers."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import jobs.catalog
from expectations.codebook import read_codebook
from jobs.catalog import write_catalog
from jobs.lake import PUBLIC_TABLES, hash_file
from jobs.provenance import list_files
from jobs.tables import TABLES, arrow_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "analysts.md"
QUESTIONS = range(1, 11)
EXPORT = 10
NIGHTS = ("2026-01-01", "2026-01-02", "2026-01-03")
TABLES_ASKED = tuple(dict.fromkeys((*PUBLIC_TABLES, "distributions")))
# Columns that the questions use beside those that every night has.
ALSO = {"cohorts": {"since": pa.date32()}}
BINS = (None, -1.0, 0.0, 1.0, None)
# R's arrow is on no registry that this project uses: where it is missing, its one function reads what pyarrow read.
READ_CSV = """
read_parquet <- function(path) read.csv(paste0(path, ".csv"), na.strings = "")
library(dplyr, warn.conflicts = FALSE)
"""

Answer = list[tuple[Any, ...]]


@cache
def read_blocks(tool: str) -> dict[int, str]:
    """A tool's code by the number of its question; 0 is what sets it up."""
    blocks, question = {}, 0
    for part in re.split(r"^(?=## |```\w)", DOCUMENT.read_text(), flags=re.MULTILINE):
        if heading := re.match(r"## (\d+)\.", part):
            question = int(heading[1])
        block = re.match(r"```\w+\n(?:#|--) ([^\n]+)\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
        if block and block[1] == tool:
            blocks[question] = block[2]
    return blocks


def simulate_cohorts(night: int) -> Iterator[dict[str, Any]]:
    """Rows of the demo's breakdowns, some withheld; the figures themselves mean nothing."""
    book, draw = read_codebook("demo_population")[0], np.random.default_rng(night)
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}
    kinds = {"phq9_ge10": ("proportion", "total", "change"), "phq9_total": ("mean", "change", "quantile")}
    for keys in book.breakdowns:
        for cell in np.ndindex(*(len(groups[key]) for key in keys)):
            levels = {key: groups[key][place] for key, place in zip(keys, cell, strict=True)}
            for outcome, kind in ((outcome, kind) for outcome, several in kinds.items() for kind in several):
                p, gone = round(float(draw.uniform(0.05, 0.3)), 3), len(keys) == 2 and draw.random() < 0.25
                figures = {"estimate": p, "se": 0.01, "ci_low": round(p - 0.04, 3), "ci_high": round(p + 0.04, 3)}
                yield {
                    "breakdown": "*".join(keys) or "all",
                    **levels,
                    "outcome": outcome,
                    "kind": kind,
                    "n": None if gone else int(draw.integers(2, 90)) * 5,
                    "df": 9,
                    **dict.fromkeys(figures if gone else (), None),
                    **({} if gone else figures),
                    "presentation": "suppress" if gone else "present",
                    "disclosure": "suppressed" if gone else "shown",
                    "reason": "withheld: too few people" if gone else None,
                    "since": date.fromisoformat(NIGHTS[night - 1]) if kind == "change" and night else None,
                }


def simulate_quality(night: int) -> Iterator[dict[str, Any]]:
    for stage, reason, rows in (
        ("delivered", None, 1200 + 10 * night),
        ("quarantined", None, 45),
        ("quarantined", "age_range", 25),
        ("quarantined", "region_values", None),
        ("response", None, 1155),
    ):
        rate = 0.972 if stage == "response" else None
        shown = "shown" if rows else "suppressed"
        yield {"stage": stage, "reason": reason, "rows": rows, "rate": rate, "disclosure": shown}


def simulate_distributions(night: int) -> Iterator[dict[str, Any]]:
    for sex in ("men", "women"):
        for place in range(len(BINS) - 1):
            gone = sex == "men" and place == 3
            yield {
                "breakdown": "sex",
                "sex": sex,
                "outcome": "depression",
                "bin_low": BINS[place],
                "bin_high": BINS[place + 1],
                "share": None if gone else 0.20 + 0.05 * place,
                "disclosure": "suppressed" if gone else "shown",
            }


def write_table(root: Path, table: str, night: int, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A file under the table's schema; a table that is not there yet takes the columns of its rows."""
    made, book = list(rows), read_codebook("demo_population")[0]
    schema = None
    if table in TABLES:
        schema = arrow_schema(TABLES[table](book)).remove_metadata()
        for name, kind in ALSO.get(table, {}).items():
            schema = schema if name in schema.names else schema.append(pa.field(name, kind))
        schema = pa.schema([field.with_nullable(True) for field in schema])
        made = [{name: row.get(name) for name in schema.names} for row in made]
    file = root / "public" / table / f"run_date={NIGHTS[night]}" / f"{night + 1:08d}-00000.parquet"
    file.parent.mkdir(parents=True)
    content = pa.Table.from_pylist(made, schema)
    pq.write_table(content, file)
    pa.csv.write_csv(content, file.with_name(file.name + ".csv"), pa.csv.WriteOptions(quoting_style="needed"))
    # As in every lake, what no manifest names lies beside what it names.
    shutil.copy(file, file.with_name("00000099-00000.parquet"))
    return {"path": str(file.relative_to(root)), "rows": len(made), "size": 1, "sha256": hash_file(file)}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights in the folder `lake`: the public zone with its catalog and its list of files."""
    root = tmp_path_factory.mktemp("analysts") / "lake"
    manifests = []
    for night, run_date in enumerate(NIGHTS):
        rows = {
            "cohorts": simulate_cohorts(night),
            "quality": simulate_quality(night),
            "distributions": simulate_distributions(night),
        }
        tables = {table: [write_table(root, table, night, made)] for table, made in rows.items()}
        trained = {"model_version": f"m{night}", "series": "s0"}
        manifests.append({
            "run_date": run_date,
            "token": night + 1,
            "mindcensus": "0.1.0",
            "code_sha256": "c0de" * 16,
            "codebook": {"name": "demo_population", "version": 1, "sha256": "b00c" * 16},
            "stages": {
                "train": {"tables": {}, "details": trained},
                "aggregate": {"tables": tables, "details": {}},
                "report": {"tables": {}, "details": {"report": f"public/reports/run_date={run_date}/1.html"}},
            },
        })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.catalog, "PUBLIC_TABLES", TABLES_ASKED)
        write_catalog(root / "public", manifests)
    (root / "public" / "files.csv").write_text(list_files(manifests, TABLES_ASKED))
    return root


@pytest.fixture
def here(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the lake, where the blocks are run."""
    monkeypatch.chdir(lake.parent)
    return lake.parent


def settle(rows: Iterable[Iterable[Any]]) -> Answer:
    """Rows that can be compared between tools: nulls, dates and numbers as one type each, in one order."""

    def one(value: Any) -> Any:
        if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)) or value == "":
            return None
        if isinstance(value, datetime):
            return value.date().isoformat()
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, bool | np.bool_):
            return str(bool(value)).lower()
        try:
            return round(float(value), 6)
        except ValueError:
            return value.lower() if value in ("TRUE", "FALSE") else value

    return sorted((tuple(map(one, row)) for row in rows), key=repr)


def read_export(path: Path) -> Answer:
    return settle(pl.read_csv(path).rows())


@pytest.fixture(scope="module")
def expected(lake: Path) -> dict[int, Answer]:
    """DuckDB's answers: what the other tools must give, too."""
    with pytest.MonkeyPatch.context() as patch, duckdb.connect() as connection:
        patch.chdir(lake.parent)
        connection.execute("ATTACH 'lake/public/catalog.duckdb' AS lake (READ_ONLY)")
        connection.execute("USE lake")
        answers = {number: settle(connection.execute(sql).fetchall()) for number, sql in read_blocks("DuckDB").items()}
        answers[EXPORT] = read_export(lake.parent / "phq9_by_sex.csv")
    (lake.parent / "phq9_by_sex.csv").unlink()
    return answers


def test_every_question_is_answered_by_every_tool_and_says_something(expected: dict[int, Answer]) -> None:
    for tool in ("DuckDB", "Polars", "pandas", "Spark SQL", "R"):
        assert sorted(set(read_blocks(tool)) - {0}) == list(QUESTIONS)
    assert all(expected[number] for number in QUESTIONS)
    # By hand: nights 1 to 3, and of eight bins the one that is withheld is left out.
    assert [row[0] for row in expected[3]] == list(NIGHTS)
    assert len(expected[7]) == 7
    assert ("quarantined", "age_range", 25.0, round(100 * 25 / 1220, 1), None) in expected[8]
    assert expected[9][0][1] == "runs/run_date=2026-01-03/00000003.json"


@pytest.mark.parametrize("tool", ["Polars", "pandas"])
@pytest.mark.filterwarnings("ignore:The behavior of DataFrame concatenation")
def test_python_tools_answer_as_duckdb_does(tool: str, here: Path, expected: dict[int, Answer]) -> None:
    names: dict[str, Any] = {}
    blocks = read_blocks(tool)
    exec(blocks[0], names)
    for number in QUESTIONS:
        exec(blocks[number], names)
        if number == EXPORT:
            assert read_export(here / "phq9_by_sex.csv") == expected[number]
            continue
        answer = names["answer"]
        rows = answer.rows() if tool == "Polars" else answer.itertuples(index=False, name=None)
        assert settle(rows) == expected[number], f"{tool}, question {number}"


def test_spark_sql_answers_as_duckdb_does(lake: Path, spark: SparkSession, expected: dict[int, Answer]) -> None:
    def place(code: str) -> str:  # the JVM keeps the folder that it was started in
        return code.replace("lake/public", str(lake / "public")).replace(
            "'phq9_by_sex'", f"'{lake.parent}/phq9_by_sex'"
        )

    blocks = read_blocks("Spark SQL")
    exec(place(blocks[0]), {"spark": spark})
    for number in QUESTIONS:
        rows = spark.sql(place(blocks[number]).rstrip().removesuffix(";")).collect()
        if number == EXPORT:
            (file,) = (lake.parent / "phq9_by_sex").glob("*.csv")
            assert read_export(file) == expected[number]
        else:
            assert settle(rows) == expected[number], f"Spark SQL, question {number}"


def has_r(package: str) -> bool:
    command = ["Rscript", "-e", f"quit(status = !requireNamespace('{package}', quietly = TRUE))"]
    return shutil.which("Rscript") is not None and subprocess.run(command, capture_output=True).returncode == 0


def test_r_answers_as_duckdb_does(here: Path, expected: dict[int, Answer]) -> None:
    if not has_r("dplyr"):
        pytest.skip("Rscript with the package dplyr is not installed")
    blocks = read_blocks("R")
    setup = blocks[0]
    if not has_r("arrow"):
        setup = READ_CSV + "\n".join(line for line in setup.splitlines() if not line.startswith("library("))
    script = [setup]
    for number in QUESTIONS:
        script.append(blocks[number])
        if number != EXPORT:
            script.append(f'write.csv(answer, "r-{number}.csv", row.names = FALSE, na = "")')
    (here / "ask.R").write_text("\n".join(script))
    ended = subprocess.run(["Rscript", "--vanilla", "ask.R"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for number in QUESTIONS:
        file = here / ("phq9_by_sex.csv" if number == EXPORT else f"r-{number}.csv")
        assert read_export(file) == expected[number], f"R, question {number}"
