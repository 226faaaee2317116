"""A synthetic extract of the small night: drawn twice, read by its codebook, and refused where it must be."""

import csv
import json
from pathlib import Path

from jobs.lake import Lake
from tests.nights.conftest import SmallNight
from tests.nights.small_night import FIRST, CommandLine


def test_a_synthetic_extract_is_drawn_again_alike_and_read_by_its_codebook(
    small_night: SmallNight, commands: CommandLine, tmp_path: Path
):
    named = ["--lake", small_night.lake, "--run-date", FIRST, "--codebook", small_night.book, "--people", 400]
    for folder in ("first", "again"):
        ended = commands("synthesize", *named, "--seed", 7, "--out", tmp_path / folder)
        assert ended.code == 0, ended.said
    ended = commands("synthesize", *named, "--seed", 8, "--out", tmp_path / "other")
    assert ended.code == 0, ended.said
    first, again, other = (tmp_path / folder / "people.csv" for folder in ("first", "again", "other"))
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    told = json.loads((tmp_path / "first" / "manifest.json").read_text())
    assert (told["people"], told["seed"], told["run_date"]) == (400, 7, FIRST)

    with first.open() as file, (small_night.extract / "people.csv").open() as real_file:
        drawn, real = list(csv.DictReader(file)), list(csv.DictReader(real_file))
    assert list(drawn[0]) == list(real[0])
    assert not {row["weight"] for row in drawn} & {row["weight"] for row in real}
    assert {row["mood_1"] for row in drawn} == {"0", "1", "2", "3", "-9"}
    shares = [sum(row["mood_1"] == "-9" for row in rows) / len(rows) for rows in (drawn, real)]
    assert abs(shares[0] - shares[1]) < 0.03

    lake = tmp_path / "lake"
    read = ["--codebook", tmp_path / "first" / "codebook.yaml", "--extract", tmp_path / "first"]
    ended = commands("validate", "--lake", lake, "--run-date", FIRST, *read)
    assert ended.code == 0, ended.said
    counts = Lake(lake).open_nights()[0].read("validate").counts
    assert (counts["accepted"], counts["quarantined"]) == (400, 0)


def test_a_synthetic_extract_is_refused_where_it_cannot_be(
    small_night: SmallNight, commands: CommandLine, tmp_path: Path
):
    named = ["--lake", small_night.lake, "--codebook", small_night.book, "--people", 400]
    inside = commands("synthesize", *named, "--run-date", FIRST, "--out", small_night.lake / "public" / "synthetic")
    assert inside.code == 2
    assert "name a folder outside" in inside.said
    there = commands("synthesize", *named, "--run-date", FIRST, "--out", tmp_path)
    assert there.code == 2
    assert "name a new folder" in there.said
    unpublished = commands("synthesize", *named, "--run-date", "2031-01-01", "--out", tmp_path / "new")
    assert unpublished.code == 1
    assert "no night of 2031-01-01 is published" in unpublished.said
    assert not (tmp_path / "new").exists()
