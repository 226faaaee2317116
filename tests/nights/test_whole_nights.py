"""Whole nights by the real commands: NHANES against R's figures, and what one night owes to the next."""

import json
import math
import os
import socket
import stat
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.endings import read_manifest, read_view
from jobs.cli import main
from jobs.labels import WITHHELD
from jobs.lake import Lake
from model.arithmetic import multiplies_bfloat16
from tests.jobs.nhanes import BREAKDOWNS, DATA, needs_nhanes, read_reference
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import (
    FIRST,
    SECOND,
    STAGES,
    THIRD,
    CommandLine,
    Ended,
    run,
    simulate_rows,
    write_extract,
)

NHANES_NIGHT = "2020-03-01"
OUTCOMES = {"phq9": "phq9_total", "phq9_ge10": "phq9_ge10"}
NINE_DIGITS = 1e-9


# ---- NHANES


@pytest.fixture(scope="module")
def nhanes_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("nhanes") / "lake"
    where = ["--lake", lake, "--run-date", NHANES_NIGHT, "--codebook", "nhanes_2017_2018"]
    ended = run("run", *where, "--extract", DATA, MINDCENSUS_DRIVER_MEMORY="2g")
    assert ended.code == 0, ended.said
    return lake


def read_estimates(lake: Path, zone: str, table: str) -> list[dict[str, Any]]:
    with duckdb.connect(str(lake / zone / "catalog.duckdb"), read_only=True) as connection:
        found = connection.execute(f"FROM {table}_latest")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def find_estimate(rows: list[dict[str, Any]], cohorts: tuple[str, ...], levels: list[str], outcome: str) -> Any:
    breakdown = "*".join(cohorts) or "all"
    cell = dict(zip(cohorts, levels, strict=True))
    (row,) = (
        row
        for row in rows
        if row["breakdown"] == breakdown
        and row["outcome"] == outcome
        and row["kind"] in ("mean", "proportion")
        and all(row[cohort] == level for cohort, level in cell.items())
    )
    return row


@needs_nhanes
def test_nhanes_population_figures(nhanes_lake: Path) -> None:
    rows = read_estimates(nhanes_lake, "restricted", "cohorts_internal")
    mean, share = (find_estimate(rows, (), [], outcome) for outcome in ("phq9_total", "phq9_ge10"))
    assert mean["n"] == share["n"] == 5_068
    assert mean["df"] == share["df"] == 15
    assert share["ci_method"] == "korn-graubard"
    assert [mean["estimate"], mean["se"]] == pytest.approx([3.158949314594, 0.077996226595], rel=NINE_DIGITS)
    assert [share["estimate"], share["se"]] == pytest.approx([0.085309635051, 0.005182403593], rel=NINE_DIGITS)
    assert [share["ci_low"], share["ci_high"]] == pytest.approx([0.074562, 0.097057], abs=5e-7)


@needs_nhanes
def test_nhanes_domains_of_adults(nhanes_lake: Path) -> None:
    rows = read_estimates(nhanes_lake, "restricted", "cohorts_internal")
    compared = 0
    for theirs in read_reference().to_dict("records"):
        if theirs["domain_vars"] == "all_adults_20plus" or theirs["outcome"] not in OUTCOMES:
            continue
        cohorts = BREAKDOWNS[theirs["domain_vars"]]
        levels = theirs["domain_levels"].split(":") if cohorts else []
        ours = find_estimate(rows, cohorts, levels, OUTCOMES[theirs["outcome"]])
        assert (ours["n"], ours["df"]) == (theirs["n"], theirs["df"]), levels
        figures = [ours["n_weighted"], ours["estimate"], ours["se"]]
        assert figures == pytest.approx([theirs["weighted_n"], theirs["estimate"], theirs["se"]], rel=NINE_DIGITS)
        if theirs["kind"] == "proportion":
            limits = [theirs["ci_kg_nchs_low"], theirs["ci_kg_nchs_high"]]
            assert [ours["ci_low"], ours["ci_high"]] == pytest.approx(limits, rel=NINE_DIGITS)
        compared += 1
    assert compared == 58


# Of R: svyby of svymean on svystandardize(design, ~age_band, ~race, population = the codebook's shares).
STANDARDISED = {
    ("phq9_total", None): (3.17216724683472, 0.0791455338413084),
    ("phq9_ge10", None): (0.0859719971851138, 0.00517765337006453),
    ("phq9_ge10", "male"): (0.0693460581545956, 0.0057860097629605),
    ("phq9_ge10", "female"): (0.102218651844366, 0.00961179156215459),
    ("phq9_total", "nh_asian"): (2.13199476888044, 0.154865102320129),
    ("phq9_ge10", "nh_asian"): (0.0444055984443835, 0.00570372778541249),
    ("phq9_ge10", "other_multi"): (0.161904682012013, 0.0224966890099186),
}


@needs_nhanes
def test_nhanes_rates_standardised_by_age(nhanes_lake: Path) -> None:
    rows = read_estimates(nhanes_lake, "restricted", "cohorts_internal")
    standardised = [row for row in rows if row["kind"] == "standardised"]
    assert {row["breakdown"] for row in standardised} == {"all", "sex", "race", "educ", "pir_band"}
    named = [row for row in standardised if row["breakdown"] in ("all", "sex", "race")]
    found = {(row["outcome"], row["sex"] or row["race"]): row for row in named}
    for key, figures in STANDARDISED.items():
        assert (found[key]["estimate"], found[key]["se"]) == pytest.approx(figures, rel=NINE_DIGITS), key
    # Sums by race and age are no breakdown of the codebook: they are in no table.
    for zone, table in (("restricted", "cohorts_internal"), ("public", "cohorts"), ("restricted", "cohort_sums")):
        breakdowns = {row["breakdown"] for row in read_estimates(nhanes_lake, zone, table)}
        assert breakdowns == {"all", "sex", "age_band", "sex*age_band", "race", "educ", "pir_band"}
    public = [row for row in read_estimates(nhanes_lake, "public", "cohorts") if row["kind"] == "standardised"]
    assert len(public) == len(standardised)
    shown = {
        (row["outcome"], row["sex"]) for row in public if row["breakdown"] == "sex" and row["estimate"] is not None
    }
    assert shown == {(outcome, sex) for outcome in OUTCOMES.values() for sex in ("male", "female")}


@needs_nhanes
def test_nhanes_rows_add_up(nhanes_lake: Path) -> None:
    rows = read_manifest(nhanes_lake, NHANES_NIGHT)["rows"]
    assert rows == {
        "delivered": 9_254,
        "features": 5_533,
        "quarantined": 0,
        "withdrawn": 0,
        "duplicates": 0,
        "ineligible": 3_721,
        "profiles": 5_533,
    }


@needs_nhanes
def test_nhanes_public_figures_are_rounded(nhanes_lake: Path) -> None:
    check_public_figures(read_estimates(nhanes_lake, "public", "cohorts"))


@needs_nhanes
def test_nhanes_has_all_a_reader_needs(nhanes_lake: Path) -> None:
    check_readers(nhanes_lake, NHANES_NIGHT)
    check_modes(nhanes_lake)


# ---- What holds for every published lake


def check_public_figures(rows: list[dict[str, Any]]) -> None:
    assert rows
    for row in rows:
        assert row["deff"] is None
        assert "n_cases" not in row
        if row["n"] is not None:
            assert row["n"] % 5 == 0
        if row["n_weighted"]:
            assert row["n_weighted"] == pytest.approx(round_digits(row["n_weighted"], 3), rel=1e-12)
        decimals = 2 if row["kind"] in ("mean", "quantile") else 3
        for name in ("estimate", "ci_low", "ci_high"):
            if row[name] is not None and row["kind"] in ("total", "ratio"):
                assert row[name] == pytest.approx(round_digits(row[name], 3), rel=1e-12)
            elif row[name] is not None:
                assert row[name] == pytest.approx(round(row[name], decimals), abs=1e-12), name
        if row["se"]:
            assert row["se"] == pytest.approx(round_digits(row["se"], 2), rel=1e-9)
        if row["disclosure"] != "shown":
            assert (row["estimate"], row["disclosure"], row["reason"]) == (None, "suppressed", WITHHELD)


def round_digits(value: float, digits: int) -> float:
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def check_readers(lake: Path, run_date: str) -> None:
    """The catalogs answer for every table, and report, dictionary and public manifest are there."""
    tables = {
        "public": ("cohorts", "quality", "distributions"),
        "restricted": ("accepted", "design", "features", "profiles", "cohorts_internal"),
    }
    for zone, names in tables.items():
        for name in names:
            assert len(read_view(lake, zone, name)) >= len(read_view(lake, zone, f"{name}_latest")) > 0, name
        assert [str(night[0]) for night in read_view(lake, zone, "nights")][-1] == run_date
    assert read_view(lake, "restricted", "quarantine_latest") is not None
    manifest = read_manifest(lake, run_date)
    report = lake / manifest["stages"]["report"]["details"]["report"]
    assert report.read_bytes() == (lake / "public" / "reports" / "latest.html").read_bytes()
    assert report.read_text().rstrip().endswith("</html>")
    for name in (
        "data_dictionary.csv",
        "data_dictionary.html",
        f"runs/run_date={run_date}/{manifest['token']:08d}.json",
    ):
        assert (lake / "public" / name).stat().st_size > 0, name
    for record in manifest["stages"].values():
        for file in (file for files in record["tables"].values() for file in files):
            assert pq.read_metadata(lake / file["path"]).num_rows == file["rows"]


def check_modes(lake: Path) -> None:
    assert stat.S_IMODE((lake / "restricted").stat().st_mode) == 0o700
    for path in (lake / "restricted").rglob("*"):
        assert not path.stat().st_mode & 0o077, f"{path} is open to others"
    for path in (lake / "public", *(lake / "public").rglob("*")):
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, f"{path} is shut to readers"


# ---- Small nights


def run_night(commands: CommandLine, night: SmallNight, lake: Path, day: str, *more: object) -> Ended:
    return commands("run", "--lake", lake, "--run-date", day, "--codebook", night.book, *more)


def run_stage(commands: CommandLine, night: SmallNight, lake: Path, day: str, stage: str, *more: object) -> Ended:
    return commands(stage, "--lake", lake, "--run-date", day, "--codebook", night.book, *more)


def read_people(lake: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that a night says of people and cohorts."""
    views = {
        "restricted": ["features", "profiles", "cohorts_internal"],
        "public": ["cohorts", "quality", "distributions"],
    }
    return {view: read_view(lake, zone, view) for zone, names in views.items() for view in names}


def list_lake(lake: Path) -> dict[str, tuple[int, int]]:
    """Inode and size of every data file, manifest and report: what no later run may touch."""
    kept, remade = (".parquet", ".json", ".html"), ("latest", "dictionary", "promotions.json", "nights.html")
    passing = ("public/runs", "restricted/attempts", "restricted/leases")
    chosen = [path for path in lake.rglob("*") if path.suffix in kept and not any(name in path.name for name in remade)]
    return {
        str(path.relative_to(lake)): (path.stat().st_ino, path.stat().st_size)
        for path in chosen
        if not str(path.relative_to(lake)).startswith(passing)
    }


def test_a_small_night_has_all_a_reader_needs(small_night: SmallNight) -> None:
    check_readers(small_night.lake, FIRST)
    check_modes(small_night.lake)
    check_public_figures(read_estimates(small_night.lake, "public", "cohorts"))
    hidden = [row for row in read_estimates(small_night.lake, "public", "cohorts") if row["disclosure"] != "shown"]
    assert len(read_view(small_night.lake, "restricted", "suppressions_latest")) == len(hidden)
    series = read_manifest(small_night.lake, FIRST)["model"]["series"]
    for row in read_estimates(small_night.lake, "restricted", "cohorts_internal"):
        assert row["model_series"] == (series if row["outcome"].endswith("_mean") else None)
    assert list((small_night.lake / "restricted" / "staging").iterdir()) == []
    assert list((small_night.lake / "restricted" / "spark").iterdir()) == []


def test_a_small_nights_traits_are_told_with_what_is_not_known_of_them(small_night: SmallNight) -> None:
    rows = read_estimates(small_night.lake, "restricted", "cohorts_internal")
    traits = [row for row in rows if row["outcome"] == "distress_mean"]
    everybody = find_estimate(rows, (), [], "distress_mean")
    assert (everybody["n"], everybody["ci_method"]) == (1_410, "t")
    assert abs(everybody["estimate"]) < 0.2 and 0.02 < everybody["se"] < 0.1
    assert 1 <= everybody["df"] <= 8 and len(traits) == 14
    shares = read_estimates(small_night.lake, "public", "distributions")
    assert {row["breakdown"] for row in shares} == {"all", "sex", "age_band", "region"}
    for key in {(row["breakdown"], row["sex"], row["age_band"], row["region"], row["outcome"]) for row in shares}:
        cell = [r for r in shares if (r["breakdown"], r["sex"], r["age_band"], r["region"], r["outcome"]) == key]
        assert len(cell) == 14 and sum(row["share"] for row in cell) == pytest.approx(1, abs=0.05)
        assert [row["bin_low"] for row in cell].count(None) == [row["bin_high"] for row in cell].count(None) == 1
    told = read_manifest(small_night.lake, FIRST)["stages"]["aggregate"]["details"]["plausible_values"]
    assert told["values"] == 20 and told["effective_draws"]["share_under_2"] < 0.01


def test_where_the_rows_went(small_night: SmallNight) -> None:
    manifest = read_manifest(small_night.lake, FIRST)
    expected = {"delivered": 1_520, "features": 1_410, "quarantined": 30, "withdrawn": 0, "duplicates": 20}
    assert manifest["rows"] == {**expected, "ineligible": 60, "profiles": 1_410}
    rules = {"mood_1_values": 10, "weight_positive": 10, "region_values": 10}
    assert manifest["stages"]["validate"]["details"]["failed_rules"] == rules
    delivered = (small_night.extract / "people.csv").stat().st_size
    assert [(f["name"], f["size"]) for f in manifest["stages"]["validate"]["details"]["files"]] == [
        ("people.csv", delivered)
    ]


def test_publishing_again_is_harmless(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    lake = copy_lake(tmp_path)
    files, people = list_lake(lake), read_people(lake)
    for _ in range(2):
        assert run_stage(commands, small_night, lake, FIRST, "publish").code == 0
    assert (list_lake(lake), read_people(lake)) == (files, people)
    assert people == read_people(small_night.lake)


def test_the_same_night_twice_gives_the_same_rows(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    """A re-delivery of the same extract, and a replay of the published night once its landing file has gone."""
    lake = copy_lake(tmp_path)
    before, old = read_people(lake), list_lake(lake)
    assert run_night(commands, small_night, lake, FIRST, "--extract", small_night.extract).code == 0
    manifest = read_manifest(lake, FIRST)
    assert manifest["token"] == 2
    assert read_people(lake) == before
    # The codebook's file may have gone as the landing file has: the lake keeps it.
    kept = lake / "restricted" / "codebooks" / f"{manifest['codebook']['sha256']}.yaml"
    ended = commands("run", "--lake", lake, "--run-date", FIRST, "--codebook", kept)
    assert ended.code == 0, ended.said
    manifest = read_manifest(lake, FIRST)
    assert manifest["token"] == 3
    assert manifest["rows"] == read_manifest(small_night.lake, FIRST)["rows"]
    assert read_people(lake) == before
    # Superseded nights stay as they were.
    assert old.items() <= list_lake(lake).items()
    assert list((lake / "restricted" / "staging").iterdir()) == []


def test_a_corrected_delivery_supersedes_the_night(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    lake = copy_lake(tmp_path)
    before = read_people(lake)
    corrected = write_extract(tmp_path / "corrected", simulate_rows(1, FIRST)[:-120])
    ended = run_night(commands, small_night, lake, FIRST, "--extract", corrected)
    assert ended.code == 0, ended.said
    manifest, after = read_manifest(lake, FIRST), read_people(lake)
    assert (manifest["token"], manifest["rows"]["delivered"], manifest["rows"]["duplicates"]) == (2, 1_400, 0)
    assert len(after["profiles"]) == manifest["rows"]["profiles"] == len(before["profiles"]) - 100
    assert len(read_view(lake, "public", "nights")) == 1
    # The correction of a night is scored by the model in force on its date.
    assert manifest["model"]["model_version"] == read_manifest(small_night.lake, FIRST)["model"]["model_version"]


def test_one_stage_run_again_on_a_published_night(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    lake = copy_lake(tmp_path)
    before = read_people(lake)
    assert run_stage(commands, small_night, lake, FIRST, "score").code == 0
    assert read_people(lake) == before
    # What was made of the old profiles is stale, and is told as such.
    ended = run_stage(commands, small_night, lake, FIRST, "publish")
    sentence = "score has run again since aggregate: run `mindcensus aggregate` and what follows it"
    check_sentence(ended, "publish", sentence, 1)
    assert read_people(lake) == before
    for stage in STAGES[STAGES.index("aggregate") :]:
        ended = run_stage(commands, small_night, lake, FIRST, stage)
        assert ended.code == 0, ended.said
    assert read_people(lake) == before
    assert read_manifest(lake, FIRST)["token"] == 2


def test_profiles_in_other_numbers_move_no_figure(small_night: SmallNight, copy_lake: Copy, tmp_path: Path) -> None:
    """Traits' figures are made of plausible values, in float32 whatever profiles are made in."""
    lake = copy_lake(tmp_path)
    profiles, figures = read_traits(lake), read_estimates(lake, "restricted", "cohorts_internal")
    commands = CommandLine(MINDCENSUS_NUMBERS="float32" if multiplies_bfloat16() else "bfloat16")
    try:
        for stage in STAGES[STAGES.index("score") :]:
            ended = run_stage(commands, small_night, lake, FIRST, stage)
            assert ended.code == 0, ended.said
    finally:
        commands.close()
    moved = read_traits(lake)
    assert not np.array_equal(moved, profiles)
    assert all(np.corrcoef(one, other)[0, 1] > 0.9999 for one, other in zip(profiles, moved, strict=True))
    assert read_estimates(lake, "restricted", "cohorts_internal") == figures
    assert {figure["kind"] for figure in figures} >= {"mean", "proportion", "quantile", "ratio"}


def read_traits(lake: Path) -> Any:
    """Means (traits, people) of the latest profiles, in the order of the people."""
    with duckdb.connect(str(lake / "restricted" / "catalog.duckdb"), read_only=True) as connection:
        query = "SELECT distress_mean, sleeplessness_mean FROM profiles_latest ORDER BY person_id"
        return np.stack(list(connection.execute(query).fetchnumpy().values()))


def check_sentence(ended: Ended, stage: str, sentence: str, code: int) -> None:
    """The stage ends in one sentence for people, and without a traceback."""
    assert ended.code == code, ended.said
    assert ended.said.splitlines()[-1] == f"mindcensus {stage}: {sentence}"
    assert "Traceback" not in ended.said


def test_stages_out_of_order(small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path) -> None:
    lake = copy_lake(tmp_path)
    before = read_people(lake)
    for stage in STAGES[1:]:
        ended = run_stage(commands, small_night, lake, SECOND, stage)
        check_sentence(ended, stage, f"no night of {SECOND} is in the making: run `mindcensus validate` first", 1)
    extract = write_extract(tmp_path / SECOND, simulate_rows(2, SECOND))
    assert run_stage(commands, small_night, lake, SECOND, "validate", "--extract", extract).code == 0
    expected = {"train": "preprocess", "score": "train", "aggregate": "score", "report": "aggregate"}
    for stage, missing in {**expected, "publish": "preprocess"}.items():
        ended = run_stage(commands, small_night, lake, SECOND, stage)
        assert ended.code == 1, stage
        said = ended.said.splitlines()[-1]
        assert f"has not run for {SECOND}: run `mindcensus " in said, (missing, ended.said)
        assert "Traceback" not in ended.said
    assert read_people(lake) == before


def test_another_codebook_in_the_middle_of_a_night(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    lake = copy_lake(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text(small_night.book.read_text().replace("version: 1", "version: 2"))
    ended = commands("score", "--lake", lake, "--run-date", FIRST, "--codebook", other)
    kept = read_manifest(lake, FIRST)["codebook"]["sha256"]
    sentence = (
        f"the night of {FIRST} was validated by another codebook (pocket version 1): give that one "
        f"(restricted/codebooks/{kept}.yaml), or run `mindcensus validate` again"
    )
    check_sentence(ended, "score", sentence, 2)
    assert (lake / "restricted" / "codebooks" / f"{kept}.yaml").read_bytes() == small_night.book.read_bytes()
    ended = commands("run", "--lake", lake, "--run-date", FIRST, "--codebook", other)
    sentence = (
        f"the codebook has changed since {FIRST} was validated: name the extract, or replay by the codebook of then, "
        f"{lake}/restricted/codebooks/{kept}.yaml"
    )
    check_sentence(ended, "run", sentence, 3)
    assert list((lake / "restricted" / "staging").iterdir()) == []


def test_a_replay_of_a_night_that_never_was(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    lake = copy_lake(tmp_path)
    ended = run_night(commands, small_night, lake, SECOND)
    sentence = f"no extract is named, and no night of {SECOND} is published: name one by --extract"
    check_sentence(ended, "run", sentence, 3)


def test_the_following_nights(small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path) -> None:
    """The second night trains nothing; on the third, whose answers have drifted, a training is forced."""
    lake = copy_lake(tmp_path)
    first = read_manifest(lake, FIRST)
    models = sorted(path.name for path in (lake / "restricted" / "models").iterdir())
    check = run_stage(commands, small_night, lake, SECOND, "train", "--check")
    assert (check.code, check.said.splitlines()[0]) == (0, "kept")

    extract = write_extract(tmp_path / SECOND, simulate_rows(2, SECOND))
    ended = run_night(commands, small_night, lake, SECOND, "--extract", extract)
    assert ended.code == 0, ended.said
    second = read_manifest(lake, SECOND)
    assert second["model"]["model_version"] == first["model"]["model_version"]
    assert second["stages"]["train"]["details"]["promoted"] is False
    drift = second["stages"]["train"]["details"]["drift"]
    assert max(*drift["items"].values(), *drift["profiles"].values()) < drift["limit"]
    assert sorted(path.name for path in (lake / "restricted" / "models").iterdir()) == models
    assert second["stages"]["validate"]["details"]["warnings"] == []
    assert read_promotions(lake) == [(FIRST, first["model"]["model_version"])]

    extract = write_extract(tmp_path / THIRD, simulate_rows(3, THIRD, people=1_000, shift=1.0))
    ended = run_night(commands, small_night, lake, THIRD, "--extract", extract, "--force-retrain", "--profile")
    assert ended.code == 0, ended.said
    check_profiles(lake, THIRD)
    third = read_manifest(lake, THIRD)
    warned = {warning["rule"] for warning in third["stages"]["validate"]["details"]["warnings"]}
    assert {"row_count", "answer_shares"} <= warned
    made = {path.name for path in (lake / "restricted" / "models").iterdir()} - set(models)
    assert len(made) == 1
    drift = third["stages"]["train"]["details"]["drift"]
    assert drift["profiles"]["distress"] > drift["limit"] > drift["profiles"]["sleeplessness"]
    if third["model"]["promoted"]:
        assert {third["model"]["model_version"]} == made
        assert read_promotions(lake)[1:] == [(THIRD, third["model"]["model_version"])]
    else:
        assert {third["model"]["refused"]["model_version"]} == made
        assert read_promotions(lake) == [(FIRST, first["model"]["model_version"])]

    # Each night keeps its rows, under each date; `_latest` is the last alone.
    for table in ("profiles", "features"):
        counted = {str(night[0]): 0 for night in read_view(lake, "public", "nights")}
        for row in read_view(lake, "restricted", table):
            counted[str(row[-1])] += 1
        assert counted == {day: read_manifest(lake, day)["rows"]["profiles"] for day in (FIRST, SECOND, THIRD)}
        assert len(read_view(lake, "restricted", f"{table}_latest")) == third["rows"]["profiles"]
    check_readers(lake, THIRD)


def test_a_damaged_model_in_force_is_not_passed_over(
    small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path
) -> None:
    """A new series would start unnoticed, and every trend would end."""
    lake = copy_lake(tmp_path)
    version = read_manifest(lake, FIRST)["model"]["model_version"]
    weights = lake / "restricted" / "models" / version / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    ended = run_stage(commands, small_night, lake, SECOND, "train", "--check")
    assert ended.code == 1 and "Traceback" not in ended.said
    assert "the model in force cannot be read" in ended.said and "weights.safetensors is damaged" in ended.said
    assert "--force-retrain" in ended.said


def test_a_first_model_that_is_not_fit_for_use_stops_the_night(
    small_night: SmallNight,
    commands: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lake = tmp_path / "lake"
    named = ["--lake", str(lake), "--run-date", FIRST, "--codebook", str(small_night.book)]
    assert commands("validate", *named, "--extract", small_night.extract).code == 0
    assert commands("preprocess", *named).code == 0
    # No coverage is near enough.
    monkeypatch.setattr("model.gate.COVERAGE_TOLERANCE", -1.0)
    assert main(["train", *named]) == 1
    said = capsys.readouterr().err
    assert (
        "the first model of a series is not fit for use: its 90 % predictions cover" in said and "Traceback" not in said
    )
    assert len(list((lake / "restricted" / "models").glob("*/card.html"))) == 1
    assert not (lake / "restricted" / "models" / "promotions.json").exists()


def check_profiles(lake: Path, day: str) -> None:
    """Of every stage its time, and no word of a person."""
    [folder] = (lake / "restricted" / "profiling" / f"run_date={day}").iterdir()
    assert sorted(path.stem for path in folder.iterdir()) == sorted(STAGES)
    texts = {path.stem: path.read_text() for path in folder.iterdir()}
    assert all(text.startswith(f"# {stage}: ") and "| function |" in text for stage, text in texts.items())
    assert all("| stage | what |" in texts[stage] for stage in ("validate", "preprocess", "score"))
    people = {row[0] for row in read_view(lake, "restricted", "profiles_latest")}
    assert not any(person in text for person in people for text in texts.values())


def read_promotions(lake: Path) -> list[tuple[str, str]]:
    history = json.loads((lake / "restricted" / "models" / "promotions.json").read_text())
    return [(row["from_run_date"], row["model_version"]) for row in history]


def test_two_runs_at_once(small_night: SmallNight, copy_lake: Copy, commands: CommandLine, tmp_path: Path) -> None:
    lake = copy_lake(tmp_path)
    with Lake(lake).hold():
        ended = run_night(commands, small_night, lake, FIRST, "--extract", small_night.extract)
    assert ended.code == 5, ended.said
    where = f"process {os.getpid()} on {socket.gethostname()}"
    assert f"mindcensus run: another run holds the lake {lake} ({where}, since" in ended.said.splitlines()[-1]
