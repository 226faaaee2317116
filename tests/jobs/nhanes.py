"""NHANES 2017-2018 and R's figures for it: people with the reference table's domains and outcomes."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest

from benchmarks.nhanes_figures import DOMAINS as BREAKDOWNS

ROOT = Path(__file__).parents[2]
SHARED = (ROOT / os.environ.get("MINDCENSUS_SHARED", "../shared")).resolve()
DATA = SHARED / "data" / "nhanes_2017_2018"
REFERENCE = SHARED / "reference" / "nhanes_2017_2018_reference.csv"

needs_nhanes = pytest.mark.skipif(
    not (DATA / "DPQ_J.xpt").is_file() or not REFERENCE.is_file(),
    reason=f"NHANES files or R's figures are not in {SHARED}: set MINDCENSUS_SHARED to the folder that has them",
)

ITEMS = [f"DPQ0{i}0" for i in range(1, 10)]
RACES = {1: "mexican_american", 2: "other_hispanic", 3: "nh_white", 4: "nh_black", 6: "nh_asian", 7: "other_multi"}
EDUCATION = {1: "lt_9th", 2: "9_11th", 3: "hs_ged", 4: "some_college", 5: "college_plus"}


def read_people() -> pd.DataFrame:
    """One row for each of the 9,254 people; cohorts and outcomes are null outside adults 18+."""
    demo, _ = pyreadstat.read_xport(DATA / "DEMO_J.xpt")
    answers, _ = pyreadstat.read_xport(DATA / "DPQ_J.xpt")
    raw = demo.merge(answers, on="SEQN", how="left")
    items = raw[ITEMS].where(raw[ITEMS] <= 3)
    adult = raw["RIDAGEYR"] >= 18
    missing = items.isna().sum(axis=1)
    total = items.sum(axis=1).where(missing == 0)
    prorated = (items.mean(axis=1) * 9).where(missing <= 2)
    people = pd.DataFrame(
        {
            "weight": raw["WTMEC2YR"],
            "stratum": raw["SDMVSTRA"].astype(int).astype(str),
            "psu": raw["SDMVPSU"].astype(int).astype(str),
            "adult20": np.where(raw["RIDAGEYR"] >= 20, "all", None),
            "sex": raw["RIAGENDR"].map({1: "male", 2: "female"}),
            "age_band": pd.cut(
                raw["RIDAGEYR"], [18, 30, 45, 60, 200], right=False, labels=["18-29", "30-44", "45-59", "60+"]
            ).astype(object),
            "race": raw["RIDRETH3"].map(RACES),
            "educ": raw["DMDEDUC2"].map(EDUCATION),
            "pir_band": pd.cut(
                raw["INDFMPIR"], [0, 1.3, 3.5, 10], right=False, labels=["lt1.3", "1.3-3.5", "ge3.5"]
            ).astype(object),
            "phq9": total,
            "phq9_prorated": prorated,
            "phq9_ge10": (total >= 10).astype(float).where(total.notna()),
            "phq9_ge10_prorated": (prorated >= 10).astype(float).where(prorated.notna()),
            "dpq090_ge1": (items["DPQ090"] >= 1).astype(float).where(items["DPQ090"].notna()),
            **{item: items[item] for item in ITEMS},
        }
    )
    outcomes = people.columns[people.columns.get_loc("phq9") :]
    people[outcomes] = people[outcomes].where(adult)
    return people.astype(object).where(people.notna(), None).astype({"weight": float} | dict.fromkeys(outcomes, float))


def read_reference() -> pd.DataFrame:
    return pd.read_csv(REFERENCE, float_precision="round_trip")


def select_domain(people: pd.DataFrame, variables: str, levels: str) -> pd.DataFrame:
    """The people of one of the reference's domains."""
    chosen = np.ones(len(people), dtype=bool)
    for name, level in zip(BREAKDOWNS[variables], levels.split(":"), strict=False):
        chosen &= (people[name] == level).to_numpy()
    return people[chosen]
