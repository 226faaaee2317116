"""Bad input through the real commands: an exit code, one sentence that says what to do, and the lake as it was.

Faults of single rows are not errors: all of them are in one extract, and each has its reason in the quarantine.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pyreadstat
import pytest

from benchmarks.endings import read_view
from jobs.lake import Lake
from model.registry import load_model, save_model
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import (
    CODEBOOK,
    COLUMNS,
    FIRST,
    SECOND,
    CommandLine,
    Ended,
    environment,
    simulate_rows,
)

# What must never be said: the ids of simulated people, and what the tests plant among their answers.
SECRET = re.compile(r"P0\d{5}|planted", re.IGNORECASE)
NOBODY = 65534
OWN_LINE = re.compile(r"^mindcensus( \w+)?: ", re.MULTILINE)

Content = dict[str, bytes | str]


@pytest.fixture(scope="module")
def lake(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_lake(tmp_path_factory.mktemp("bad_input"))


def freeze(lake: Path) -> dict[str, str]:
    """Every file by its sha256, and the nights in the making; token, notes and Data Docs may differ after a failure."""
    files = [path for path in sorted(lake.rglob("*")) if path.is_file()]
    named = {str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    passing = ("restricted/token", "restricted/leases/", "restricted/attempts/", "restricted/data_docs/")
    left = {str(path.relative_to(lake)): "night" for path in (lake / "restricted/staging").iterdir()}
    return {name: digest for name, digest in named.items() if not name.startswith(passing)} | left


def check_refusal(ended: Ended, code: int, words: tuple[str, ...]) -> None:
    """One sentence, which holds the words; no traceback, and nothing of anybody."""
    assert ended.code == code, ended.said
    assert len(OWN_LINE.findall(ended.said)) == 1, ended.said
    sentence = ended.said[OWN_LINE.search(ended.said).start() :]  # type: ignore[union-attr]
    assert [word for word in words if word not in sentence] == [], sentence
    assert "Traceback" not in ended.said and "org.apache.spark" not in ended.said
    assert not SECRET.search(ended.said)


def make_lines() -> list[str]:
    """A good enough extract of 400 people: its header and its rows."""
    return [",".join(map(str, row)) for row in [COLUMNS, *simulate_rows(3, SECOND, people=400)]]


LINES = make_lines()
CELLS = [line.split(",") for line in LINES]


def join(cells: list[list[str]]) -> str:
    return "\n".join(",".join(row) for row in cells) + "\n"


GOOD = join(CELLS)


def change(column: str, value: str | Callable[[int, str], str]) -> str:
    """The extract with other values in a column."""
    place = COLUMNS.index(column)
    rows = [[*row] for row in CELLS]
    for number, row in enumerate(rows[1:]):
        row[place] = value if isinstance(value, str) else value(number, row[place])
    return join(rows)


def rename(old: str, new: str) -> str:
    return GOOD.replace(old, new, 1)


def drop(column: str) -> str:
    place = COLUMNS.index(column)
    return join([row[:place] + row[place + 1 :] for row in CELLS])


def write_stat_file(write: Callable[..., None], name: str, **options: Any) -> bytes:
    """The extract as another program's file."""
    frame = pd.read_csv(io.StringIO(GOOD))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(frame, path, **options)
        return path.read_bytes()


def cut_xpt() -> bytes:
    return write_stat_file(pyreadstat.write_xport, "people.xpt", file_format_version=8)[:-1000]


def cut_sav() -> bytes:
    return write_stat_file(pyreadstat.write_sav, "people.sav")[:-1000]


def cut_parquet() -> bytes:
    return write_stat_file(lambda frame, path: frame.to_parquet(path), "people.parquet")[:-1000]


@dataclass(frozen=True)
class Case:
    """What is delivered in place of a good extract, and what is said of it; `book` replaces parts of the codebook."""

    words: tuple[str, ...]
    files: Callable[[], Content] = lambda: {"people.csv": GOOD}
    book: dict[str, str] = field(default_factory=dict)
    code: int = 3


def people(content: Callable[[], bytes | str]) -> Callable[[], Content]:
    return lambda: {"people.csv": content()}


def source(kind: str, file: str) -> dict[str, str]:
    return {"{format: csv, files: [people.csv]}": f"{{format: {kind}, files: [{file}]}}"}


CASES = {
    "no file": Case(("no file people.csv", "there is People.csv"), lambda: {"People.csv": GOOD}),
    "empty file": Case(("people.csv", "is empty"), people(lambda: "")),
    "blank file": Case(("people.csv", "first line is blank"), people(lambda: "\n\n")),
    "header without rows": Case(("people.csv", "has no rows"), people(lambda: LINES[0] + "\r\n")),
    "no header": Case(("people.csv", "is the first line a header?"), people(lambda: join(CELLS[1:]))),
    "column missing": Case(("people.csv", "income", "missing"), people(lambda: drop("income"))),
    "id missing": Case(("people.csv", "respondent", "missing"), people(lambda: drop("respondent"))),
    "column renamed": Case(("weight (renamed to weights?)",), people(lambda: rename("weight", "weights"))),
    "capitals": Case(("stratum (there is 'Stratum'",), people(lambda: rename("stratum", "Stratum"))),
    "column twice": Case(("stand twice: income",), people(lambda: join([[*row, row[-3]] for row in CELLS]))),
    "column retyped": Case(("column mood_1", "is a number"), people(lambda: change("mood_1", "planted"))),
    "dates retyped": Case(("column answered_at", "is a date"), people(lambda: change("answered_at", "planted"))),
    "semicolons": Case(("people.csv", "semicolon", "comma"), people(lambda: GOOD.replace(",", ";"))),
    "tabs": Case(("people.csv", "tab", "comma"), people(lambda: GOOD.replace(",", "\t"))),
    "UTF-8 with a mark": Case(("people.csv", "byte-order mark", "utf-8-sig"), people(lambda: GOOD.encode("utf-8-sig"))),
    "UTF-16": Case(("people.csv", "UTF-16", "UTF-8"), people(lambda: GOOD.encode("utf-16"))),
    "Latin-1": Case(
        ("people.csv", "line 2", "is not utf-8", "iso-8859-1"),
        people(lambda: change("region", "planté").encode("latin-1")),
    ),
    "zero bytes": Case(("people.csv", "is zero"), people(lambda: GOOD.replace("north", "no\0th"))),
    "cut .xpt": Case(
        ("people.xpt", "cut short", "ask for the file again"),
        lambda: {"people.xpt": cut_xpt()},
        source("sas_xport", "people.xpt"),
    ),
    "cut .sav": Case(
        ("people.sav", "ask for the file again"), lambda: {"people.sav": cut_sav()}, source("spss_sav", "people.sav")
    ),
    "cut .parquet": Case(
        ("people.parquet",), lambda: {"people.parquet": cut_parquet()}, source("parquet", "people.parquet")
    ),
    "CSV called .xpt": Case(
        ("people.xpt", "SAS transport"), lambda: {"people.xpt": GOOD}, source("sas_xport", "people.xpt")
    ),
    "nobody eligible": Case(("rows is eligible",), people(lambda: change("age", "5"))),
    "one PSU in a stratum": Case(
        ("stratum s0 has one PSU", "lonely_psu"),
        people(lambda: join([row for row in CELLS if row[3:5] not in (["s0", "p1"], ["s0", "p2"])])),
    ),
    "too much quarantined": Case(
        ("mood_1_values", "the codebook allows 10.0%", "Data Docs", "max_quarantine_share"),
        people(lambda: change("mood_1", lambda number, value: "7" if number % 3 else value)),
        code=4,
    ),
    "duplicated item": Case(
        ("pocket.yaml", "items: mood_1 stands there twice"), book={"{key: mood_2,": "{key: mood_1,"}
    ),
    "duplicated item column": Case(
        ("pocket.yaml", "items: column: mood_1 stands there twice"), book={"column: mood_2": "column: mood_1"}
    ),
    "duplicated key": Case(
        ("pocket.yaml", "the key 'version' stands twice"), book={"version: 1": "version: 1\nversion: 2"}
    ),
    "unknown item": Case(
        ("pocket.yaml", "sleep names the unknown item sleep_9"), book={"[sleep_1, sleep_2": "[sleep_9, sleep_2"}
    ),
    "overlapping breaks": Case(
        ("pocket.yaml", "cohorts[1] (age_band)", "`breaks` overlap"), book={"[18, 40, 65]": "[18, 65, 40]"}
    ),
    "unknown key of the codebook": Case(
        ("pocket.yaml", "items[0] (mood_1).lebels"), book={"mood_1, levels": "mood_1, lebels"}
    ),
    "no YAML": Case(("pocket.yaml", "not readable YAML", "line"), book={"scales:": "scales: ]"}),
    "SQL that cannot be read": Case(("codebook pocket: eligible: [", "yntax error"), book={"age >= 18\n": "age >=\n"}),
    "SQL that fails on a value": Case(
        ("codebook pocket", "`eligible`", "CAST_INVALID_INPUT", "try_cast"),
        people(lambda: change("region", "planted")),
        {"age >= 18\n": "region >= 18\n"},
    ),
    "SQL of an unknown column": Case(("codebook pocket: eligible", "agee"), book={"age >= 18\n": "agee >= 18\n"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_delivery(name: str, commands: CommandLine, lake: Path, tmp_path: Path) -> None:
    case = CASES[name]
    book, extract = tmp_path / "pocket.yaml", tmp_path / "delivered"
    content = CODEBOOK
    for old, new in case.book.items():
        assert old in content
        content = content.replace(old, new, 1)
    book.write_text(content)
    extract.mkdir()
    for file, data in case.files().items():
        (extract / file).write_bytes(data.encode() if isinstance(data, str) else data)
    before = freeze(lake)
    ended = validate(commands, lake, book, extract)
    check_refusal(ended, case.code, case.words)
    assert freeze(lake) == before


def validate(commands: CommandLine, lake: Path, book: Path | str, extract: Path, day: str = SECOND) -> Ended:
    return commands("validate", "--lake", lake, "--run-date", day, "--codebook", book, "--extract", extract)


def test_what_is_not_there(commands: CommandLine, small_night: SmallNight, lake: Path, tmp_path: Path) -> None:
    before = freeze(lake)
    book, extract = small_night.book, small_night.extract
    nothing = tmp_path / "nothing"
    check_refusal(validate(commands, lake, book, nothing), 3, ("nothing", "no such file or folder"))
    check_refusal(
        validate(commands, lake, "no_such_book", extract), 3, ("no codebook no_such_book", "nhanes_2017_2018")
    )
    where = ["--lake", lake, "--run-date", SECOND, "--codebook", book]
    check_refusal(commands("validate", *where), 3, ("no extract is named", "--extract"))
    check_refusal(commands("preprocess", *where), 1, (f"no night of {SECOND}", "mindcensus validate"))
    assert freeze(lake) == before


def test_usage(commands: CommandLine, small_night: SmallNight, lake: Path, tmp_path: Path) -> None:
    before = freeze(lake)
    where = ["--lake", lake, "--codebook", small_night.book]
    for arguments, words in (
        (["validate", *where], "--run-date"),
        (["validate", *where, "--run-date", "tomorrow"], "not a date like"),
        (["validate", *where, "--run-date", "2026-02-30"], "not a date like"),
        (["forecast", *where, "--run-date", FIRST], "forecast"),
        (["demo", "--people", "0", "--run-date", FIRST, "--out", tmp_path / "demo"], "a demonstration needs"),
        (["validate", "--lake", small_night.book, "--codebook", small_night.book, "--run-date", FIRST], "is a file"),
        (["report", "--lake", lake, "--codebook", "demo_population", "--run-date", FIRST], "another codebook"),
    ):
        ended = commands(*arguments)
        assert (ended.code, words in ended.said, "Traceback" in ended.said) == (2, True, False), ended.said
    assert freeze(lake) == before
    assert not list(tmp_path.iterdir())


def test_a_lake_that_is_held(commands: CommandLine, small_night: SmallNight, lake: Path) -> None:
    before = freeze(lake)
    with Lake(lake).hold():
        ended = validate(commands, lake, small_night.book, small_night.extract)
    assert freeze(lake) == before
    check_refusal(ended, 5, (str(lake), "another run holds the lake", str(os.getpid()), "wait"))


# Faults of rows: what is changed in a row of its own, and the rules that it breaks. `None` takes a field away.
ROW_FAULTS: dict[str, tuple[dict[str, str | None], set[str]]] = {
    "too few fields": ({"region": None}, {"row_shape"}),
    "too many fields": ({"region": "north,planted,1"}, {"row_shape"}),
    "quote that is not closed": ({"region": '"planted'}, {"row_shape"}),
    "unknown code": ({"mood_1": "4"}, {"mood_1_values"}),
    "text for an answer": ({"mood_2": "planted"}, {"mood_2_type"}),
    "no id": ({"respondent": " "}, {"person_id_missing"}),
    "no weight": ({"weight": ""}, {"weight_missing"}),
    "text for a weight": ({"weight": "planted"}, {"weight_type"}),
    "weight 0": ({"weight": "0"}, {"weight_positive"}),
    "negative weight": ({"weight": "-2"}, {"weight_positive"}),
    "infinite weight": ({"weight": "inf"}, {"weight_positive"}),
    "weight beyond all numbers": ({"weight": "1e999"}, {"weight_positive"}),
    "no number for a weight": ({"weight": "nan"}, {"weight_type"}),
    "no stratum": ({"stratum": ""}, {"stratum_missing"}),
    "no PSU": ({"psu": ""}, {"psu_missing"}),
    "PSU in two strata": ({"stratum": "s1", "psu": "s0p1"}, {"psu_in_one_stratum"}),
    "future date": ({"answered_at": "2026-03-03"}, {"answered_at_future"}),
    "no date": ({"answered_at": ""}, {"answered_at_missing"}),
    "text for a date": ({"answered_at": "planted"}, {"answered_at_type"}),
    "no age": ({"age": ""}, {"age_missing"}),
    "age out of range": ({"age": "130"}, {"age_range"}),
    "unknown region": ({"region": "planted"}, {"region_values"}),
    "one of two with the same date": ({"respondent": "P099999"}, {"person_repeated"}),
    "the other of the two": ({"respondent": "P099999"}, {"person_repeated"}),
}


def test_faults_of_rows(commands: CommandLine, tmp_path: Path) -> None:
    book, extract, lake = tmp_path / "pocket.yaml", tmp_path / "people.csv", tmp_path / "lake"
    book.write_text(CODEBOOK.replace("nest: true", "nest: false").replace("share: 0.10", "share: 0.5"))
    good = [row for row in simulate_rows(3, SECOND, people=400)[:100] if row[COLUMNS.index("age")] >= 18]
    good += simulate_rows(3, SECOND, people=400)[130:200]
    rows = [{name: str(value) for name, value in zip(COLUMNS, row, strict=True)} for row in good]
    for row in rows:
        row["psu"] = row["stratum"] + row["psu"]
    spoiled = rows[-len(ROW_FAULTS) :]
    lines = [
        ",".join([*COLUMNS, "shoe_size"]),
        *[",".join([*row.values(), "planted"]) for row in rows[: -len(spoiled)]],
    ]
    for row, (changes, _) in zip(spoiled, ROW_FAULTS.values(), strict=True):
        lines.append(",".join(value for value in [*(row | changes).values(), "44"] if value is not None))
    extract.write_text("\n".join(lines) + "\n")
    ended = validate(commands, lake, book, extract)
    assert ended.code == 0, ended.said
    assert not SECRET.search(ended.said)
    (record,) = (lake / "restricted/staging").glob("*/validate.json")
    validated = json.loads(record.read_text())
    expected = [rules for _, rules in ROW_FAULTS.values()]
    counts = validated["counts"]
    assert (counts["delivered"], counts["quarantined"]) == (len(rows), len(expected))
    assert counts["accepted"] == len(rows) - len(expected)
    (file,) = validated["tables"]["quarantine"]
    found = [set(row["failed_rules"]) for row in pq.read_table(lake / file["path"]).to_pylist()]
    # A row that could not be cut into fields lacks everything else, too.
    found = [{"row_shape"} if "row_shape" in rules else rules for rules in found]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert validated["details"]["new_columns"] == ["shoe_size"]
    assert [warning["rule"] for warning in validated["details"]["warnings"]] == ["new_columns"]
    docs = lake / validated["details"]["data_docs"]
    assert not any(SECRET.search(page.read_text(errors="replace")) for page in docs.rglob("*.html"))


# Everything is imported as root, because the other user may not be able to read this installation.
AS_NOBODY = """
import os, sys
import jobs.cli
os.setgroups([])
os.setgid({user})
os.setuid({user})
sys.exit(jobs.cli.main(sys.argv[1:]))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can look into, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_write_permission(lake: Path, open_folder: Path) -> None:
    copy, book, extract = open_folder / "lake", open_folder / "pocket.yaml", open_folder / "people.csv"
    shutil.copytree(lake, copy)
    book.write_text(CODEBOOK)
    extract.write_text(GOOD)
    before = freeze(copy)
    for target, place in ((copy, copy / "restricted"), (open_folder / "new", open_folder / "new")):
        where = ["--lake", target, "--run-date", SECOND, "--codebook", book, "--extract", extract]
        check_refusal(run_as_nobody("validate", *where), 1, (str(place), "no permission"))
    assert freeze(copy) == before
    assert not (open_folder / "new").exists()


def run_as_nobody(*arguments: object) -> Ended:
    program = [sys.executable, "-c", AS_NOBODY.format(user=NOBODY), *map(str, arguments)]
    ended = subprocess.run(program, env=environment(HOME="/nonexistent"), cwd="/", capture_output=True, text=True)
    return Ended(ended.returncode, ended.stderr)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
    if mounted is None or mounted.returncode:
        pytest.skip(f"no small disk could be mounted: {mounted.stderr.strip() if mounted else 'no mount command'}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, left: int) -> Path:
    """A file that leaves so many bytes of the disk."""
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(disk).free - left))
    return filler


def test_a_full_disk(
    small_disk: Path, commands: CommandLine, small_night: SmallNight, copy_lake: Copy, lake: Path
) -> None:
    home = copy_lake(small_disk)
    shutil.rmtree(home / "restricted/data_docs")
    before = freeze(home)
    for left in (0, 60_000, 2_000_000):  # before Spark starts, as it writes, as the Data Docs are written
        filler = fill(small_disk, left)
        ended = validate(commands, home, small_night.book, small_night.extract)
        check_refusal(ended, 1, ("disk is full", "run the stage again"))
        filler.unlink()
        assert freeze(home) == before, f"with {left} bytes left"
        shutil.rmtree(home / "restricted/data_docs", ignore_errors=True)
    check_publishing_on_a_full_disk(small_disk, commands, small_night, home)
    check_scoring_on_a_full_disk(small_disk, commands, small_night, home)


def check_scoring_on_a_full_disk(disk: Path, commands: CommandLine, night: SmallNight, lake: Path) -> None:
    """A worker that cannot write its profiles ends the stage; with room again it is done, and nothing comes twice."""
    where = ["--lake", lake, "--run-date", FIRST, "--codebook", night.book]
    profiles = read_view(lake, "restricted", "profiles_latest")
    filler = fill(disk, 50_000)
    check_refusal(commands("score", *where), 1, ("disk is full", "run the stage again"))
    assert read_view(lake, "restricted", "profiles_latest") == profiles
    filler.unlink()
    ended = commands("score", *where)
    assert ended.code == 0 and f'"profiles": {len(profiles)}' in ended.said, ended.said


def test_a_model_that_gives_no_number_for_some(
    commands: CommandLine, small_night: SmallNight, copy_lake: Copy, tmp_path: Path
) -> None:
    lake = copy_lake(tmp_path)
    profiles = read_view(lake, "restricted", "profiles_latest")
    model = load_model(folder := next((lake / "restricted" / "models").glob("2026*")))
    shutil.rmtree(folder)
    network = model.network.copy()
    network.encoder[0].weight[:, int(network.starts[0]) + 3] = 3e38  # whoever gave one item's highest answer
    save_model(folder, replace(model.result, network=network), model.model_version)
    ended = commands("score", "--lake", lake, "--run-date", FIRST, "--codebook", small_night.book, "--rescore")
    check_refusal(ended, 1, ("is not a number for", "people", "nothing is published"))
    named = set(re.findall(r"\b[0-9a-f]{64}\b", ended.said))
    assert named and named <= {row[0] for row in profiles}
    assert read_view(lake, "restricted", "profiles_latest") == profiles


def check_publishing_on_a_full_disk(disk: Path, commands: CommandLine, night: SmallNight, lake: Path) -> None:
    """The published night again: until there is room, readers see the old one whole."""
    where = ["--lake", lake, "--run-date", FIRST, "--codebook", night.book]
    assert commands("report", *where).code == 0
    before, cohorts = freeze(lake), read_view(lake, "public", "cohorts_latest")
    filler = fill(disk, 0)
    check_refusal(commands("publish", *where), 1, ("disk is full",))
    assert freeze(lake) == before | {"filler": ""} or freeze(lake) == before
    assert read_view(lake, "public", "cohorts_latest") == cohorts
    filler.unlink()
    assert commands("publish", *where).code == 0
    assert read_view(lake, "public", "cohorts_latest") == cohorts
