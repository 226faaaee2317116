"""Weights on their way through a night: lost people are stood for, and known margins are met."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.endings import read_manifest
from jobs.design import read_sampled
from tests.nights.conftest import SmallNight
from tests.nights.small_night import (
    CODEBOOK,
    COLUMNS,
    FIRST,
    CommandLine,
    Ended,
    simulate_rows,
    write_codebook,
    write_extract,
)

REPLICATES = "replicates: {method: bootstrap, columns: [rep01-rep02]}"
MARGINS = """
margins:
  counts:
    sex: {{men: 200000, women: {women}}}
    age_band: {{"18-39": 150000, "40-64": 150000, "65+": 150000}}
  bounds: [{low}, {high}]
"""


def test_totals_stand_for_everybody_who_was_eligible(small_night: SmallNight) -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in simulate_rows(1, FIRST)]
    adults = [row for row in {row["respondent"]: row for row in rows}.values() if row["age"] >= 18]
    kept = [r for r in adults if r["mood_1"] != 8 and r["weight"] > 0 and r["region"] != "atlantis"]
    expected = 0.0
    for stratum in {row["stratum"] for row in adults}:
        everybody = [row["weight"] for row in adults if row["stratum"] == stratum and row["weight"] > 0]
        broken = sum(row["stratum"] == stratum and row["weight"] <= 0 for row in adults)
        expected += sum(everybody) + broken * np.mean([row["weight"] for row in kept if row["stratum"] == stratum])
    weights = read_features(small_night.lake, "weight")
    assert weights.sum() == pytest.approx(expected, rel=1e-12)
    told = read_manifest(small_night.lake, FIRST)["stages"]["preprocess"]["details"]["nonresponse"]
    assert (told["classes"], told["lost_people"], told["lost_people_without_class"]) == (4, 30, 0)
    assert 1 <= told["least_factor"] < told["largest_factor"] < 1.1


def test_response_is_public_and_rounded(small_night: SmallNight) -> None:
    with duckdb.connect(str(small_night.lake / "public" / "catalog.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT stage, reason, rows, rate, rate_weighted FROM quality WHERE stage IN ('response', 'answered')"
        ).fetchall()
    found = {(stage, reason): figures for stage, reason, *figures in rows}
    rows_kept, rate, weighted = found["response", None]
    assert (rows_kept, rate) == (1_410, round(1_410 / 1_440, 3))
    assert weighted == pytest.approx(rate, abs=0.01)
    totals = {
        scale: int(np.isfinite(read_features(small_night.lake, f"{scale}_total")).sum()) for scale in ("mood", "sleep")
    }
    for scale, people in totals.items():
        rounded = 5 * round(people / 5)
        assert found["answered", scale] == [rounded, round(rounded / 1_410, 3), None]


def test_weights_meet_the_margins(tmp_path: Path, commands: CommandLine) -> None:
    ended = prepare(tmp_path, commands, MARGINS.format(women=250_000, low=0.3, high=4))
    assert ended.code == 0, ended.said
    night = next((tmp_path / "lake" / "restricted" / "features").rglob("*.parquet")).parent
    table = pq.read_table(night, columns=["weight", "sex", "age_band"]).to_pandas()
    assert table.groupby("sex")["weight"].sum().to_dict() == pytest.approx({"men": 2e5, "women": 2.5e5}, rel=1e-8)
    assert table.groupby("age_band")["weight"].sum().to_numpy() == pytest.approx([1.5e5] * 3, rel=1e-8)


@pytest.mark.parametrize(
    ("women", "low", "high", "message"),
    [
        (250_000, 0.99, 1.01, "the margins cannot be met with factors of 0.99 to 1.01: "),
        pytest.param(
            *(450_000, 0.3, 4, "the margins of sex and age_band are of 650,000 and 450,000 people"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_margins_that_cannot_be_met_end_the_night(
    tmp_path: Path, commands: CommandLine, women: int, low: float, high: float, message: str
) -> None:
    ended = prepare(tmp_path, commands, MARGINS.format(women=women, low=low, high=high))
    assert ended.code == 3
    assert message in ended.said
    assert "Traceback" not in ended.said


@pytest.mark.parametrize(("odd", "message"), [(None, None), (41, "column income: stratum s0 has both ")])
def test_the_population_of_psus_lies_in_the_design(
    tmp_path: Path, commands: CommandLine, odd: int | None, message: str | None
) -> None:
    rows = simulate_rows(1, FIRST)
    for row in rows:
        row[COLUMNS.index("income")] = 40 + int(row[COLUMNS.index("stratum")][1:])
    if odd is not None:
        next(row for row in rows if row[COLUMNS.index("stratum")] == "s0")[COLUMNS.index("income")] = odd
    content = CODEBOOK.replace("nest: true", "fpc: income, nest: true").replace("key: income", "key: wealth")
    named = ["--lake", tmp_path / "lake", "--run-date", FIRST, "--codebook", write_codebook(tmp_path, content)]
    ended = commands("validate", *named, "--extract", write_extract(tmp_path / FIRST, rows))
    if message:
        assert (ended.code, message in ended.said) == (3, True), ended.said
        return
    assert ended.code == 0, ended.said
    design = list((tmp_path / "lake" / "restricted" / "design").rglob("*.parquet"))
    assert read_sampled(design) == {f"s{number}": 3 / (40 + number) for number in range(4)}


def prepare(folder: Path, commands: CommandLine, margins: str) -> Ended:
    book = write_codebook(folder, CODEBOOK + margins)
    extract = write_extract(folder / FIRST, simulate_rows(1, FIRST))
    named = ["--lake", folder / "lake", "--run-date", FIRST, "--codebook", book]
    validated = commands("validate", *named, "--extract", extract)
    assert validated.code == 0, validated.said
    return commands("preprocess", *named)


def test_replicates_alone_make_a_design_and_are_raked_one_by_one(tmp_path: Path, commands: CommandLine) -> None:
    draw, weight = np.random.default_rng(1), COLUMNS.index("weight")
    rows = [[*row, *(row[weight] * draw.uniform(0.5, 1.5, 2)).round(6)] for row in simulate_rows(1, FIRST)]
    lines = [",".join(map(str, row)) for row in [[*COLUMNS, "rep01", "rep02"], *rows]]
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    content = CODEBOOK.replace("stratum: stratum, psu: psu, nest: true", REPLICATES)
    book = write_codebook(tmp_path, content + MARGINS.format(women=250_000, low=0.3, high=4))
    options = ["--lake", tmp_path / "lake", "--run-date", FIRST, "--codebook", book]
    for stage in (["validate", *options, "--extract", tmp_path / "people.csv"], ["preprocess", *options]):
        ended = commands(*stage)
        assert ended.code == 0, ended.said
    night = next((tmp_path / "lake" / "restricted" / "features").rglob("*.parquet")).parent
    table = pq.read_table(night, columns=["weight", "replicate_weights", "sex", "stratum", "psu"]).to_pandas()
    assert set(table["stratum"]) == set(table["psu"]) == {"all"}
    raked = np.column_stack([table["weight"], np.stack(table["replicate_weights"])])
    for sex, people in (("men", 2e5), ("women", 2.5e5)):
        assert raked[table["sex"] == sex].sum(axis=0) == pytest.approx([people] * 3, rel=1e-8)


def read_features(lake: Path, column: str) -> np.ndarray:
    files = read_manifest(lake, FIRST)["stages"]["preprocess"]["tables"]["features"]
    return np.concatenate([pq.read_table(lake / file["path"], columns=[column])[column].to_numpy() for file in files])


def test_replicate_weights_of_another_weight_end_the_night(tmp_path: Path, commands: CommandLine) -> None:
    draw = np.random.default_rng(1)
    rows = [[*row, *draw.uniform(0.5, 1.5, 2).round(6)] for row in simulate_rows(1, FIRST)]
    rows[300][-1] = -0.5
    lines = [",".join(map(str, row)) for row in [[*COLUMNS, "rep01", "rep02"], *rows]]
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    book = write_codebook(tmp_path, CODEBOOK.replace("nest: true", f"nest: true, {REPLICATES}"))
    options = ["--lake", tmp_path / "lake", "--run-date", FIRST, "--codebook", book]
    ended = commands("validate", *options, "--extract", tmp_path / "people.csv")
    assert ended.code == 3
    assert re.search(r"replicate weights add up to 1,\d{3} on average, the full weight to \d{3},\d{3}: ", ended.said)
    assert "Traceback" not in ended.said
