"""A published night explained by the real command: for everybody in Spark, and for one person."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from benchmarks.endings import read_manifest
from jobs.audit import name_user, read_entries
from jobs.lake import Lake
from tests.nights.conftest import Copy, SmallNight, repeat_night
from tests.nights.small_night import FIRST, SECOND, CommandLine, Ended

ITEMS = ("mood_1", "mood_2", "mood_3", "sleep_1", "sleep_2", "sleep_3")
CARE = """\
purpose: {use: care, lawful_basis: consent, retention_days: 400}
consent: {column: agreed, agreed: ["yes"], refused: ["no"]}
"""
TRAITS = ("distress", "sleeplessness")


@pytest.fixture(scope="module")
def lake(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small night; its tests add explanations, and change nothing else."""
    return copy_lake(tmp_path_factory.mktemp("explained"))


def run_explain(commands: CommandLine, night: SmallNight, lake: Path, *more: object, day: str = FIRST) -> Ended:
    return commands("explain", "--lake", lake, "--run-date", day, "--codebook", night.book, *more)


def ask(lake: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(lake / "restricted" / "catalog.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def list_files(lake: Path) -> dict[str, bytes]:
    """Content of every file of the lake, leases and catalogs apart, which every run makes anew."""
    passing = {"leases", "catalog.duckdb"}
    files = [path for path in lake.rglob("*") if path.is_file() and not {path.name, path.parent.name} & passing]
    return {str(path.relative_to(lake)): path.read_bytes() for path in files}


def test_everybody_is_explained_and_twice_the_same(small_night: SmallNight, commands: CommandLine, lake: Path) -> None:
    before = list_files(lake)
    ended = run_explain(commands, small_night, lake)
    assert ended.code == 0, ended.said
    answers = ask(lake, " UNION ALL ".join(f"SELECT person_id, '{i}' FROM features WHERE {i} >= 0" for i in ITEMS))
    rows = ask(lake, "SELECT person_id, trait, item, moved FROM explanations_latest")
    assert [row[:3] for row in rows] == sorted((person, trait, item) for person, item in answers for trait in TRAITS)
    assert len(rows) > 2 * 5.5 * read_manifest(lake, FIRST)["rows"]["profiles"]
    assert all(abs(row[3]) < 5 for row in rows), "also no NaN"
    # The highest mood_1 answers raise distress most, and sleeplessness by way of the correlation.
    (own, other) = ask(
        lake,
        "SELECT avg(moved) FROM explanations JOIN features USING (person_id) "
        "WHERE item = 'mood_1' AND mood_1 = 3 GROUP BY trait ORDER BY trait",
    )
    assert own[0] > other[0] > 0

    after = list_files(lake)
    added = sorted(set(after) - set(before))
    assert before.items() <= after.items(), "nothing else of the lake has changed"
    folder = f"restricted/explanations/run_date={FIRST}"
    assert [str(Path(name).parent) for name in added] == [folder, folder]
    index = json.loads(after[f"{folder}/00000001.json"])
    assert index["rows"] == sum(file["rows"] for file in index["files"]) == len(rows)
    assert index["model_version"] == read_manifest(lake, FIRST)["model"]["model_version"]
    file = lake / added[0]
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent)] == [0o600, 0o700, 0o700]
    metadata = pq.read_metadata(file)
    assert metadata.row_group(0).column(0).compression == "ZSTD" and b"meaning.moved" in metadata.metadata

    ended = run_explain(commands, small_night, lake)
    assert ended.code == 0, ended.said
    assert list_files(lake) == after
    # A publication tidies up, and leaves them where they are.
    assert commands("publish", "--lake", lake, "--run-date", FIRST, "--codebook", small_night.book).code == 0
    assert ask(lake, "SELECT person_id, trait, item, moved FROM explanations_latest") == rows


@pytest.fixture(scope="module")
def care(small_night: SmallNight, copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> SmallNight:
    """The night as if its people had agreed: its manifest names the digest of a codebook for care."""
    folder = tmp_path_factory.mktemp("care")
    lake, book = copy_lake(folder), folder / "care.yaml"
    book.write_text(small_night.book.read_text() + CARE)
    before, after = (hashlib.sha256(one.read_bytes()).hexdigest() for one in (small_night.book, book))
    (manifest,) = (lake / "restricted" / "runs").rglob("*.json")
    manifest.write_text(manifest.read_text().replace(before, after))
    return SmallNight(lake, book, small_night.extract)


def test_one_person_is_printed_and_nothing_is_written(care: SmallNight, commands: CommandLine) -> None:
    lake = care.lake
    files, names = list_files(lake), "profiles_latest WHERE items_answered = 6 ORDER BY person_id"
    ((person,),) = ask(lake, f"SELECT person_id FROM {names} LIMIT 1")
    ended = run_explain(commands, care, lake, "--person-id", person)
    assert (ended.code, list_files(lake)) == (2, files)
    assert "one person's data is read for a reason" in ended.said
    ended = run_explain(commands, care, lake, "--person-id", person, "--reason", "asked by the person")
    assert ended.code == 0, ended.said
    header, *lines = [line.split() for line in ended.said.splitlines()]
    assert header == ["trait", "item", "moved", "(reference", "sd)"]
    assert sorted((line[0], line[1]) for line in lines) == [(trait, item) for trait in TRAITS for item in ITEMS]
    moves = [abs(float(line[2])) for line in lines]
    assert moves == sorted(moves, reverse=True)
    assert any(line[3:] == ["low", "mood"] for line in lines)
    assert person not in ended.said
    (entry,) = read_entries(Lake(lake))
    told = {name: entry[name] for name in ("who", "command", "person", "reason")}
    assert told == {"who": name_user(), "command": "explain", "person": person, "reason": "asked by the person"}
    assert {name for name, _ in list_files(lake).items() ^ files.items()} == {
        f"restricted/audit/{name}" for name in ("head.json", "lock", "log.jsonl")
    }
    # Who is not there is looked for all the same.
    ended = run_explain(commands, care, lake, "--person-id", "0" * 64, "--reason", "a mistake")
    assert ended.code == 2 and f"nobody in the night of {FIRST} has this pseudonym" in ended.said
    # A delivered id, given by mistake, is neither repeated nor kept.
    ended = run_explain(commands, care, lake, "--person-id", "P000300", "--reason", "a mistake")
    assert ended.code == 2 and "--person-id is no pseudonym" in ended.said and "P000300" not in ended.said
    assert [entry["person"] for entry in read_entries(Lake(lake))] == [person, "0" * 64]
    assert not [name for name, content in list_files(lake).items() if "audit" in name and b"P000300" in content]


def test_one_person_is_explained_of_the_last_night_alone(
    care: SmallNight, commands: CommandLine, tmp_path: Path
) -> None:
    """Whoever has said no since is not in it."""
    shutil.copytree(care.lake, lake := tmp_path / "lake")
    repeat_night(Lake(lake), 2)
    ended = run_explain(commands, care, lake, "--person-id", "0" * 64, "--reason", "asked by the person")
    assert ended.code == 2 and f"of the last night alone, {SECOND}" in ended.said


def test_what_cannot_be_explained_is_told(
    small_night: SmallNight, commands: CommandLine, lake: Path, tmp_path: Path
) -> None:
    files = list_files(lake)
    # A delivered id, given by mistake, is not repeated.
    for more, day, code, sentence in (
        (["--person-id", "P000300"], FIRST, 2, "the purpose of pocket is statistics: nothing about one person"),
        ([], SECOND, 1, f"no night of {SECOND} is published: run `mindcensus run` first"),
        (["--person-id", "P000300"], SECOND, 1, f"no night of {SECOND} is published: run `mindcensus run` first"),
    ):
        ended = run_explain(commands, small_night, lake, *more, day=day)
        assert ended.code == code, ended.said
        assert ended.said.splitlines()[-1].startswith(f"mindcensus explain: {sentence}")
        assert "P000300" not in ended.said and "Traceback" not in ended.said
    other = tmp_path / "other.yaml"
    other.write_text(small_night.book.read_text().replace("version: 1", "version: 2"))
    ended = commands("explain", "--lake", lake, "--run-date", FIRST, "--codebook", other)
    assert (ended.code, "validated by another codebook" in ended.said) == (2, True), ended.said
    assert list_files(lake) == files

    ended = run_explain(commands, small_night, tmp_path / "nowhere")
    assert ended.code == 1 and not (tmp_path / "nowhere").exists()


def test_a_model_that_has_gone_is_named(care: SmallNight, commands: CommandLine, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(care.lake, lake)
    shutil.rmtree(lake / read_manifest(lake, FIRST)["model"]["folder"])
    for more in ([], ["--person-id", "0" * 64, "--reason", "a test"]):
        ended = run_explain(commands, care, lake, *more)
        assert ended.code == 1 and "Traceback" not in ended.said
        assert "model.json cannot be read: No such file or directory" in ended.said.splitlines()[-1]
