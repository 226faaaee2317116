"""A night keeps the profiles of whose answers are unchanged, and is the same, to the bit, as if all were scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.endings import read_manifest
from expectations.codebook import read_codebook
from jobs import keeping
from jobs.job import Job
from jobs.keeping import NothingKept, find_kept, place_items
from jobs.lake import Lake, Night
from jobs.tables import arrow_schema, profiles_columns
from jobs.work_items import WorkItem, deal_work
from model import scoring
from model.scoring import Scorer, score_file
from model.spec import PERSON
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import COLUMNS, FIRST, SECOND, CommandLine, simulate_rows, write_extract


@dataclass(frozen=True, repr=False)
class Survey:
    """Features of the small night, in the order of their pseudonyms, and what makes profiles of them."""

    people: pa.Table
    scorer: Scorer
    schema: pa.Schema


@pytest.fixture(scope="module")
def survey(small_night: SmallNight) -> Iterator[Survey]:
    manifest = read_manifest(small_night.lake, FIRST)
    [file] = manifest["stages"]["preprocess"]["tables"]["features"]
    book, _ = read_codebook(str(small_night.book))
    scorer = Scorer.load(small_night.lake / manifest["model"]["folder"])
    with pytest.MonkeyPatch.context() as patch:
        # Blocks and row groups that some hundred people do fill.
        patch.setattr(scoring, "BLOCK", 128)
        patch.setattr(scoring, "ROWS_PER_GROUP", 90)
        people = pq.ParquetFile(small_night.lake / file["path"]).read()
        yield Survey(people, scorer, arrow_schema(profiles_columns(book)))


@dataclass(frozen=True)
class Layout:
    """How a night's features lie: people in a file, and in a row group, and whether the last file comes first."""

    file: int
    group: int
    reversed: bool

    def write(self, people: pa.Table, folder: Path) -> list[Path]:
        folder.mkdir()
        files = [folder / f"{start:04d}.parquet" for start in range(0, max(1, len(people)), self.file)]
        for number, file in enumerate(files):
            pq.write_table(people.slice(number * self.file, self.file), file, row_group_size=self.group)
        return files[::-1] if self.reversed else files


def score_items(survey: Survey, items: Sequence[WorkItem]) -> tuple[list[Path], int]:
    """The profiles' files in their order, and how many profiles were kept."""
    files, kept = [Path(f"{item.target}.parquet") for item in items], 0
    for item, file in zip(items, files, strict=True):
        kept += score_file(survey.scorer, item.read_pieces(), file, survey.schema, item.read_earlier()).kept
    return files, kept


def deal(features: list[Path], folder: Path, rows: int) -> list[WorkItem]:
    folder.mkdir()
    return deal_work(features, folder, rows)


def change(people: pa.Table, random: np.random.Generator, answers: float, weights: float) -> pa.Table:
    """Some answer to the first item anew, and some have another weight."""
    item, weight = people.column_names[1], people.schema.get_field_index("weight")
    codes = people[item].to_numpy().copy()
    anew = random.random(len(codes)) < answers
    codes[anew] = (codes[anew] + 2) % 5 - 1
    heavier = np.where(random.random(len(codes)) < weights, 1.5, 1.0) * people["weight"].to_numpy()
    changed = people.set_column(1, people.schema.field(1), pa.array(codes, pa.int8()))
    return changed.set_column(weight, people.schema.field(weight), pa.array(heavier))


layouts = st.builds(Layout, st.integers(20, 200), st.integers(7, 150), st.booleans())
shares = st.sampled_from([0.0, 0.05, 0.5, 1.0])


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    stays=shares,
    comes=shares,
    answers=shares,
    weights=shares,
    lies=st.tuples(layouts, layouts),
    rows=st.integers(30, 300),
)
def test_what_is_kept_and_what_is_scored_are_a_full_rescore(
    survey: Survey,
    seed: int,
    stays: float,
    comes: float,
    answers: float,
    weights: float,
    lies: tuple[Layout, Layout],
    rows: int,
) -> None:
    random = np.random.default_rng(seed)
    some = survey.people.filter(pa.array(random.random(len(survey.people)) < 0.25))
    there = random.random(len(some)) < 0.6
    now = change(some, random, answers, weights)
    now = now.filter(pa.array(np.where(there, random.random(len(some)) < stays, random.random(len(some)) < comes)))
    then = some.filter(pa.array(there))
    nights = (then, now)
    with TemporaryDirectory() as name:
        folder = Path(name)
        features = [
            layout.write(people, folder / part) for layout, people, part in zip(lies, nights, "ab", strict=True)
        ]
        profiles, _ = score_items(survey, deal(features[0], folder / "then", rows + 50))
        whole, nobody = score_items(survey, deal(features[1], folder / "whole", rows))
        found, kept = score_items(survey, place_items(deal(features[1], folder / "now", rows), features[0], profiles))
        assert [file.read_bytes() for file in found] == [file.read_bytes() for file in whole]
        scored = pa.concat_tables([pq.ParquetFile(file).read() for file in found])
        assert sorted(scored[PERSON].to_pylist()) == now[PERSON].to_pylist()
    before = {row[PERSON]: row for row in then.select([PERSON, *survey.scorer.model.spec.columns]).to_pylist()}
    same = [
        before.get(row[PERSON]) == row for row in now.select([PERSON, *survey.scorer.model.spec.columns]).to_pylist()
    ]
    assert (kept, nobody) == (sum(same), 0)


def test_people_in_another_order_are_not_looked_for(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.random.default_rng(1).permutation(len(survey.people))
    features = Layout(500, 100, False).write(survey.people.take(pa.array(order)), tmp_path / "features")
    profiles, _ = score_items(survey, deal(features, tmp_path / "profiles", 700))
    again = place_items(deal(features, tmp_path / "again", 5_000), features, profiles[::-1])
    found, kept = score_items(survey, again)
    assert kept == 0, "profiles that do not lie as their people do"
    assert pq.ParquetFile(found[0]).read() == pa.concat_tables([pq.ParquetFile(file).read() for file in profiles])
    monkeypatch.setattr(keeping, "MOST_ROWS", 1_000)
    with pytest.raises(NothingKept, match="people in another order"):
        place_items(deal(features, tmp_path / "now", 700), features, profiles)


def deliver_again(folder: Path) -> Path:
    """The first night's people a day later: 14 answer anew, 5 have left, 3 are new, and all have other weights."""
    rows = simulate_rows(1, SECOND)
    mood, weight = COLUMNS.index("mood_1"), COLUMNS.index("weight")
    for row in rows[300:314]:
        row[mood] = (max(row[mood], 0) + 1) % 4
    for row in rows:
        row[weight] = round(row[weight] * 1.1, 3)
    new = [[f"N{number}", *row[1:]] for number, row in enumerate(rows[500:503])]
    return write_extract(folder, [*rows[:400], *rows[405:], *new])


def test_a_night_in_which_little_changed(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    folder = copy_lake(tmp_path)
    lake, (book, digest) = Lake(folder), read_codebook(str(small_night.book))
    named = ["--lake", folder, "--run-date", SECOND, "--codebook", small_night.book]
    for stage in ("validate", "preprocess", "train", "score"):
        ended = commands(stage, *named, "--extract", deliver_again(tmp_path / "again"))
        assert ended.code == 0, ended.said
    night = lake.current_night(date.fromisoformat(SECOND))
    made = night.read("score")
    assert made.counts == {"profiles": 1_408, "kept": 1_391, "scored": 17} and made.details["rescored"] is None
    assert '"kept": 1391, "scored": 17' in ended.said

    assert commands("score", *named, "--rescore").code == 0
    whole = night.read("score")
    assert whole.counts == {"profiles": 1_408, "kept": 0, "scored": 1_408}
    assert whole.details["rescored"] == "it was asked for"
    assert whole.tables == made.tables, "names and sha256 of the files"

    job = Job(lake, night, book, digest)
    items = deal_work(night.paths("preprocess", "features"), tmp_path, 500_000)
    made_with = whole.details["made_with"]
    assert [item.earlier is None for item in find_kept(job, items, made_with)] == [False]
    for name in ("codebook", "pseudonym key", "model", "code", "numbers", "device"):
        with pytest.raises(NothingKept, match=f"another {name} since the night of {FIRST}"):
            find_kept(job, items, {**made_with, name: "another"})
    with pytest.raises(NothingKept, match="no earlier night is published"):
        find_kept(replace(job, night=Night(lake, date.fromisoformat(FIRST), 1)), items, made_with)
    [file] = read_manifest(folder, FIRST)["stages"]["score"]["tables"]["profiles"]
    path = folder / file["path"]
    content = path.read_bytes()
    path.write_bytes(content[:5_000] + bytes([content[5_000] ^ 1]) + content[5_001:])
    with pytest.raises(NothingKept, match=r"profiles/.* is missing or damaged"):
        find_kept(job, items, made_with)
    path.unlink()
    with pytest.raises(NothingKept, match=r"profiles/.* is missing or damaged"):
        find_kept(job, items, made_with)
