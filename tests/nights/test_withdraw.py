"""Withdrawn people: kept out of every table, erased from published nights and models, and nothing public moves."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.endings import read_view
from jobs import rewrite_people
from jobs import withdraw as withdrawing
from jobs.audit import read_entries, verify_log
from jobs.catalog import explanations_index, write_catalog
from jobs.cli import main
from jobs.drill import run_drill
from jobs.lake import PEOPLE_TABLES, Lake, Night
from jobs.promotions import find_model
from jobs.pseudonym import digest_ids, read_key
from jobs.withdrawn import find_people, read_withdrawn
from tests.nights.conftest import Copy, SmallNight, repeat_night
from tests.nights.small_night import FIRST, SECOND, CommandLine, simulate_rows, write_extract

pytestmark = pytest.mark.usefixtures("own_logs")

NIGHTS = 2
HELD = [table for table in PEOPLE_TABLES if not table.startswith("feedback")]  # that the small survey has
ACCEPTED, QUARANTINED, UNKNOWN = "P000300", "P000100", "planted-unknown-58ac"
IDS = f"{ACCEPTED}\n\n  {QUARANTINED}\r\n{UNKNOWN}\n"
Ask = Callable[..., int]


@pytest.fixture(scope="module")
def published(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nights of which one is explained: of the person who is to go, and of everybody else in one row."""
    lake = Lake(copy_lake(tmp_path_factory.mktemp("published")))
    repeat_night(lake, NIGHTS)
    (person,) = find_pseudonyms(lake, ACCEPTED)
    file = lake.staging / "explained.parquet"
    pq.write_table(pa.table({"person_id": [person, "ff" * 32], "moved": [0.5, 0.1]}), file)
    files = Night(lake, date.fromisoformat(FIRST), 1).adopt([file], "explanations")
    explanations_index(lake.root, FIRST, 1).write_text(json.dumps({"files": [vars(one) for one in files]}))
    return lake.root


@pytest.fixture
def lake(published: Path, tmp_path: Path) -> Lake:
    shutil.copytree(published, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    write_catalog(lake.restricted, lake.manifests())
    return lake


@pytest.fixture
def ask(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A command on the lake, in this process, with ids on its standard input."""
    monkeypatch.delenv("MINDCENSUS_KEY", raising=False)
    monkeypatch.delenv("MINDCENSUS_KEY_FILE", raising=False)

    def run(command: str, *options: object, ids: str = IDS, why: str = "by letter") -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ids.encode())))
        reason = ["--reason", why] if why else []
        return main([command, "--lake", str(lake.root), *reason, *map(str, options)])

    return run


def find_pseudonyms(lake: Lake, *ids: str) -> list[str]:
    key = read_key(lake.restricted / "keys" / "pseudonym.key")
    return [one for one in digest_ids([i.encode() for i in ids], key) if one]


def find_places(lake: Lake, *values: str) -> set[str]:
    """The files in which one of the texts stands, as bytes or as a value of a table."""
    found = set()
    for file in (path for path in lake.root.rglob("*") if path.is_file()):
        data = file.read_bytes()
        values_told = str(pq.read_table(file, partitioning=None).to_pydict()) if file.suffix == ".parquet" else ""
        if any(value.encode() in data or value in values_told for value in values):
            found.add(str(file.relative_to(lake.root)))
    return found


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def describe(lake: Lake) -> dict[str, bytes]:
    """All that is left of a lake, the log of accesses, leases and what DuckDB writes otherwise every time apart."""
    passing = ("restricted/audit", "restricted/leases", "restricted/catalog.duckdb")
    return {name: content for name, content in list_files(lake.root).items() if not name.startswith(passing)}


def test_nothing_stays_but_the_list_and_the_log(lake: Lake, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    people, public = find_pseudonyms(lake, ACCEPTED, QUARANTINED), list_files(lake.public)
    before = {table: read_view(lake.root, "restricted", table) for table in HELD}
    assert {place.split("/")[1] for place in find_places(lake, *people)} == {*HELD, "explanations"}
    # Of nights that were given up: a refused model, and an unfinished one.
    for name in ("2026-02-01-0123456789ab", ".2026-02-02-0123456789ab.checkpoints"):
        (lake.restricted / "models" / name).mkdir()
    assert ask("withdraw", "--erase") == 0
    said = capsys.readouterr()
    rows, nights = NIGHTS * 4, NIGHTS
    assert f"of 1 of them the lake has no row; {rows:,} rows in {nights} nights are erased, 2 models" in said.out

    (key,) = {path.name for path in (lake.restricted / "withdrawn").glob("*.txt")}
    own = {f"restricted/withdrawn/{key}", "restricted/audit/log.jsonl"}
    assert find_places(lake, *people) == own
    assert find_places(lake, ACCEPTED, QUARANTINED, UNKNOWN) == set()
    assert not {*people, ACCEPTED, QUARANTINED, UNKNOWN} & {*said.out.split(), *said.err.split()}
    assert list_files(lake.public) == public

    for table in HELD:
        # Every catalogued file is there, and everybody else's row as it was.
        after = read_view(lake.root, "restricted", table)
        assert after == [row for row in before[table] if row[0] not in people]
    for manifest in lake.manifests():
        rows_now = manifest["rows"]
        assert (rows_now["features"], rows_now["quarantined"], rows_now["withdrawn"]) == (1_409, 29, 2)
        where = ("features", "quarantined", "withdrawn", "duplicates", "ineligible")
        assert rows_now["delivered"] == sum(rows_now[name] for name in where)
        assert manifest["stages"]["preprocess"]["counts"]["features"] == rows_now["profiles"] == 1_409
    assert find_model(lake, date.fromisoformat(SECOND)) is None
    assert list((lake.restricted / "models").glob("*2026*")) == []
    notice = next((lake.restricted / "withdrawn" / "notices").iterdir()).read_text()
    assert notice.startswith("Notice of withdrawal\n\n2 people") and notice.count("people.csv") == NIGHTS
    assert f"sha256 {lake.manifests()[0]['stages']['validate']['details']['files'][0]['sha256']}" in notice
    assert [entry["person"] for entry in read_entries(lake)] == sorted(find_pseudonyms(lake, *IDS.split()))
    assert run_drill(lake.root, Lake(lake.root.parent / "other")).nights == NIGHTS


def test_where_old_nights_have_gone_nobody_knows_who_was_in_them(lake: Lake) -> None:
    (model,) = {manifest["model"]["model_version"] for manifest in lake.manifests()}
    assert withdrawing.find_learned(lake, None) == []
    assert withdrawing.find_learned(lake, FIRST) == [model]
    lake.retired.mkdir()
    gone = {"run_date": FIRST, "token": 1, "on": SECOND, "tables": [], "files": []}
    (lake.retired / "00000001.json").write_text(json.dumps(gone))
    assert withdrawing.find_learned(lake, None) == [model]


@pytest.mark.parametrize(
    ("module", "name"),
    [(withdrawing, "write_notice"), (withdrawing, "put_in_force"), (rewrite_people, "write_catalog")],
)
def test_stopped_and_run_again_it_ends_the_same(
    lake: Lake, ask: Ask, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    manifests, twin = lake.manifests(), lake.root.parent / "twin"
    shutil.copytree(lake.root, twin)
    with monkeypatch.context() as stopped:
        stopped.setattr(module, name, lambda *_: 1 / 0)
        assert ask("withdraw", "--erase") == 1
    if name != "write_catalog":
        assert lake.manifests() == manifests, "it was all in vain"
    assert ask("withdraw", "--erase") == 0
    ended = describe(lake)
    assert ask("withdraw", "--erase") == 0
    assert describe(lake) == ended

    shutil.rmtree(lake.root)
    twin.rename(lake.root)
    assert ask("withdraw", "--erase") == 0
    assert describe(lake) == ended
    assert verify_log(lake).entries == 3


def test_a_file_that_is_made_anew_keeps_its_place(tmp_path: Path) -> None:
    """Profiles have the people of their features in the same order, from file to file."""
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    parts = [tmp_path / f"part-{place}.parquet" for place in range(3)]
    for place, part in enumerate(parts):
        pq.write_table(pa.table({"person_id": [f"{place}a", f"{place}b"]}), part, row_group_size=1)
    files = Night(lake, date.fromisoformat(FIRST), 7).adopt(parts, "profiles")
    manifest = {"run_date": FIRST, "token": 7}
    gone = pa.array(["1a"])
    (new,) = rewrite_people.rewrite_files(
        lake,
        manifest,
        "profiles",
        files[1:2],
        lambda table: table.filter(pc.invert(pc.is_in(table["person_id"], gone))),
    )
    assert (new.rows, new.path[:-24]) == (1, files[1].path[:-24])
    paths = sorted(lake.root / file.path for file in (files[2], new, files[0]))
    people = [one for path in paths for one in pq.read_table(path, partitioning=None)["person_id"].to_pylist()]
    assert people == ["0a", "0b", "1b", "2a", "2b"]
    assert find_people(lake, [files[0], new], ["0b", "1a", "2a"]) == ["0b"]


def test_the_next_nights_have_nothing_of_them(
    lake: Lake, ask: Ask, commands: CommandLine, small_night: SmallNight, tmp_path: Path
) -> None:
    assert ask("withdraw") == 0
    people = find_pseudonyms(lake, *IDS.split())
    assert read_withdrawn(lake) == sorted(people)
    day = date.fromisoformat(FIRST) + timedelta(days=NIGHTS)
    extract = write_extract(tmp_path / "next", simulate_rows(2, day.isoformat()))
    where = ["--lake", lake.root, "--run-date", day, "--codebook", small_night.book]
    ended = commands("validate", *where, "--extract", extract)
    assert ended.code == 0, ended.said
    record = lake.open_nights()[0].read("validate")
    assert (record.counts["withdrawn"], record.counts["quarantined"], record.counts["accepted"]) == (2, 29, 1_409)
    assert not [place for place in find_places(lake, *people) if str(day) in place]
    # What was validated before is not gone on with.
    assert ask("withdraw", ids="P000400\n") == 0
    for again in (where, [*where[:2], "--run-date", FIRST, *where[4:]]):
        ended = commands("preprocess", *again)
        assert ended.code == 2 and "have withdrawn since it was validated: validate it again" in ended.said
    ended = commands("validate", *where[:2], "--run-date", FIRST, *where[4:])
    assert ended.code == 2 and "`mindcensus withdraw --erase` removes them from published nights" in ended.said
    # Once they are erased, the night is whole again; and a training begins from nothing.
    assert ask("withdraw", "--erase", ids=IDS + "P000400\n") == 0
    ended = commands("preprocess", *where[:2], "--run-date", FIRST, *where[4:])
    assert ended.code == 0, ended.said
    assert lake.open_nights()[0].read("preprocess").counts["features"] == 1_408
    assert commands("train", "--check", *where).said.split()[-1] == "needed"


def test_a_person_gets_all_that_is_held(lake: Lake, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("export-person", ids=ACCEPTED, why="asked in writing") == 0
    told = json.loads(capsys.readouterr().out)
    (person,) = find_pseudonyms(lake, ACCEPTED)
    assert [night["run_date"] for night in told["nights"]] == [m["run_date"] for m in lake.manifests()]
    assert {*told["nights"][0]["tables"]} == {"accepted", "features", "profiles", "explanations"}
    (profile,) = told["nights"][1]["tables"]["profiles"]
    (row,) = [row for row in read_view(lake.root, "restricted", "profiles_latest") if row[0] == person]
    assert list(profile.values()) == list(row)[: len(profile)]
    assert told["withdrawn"] is False and told["purposes"][0]["use"] == "statistics"
    assert [entry["reason"] for entry in told["access_log"]] == ["asked in writing"]
    assert "who" not in told["access_log"][0]
    assert ask("export-person", ids=QUARANTINED) == 0
    assert {*json.loads(capsys.readouterr().out)["nights"][0]["tables"]} == {"quarantine"}
    assert ask("export-person", ids=UNKNOWN) == 0
    assert json.loads(capsys.readouterr().out)["nights"] == []


def other_key(lake: Lake, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MINDCENSUS_KEY", "planted-other-key")


def lost_key(lake: Lake, patch: pytest.MonkeyPatch) -> None:
    (lake.restricted / "keys" / "pseudonym.key").unlink()


def open_key(lake: Lake, patch: pytest.MonkeyPatch) -> None:
    (lake.restricted / "keys" / "pseudonym.key").chmod(0o700)


def damaged_log(lake: Lake, patch: pytest.MonkeyPatch) -> None:
    folder = lake.restricted / "audit"
    folder.mkdir()
    (folder / "head.json").write_text(json.dumps({"entries": 2, "size": 400, "last": "0" * 64}))
    (folder / "log.jsonl").write_text("")


@pytest.mark.parametrize(
    ("harm", "code", "sentence"),
    [
        (other_key, 2, "the pseudonym key is not the one of the lake's last night"),
        (lost_key, 2, "the lake's pseudonym key is lost: restore"),
        (open_key, 2, "has mode 0700: run `chmod 600` on it"),
        (damaged_log, 3, "the access log is cut: it had 2 entries"),
    ],
)
def test_what_is_refused_changes_nothing(
    harm: Callable[[Lake, pytest.MonkeyPatch], None],
    code: int,
    sentence: str,
    lake: Lake,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(lake, monkeypatch)
    before = describe(lake)
    for command, *options in (["withdraw"], ["withdraw", "--erase"], ["export-person"], ["rotate-key"]):
        assert ask(command, *options, ids=ACCEPTED) == code
        said = capsys.readouterr()
        assert sentence in said.err and len(said.err.splitlines()) == 1 and said.out == ""
        assert "planted" not in said.err and ACCEPTED not in said.err
        assert describe(lake) == before


@pytest.mark.parametrize(
    ("command", "options", "ids", "why", "sentence"),
    [
        ("withdraw", [], IDS, "", "say it by --reason TEXT"),
        ("export-person", [], IDS, " ", "say it by --reason TEXT"),
        ("rotate-key", [], IDS, "", "say it by --reason TEXT"),
        ("withdraw", [], " \n\n", "a test", "no id was given"),
        ("withdraw", ["--list", "nowhere.txt"], IDS, "a test", "nowhere.txt: no such file"),
        ("export-person", [], IDS, "a test", "3 ids were given: one person's data is told at a time"),
    ],
)
def test_a_command_that_says_too_little(
    command: str,
    options: list[str],
    ids: str,
    why: str,
    sentence: str,
    lake: Lake,
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = describe(lake)
    assert ask(command, *options, ids=ids, why=why) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1
    assert describe(lake) == before
    assert main([command, "--lake", str(lake.root / "nowhere"), "--reason", "a test"]) == 2
    assert not (lake.root / "nowhere").exists()
