"""`mindcensus query` answers from the catalog, in one sentence where it cannot, and reaches nothing else."""

import csv
import glob
from pathlib import Path

import pytest

from jobs.audit import read_entries
from jobs.catalog import write_catalog
from jobs.cli import main
from jobs.lake import Lake
from tests.jobs.test_catalog import make_night

pytestmark = pytest.mark.usefixtures("own_logs")

SECRET = "answers of a person"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    lake = tmp_path / "it's [a] lake*"
    for zone in ("public", "restricted"):
        (lake / zone).mkdir(parents=True)
    nights = [
        make_night(lake, "2024-01-01", 1, cohorts={"n": [10], "sex": ["men"]}),
        make_night(lake, "2024-01-02", 2, cohorts={"n": [30, 40], "sex": ["men", None]}, features={"mood": [SECRET]}),
    ]
    for zone in ("public", "restricted"):
        write_catalog(lake / zone, nights)
    return lake


def quote(path: Path) -> str:
    return "'" + glob.escape(str(path)).replace("'", "''") + "'"


def ask(lake: Path, sql: str, *options: str) -> int:
    return main(["query", sql, "--lake", str(lake), *options])


def test_a_table_fits_the_terminal(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert ask(lake, "SELECT n, sex, repeat('wide ', 50) AS words FROM cohorts ORDER BY n") == 0
    shown = capsys.readouterr().out
    assert "│" in shown and "men" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_csv_has_a_header_all_rows_and_empty_nulls(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(lake, "SELECT run_date, n, sex, [n] AS list FROM cohorts ORDER BY n", "--csv") == 0
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [
        ["run_date", "n", "sex", "list"],
        ["2024-01-01", "10", "men", "[10]"],
        ["2024-01-02", "30", "men", "[30]"],
        ["2024-01-02", "40", "", "[40]"],
    ]
    assert ask(lake, "FROM range(30000)", "--csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 30_001


def test_the_owner_asks_the_restricted_catalog(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(lake, "SELECT mood FROM features_latest", "--restricted", "--csv", "--reason", "a test") == 0
    assert capsys.readouterr().out == f"mood\n{SECRET}\n"


def test_questions_about_people_are_logged(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows what an answer shows, so each that names a table of people needs a reason; estimates need none."""
    person = "0f" * 32
    assert ask(lake, "SELECT max(token) FROM nights", "--restricted") == 0
    one = f"FROM features WHERE '{person}' = ''"
    for sql in ("SELECT mood FROM FEATURES", "FROM query('FROM feat' || 'ures')", one):
        assert ask(lake, sql, "--restricted") == 2
        assert "say it by --reason TEXT" in capsys.readouterr().err
    assert not (lake / "restricted" / "audit").exists()
    assert ask(lake, one, "--restricted", "--reason", "a test") == 0
    (entry,) = read_entries(Lake(lake))
    assert (entry["command"], entry["person"], entry["reason"]) == ("query", person, "a test")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM features",
        "FROM read_parquet({features})",
        "FROM read_parquet({around})",
        "FROM read_parquet({link})",
        "FROM read_parquet({folder})",
        "FROM {features}",
        "FROM read_blob({catalog})",
        "FROM read_text('/etc/passwd')",
        "FROM glob({folder})",
        "FROM parquet_metadata({features})",
        "ATTACH {catalog} AS other",
        "SET enable_external_access = true",
        "COPY (SELECT 1) TO {target}",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO {target}",
        "FROM query('COPY (SELECT 1) TO ''elsewhere.csv''')",
        "WITH made AS (INSERT INTO nights FROM nights RETURNING token) FROM made",
        "INSTALL httpfs",
        "SELECT 1; COPY (SELECT 1) TO {target}",
    ],
)
def test_nothing_but_the_catalogs_tables_can_be_reached(
    sql: str, lake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = next((lake / "restricted" / "features").rglob("*.parquet"))
    (lake / "public" / "link").symlink_to(features)
    paths = {
        "features": features,
        "around": lake / "public" / ".." / features.relative_to(lake),
        "link": lake / "public" / "link",
        "catalog": lake / "restricted" / "catalog.duckdb",
    }
    quoted = {name: quote(path) for name, path in paths.items()}
    quoted["folder"] = quote(lake / "restricted" / "features").removesuffix("'") + "/**'"
    # The path of a published file: it may be read, and must not be written.
    published = next((lake / "public" / "cohorts").rglob("*.parquet"))
    quoted["target"] = "'" + str(published).replace("'", "''") + "'"
    before = published.read_bytes()
    assert ask(lake, sql.format(**quoted)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1 and SECRET not in captured.err
    assert published.read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("FROM cohrts", 'Table with name cohrts does not exist! Did you mean "cohorts"?'),
        ("SELECT nn FROM cohorts", '"nn" not found'),
        ("SELEC", "syntax error"),
        ("", "a query is one SELECT"),
    ],
)
def test_wrong_sql_is_one_sentence(sql: str, said: str, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(lake, sql) == 2
    words = capsys.readouterr().err
    assert said in words and words.startswith("mindcensus query: ") and len(words.splitlines()) == 1


def test_an_answer_is_not_quoted_where_a_query_fails_on_it(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(lake, "SELECT mood::INT FROM features", "--restricted", "--reason", "a test") == 2
    assert SECRET not in (words := capsys.readouterr().err) and "ConversionException" in words


def test_a_lake_that_cannot_be_asked_is_one_sentence(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def words(code: int, path: Path) -> str:
        assert ask(path, "FROM cohorts") == code
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    assert "there is no lake" in words(2, lake / "nowhere")
    (lake / "empty").mkdir()
    assert "no night is published" in words(1, lake / "empty")
    next((lake / "public" / "cohorts").rglob("*.parquet")).unlink()
    assert "missing or damaged" in words(1, lake)
    (lake / "public" / "catalog.duckdb").write_bytes(b"no catalog" * 1000)
    assert "cannot be read" in words(1, lake)
