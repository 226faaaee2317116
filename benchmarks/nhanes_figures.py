"""R's figures of NHANES 2017-2018, all of them: the codebook whose night estimates them, and the comparison."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import duckdb
import yaml

from expectations.codebook import find_codebook

SHIPPED = "nhanes_2017_2018"
NAME = "nhanes_2017_2018_every_figure"
RELATIVE = 1e-9
ITEMS = [f"dpq0{number}0" for number in range(1, 10)]
ADULTS_20 = {"key": "adult20", "column": "RIDAGEYR", "breaks": [20], "labels": ["all"], "label": "20 and over"}
# The reference's names of domains and outcomes, and the codebook's.
DOMAINS: dict[str, tuple[str, ...]] = {
    "all_adults_18plus": (),
    "all_adults_20plus": ("adult20",),
    "sex": ("sex",),
    "age_band": ("age_band",),
    "sex:age_band": ("sex", "age_band"),
    "race": ("race",),
    "educ": ("educ",),
    "pir_band": ("pir_band",),
}
OUTCOMES = {
    "phq9": "phq9_total",
    "phq9_ge10": "phq9_ge10",
    "phq9_prorated": "phq9_prorated_total",
    "phq9_ge10_prorated": "phq9_prorated_ge10",
    "dpq090_ge1": "dpq090_score_ge1",
    **{item.upper(): f"{item}_score_total" for item in ITEMS},
}
LIMITS = {"mean": ("ci_t_low", "ci_t_high"), "proportion": ("ci_kg_nchs_low", "ci_kg_nchs_high")}


def write_codebook(file: Path) -> Path:
    """The shipped codebook with what R was asked besides: prorated totals, single items, and people of 20 and over."""
    book = yaml.safe_load(find_codebook(SHIPPED).read_text())
    book["codebook"] = NAME
    [scale] = book["scales"]
    book["scales"].append({**scale, "key": "phq9_prorated", "label": "PHQ-9, prorated", "prorate_up_to": 2})
    book["scales"] += [
        {"key": f"{item}_score", "label": f"Item {item}", "items": [item], "cut": ">=1", "source": "the item itself"}
        for item in ITEMS
    ]
    book["cohorts"].append(ADULTS_20)
    book["breakdowns"].append(["adult20"])
    book["outcomes"] += [name for name in OUTCOMES.values() if name not in book["outcomes"]]
    file.write_text(json.dumps(book))
    return file


def count_figures(lake: Path, reference: Path) -> dict[str, int]:
    """R's rows, and how many of them have R's n and df, and to nine digits estimate, standard error and interval."""
    with duckdb.connect(str(lake / "restricted" / "catalog.duckdb"), read_only=True) as connection:
        found = connection.execute("FROM cohorts_internal_latest WHERE kind IN ('mean', 'proportion')")
        names = [column[0] for column in found.description]
        ours = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    with reference.open(newline="") as file:
        theirs = list(csv.DictReader(file))
    return {"compared": len(theirs), "same": sum(agrees(find_row(ours, row), row) for row in theirs)}


def find_row(ours: list[dict[str, Any]], theirs: dict[str, str]) -> dict[str, Any]:
    """Our row of R's. Raises ValueError where there is not exactly one."""
    cohorts, outcome = DOMAINS[theirs["domain_vars"]], OUTCOMES[theirs["outcome"]]
    levels = dict(zip(cohorts, theirs["domain_levels"].split(":"), strict=False))
    breakdown = "*".join(cohorts) or "all"
    (row,) = (
        row
        for row in ours
        if (row["breakdown"], row["outcome"]) == (breakdown, outcome)
        and all(row[cohort] == level for cohort, level in levels.items())
    )
    return row


def agrees(ours: dict[str, Any], theirs: dict[str, str]) -> bool:
    low, high = LIMITS[theirs["kind"]]
    pairs = {"estimate": "estimate", "se": "se", "n_weighted": "weighted_n", "ci_low": low, "ci_high": high}
    counts = ours["n"] == int(theirs["n"]) and ours["df"] == int(theirs["df"])
    return counts and all(math.isclose(ours[a], float(theirs[b]), rel_tol=RELATIVE) for a, b in pairs.items())
