"""Membership inference on NHANES: what models of the kind that a night trains give away of who they were trained on.

A night of NHANES 2017-2018 is run and asked for its model card's own measurement: see jobs/membership.py.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.environment import ROOT
from benchmarks.privacy_synthetic import BOOK, NIGHT, run_night
from jobs.explain import read_published
from jobs.lake import Lake
from jobs.membership import measure_membership
from model.registry import load_model

MOST_ADVANTAGE = 0.05  # of the upper limit


def measure_nhanes() -> dict[str, Any]:
    data = Path(os.environ.get("MINDCENSUS_SHARED", ROOT.parent / "shared")) / "data" / BOOK
    with TemporaryDirectory() as name:
        lake = Lake(Path(name) / "lake")
        run_night(lake.root, BOOK, data)
        night = read_published(lake, NIGHT)
        residuals = load_model(lake.root / night["model"]["folder"]).network.residuals
        found = measure_membership(lake, night)
    return {
        "membership_residuals": residuals,
        "membership_models": found.models,
        "membership_people": found.people,
        "membership_advantage": round(found.advantage, 4),
        "membership_advantage_upper95": round(found.advantage_upper95, 4),
        "membership_tpr_at_fpr1": round(found.tpr_at_fpr1, 4),
        "membership_tpr_at_fpr1_upper95": round(found.tpr_at_fpr1_upper95, 4),
        "membership_passed": found.advantage_upper95 <= MOST_ADVANTAGE,
    }
