"""Cells in which one or two people make up nearly all: found, and withheld with what would give them away."""

import numpy as np
import pandas as pd
import pytest

from expectations.outcomes import Outcome
from jobs.disclosure import NEIGHBOUR
from jobs.disclosure_profiles import PROFILES
from jobs.dominance import DOMINATED, find_dominated, mark_dominated
from jobs.following import protect_kinds
from jobs.survey import CohortRow, count_psus, estimate_domain
from tests.jobs.survey_helpers import sum_people

MEAN = Outcome("y", "mean", "y")
ACRO = PROFILES["acro"]

# weights and answers of the cell's people, and whether its total is theirs alone
CASES = """
    weights          answers          dominated
    1,1,1            5,4,1            no
    1,1,1            46,45,9          yes
    1,1,1            45,45,10         no
    100,1,1          9,5,5            yes
    100,1,1          0,5,5            yes
    1,1,1            0,0,0            no
    5,5,5,5          3,3,3,3          no
    1,1              3,3              yes
"""


def write(people, folder):
    people.to_parquet(folder / "people.parquet")
    return [folder / "people.parquet"]


@pytest.mark.parametrize("case", [line.split() for line in CASES.strip().splitlines()[1:]], ids=" ".join)
def test_the_two_largest_contributions(case, tmp_path):
    weights, answers = ([float(value) for value in column.split(",")] for column in case[:2])
    people = pd.DataFrame({"weight": [*weights, 0.0, 1.0], "y": [*answers, 99.0, np.nan], "sex": "men"})
    found = find_dominated(write(people, tmp_path), [(), ("sex",)], [MEAN], ACRO, tmp_path)
    assert found == ({((), (), "y"), (("sex",), ("men",), "y")} if case[2] == "yes" else set())


def test_a_dominated_mean_is_withheld_with_a_neighbour(tmp_path):
    draw, people = np.random.default_rng(5), 400
    frame = pd.DataFrame({
        "weight": draw.uniform(50, 150, people),
        "stratum": draw.choice(list("abcdef"), people),
        "region": draw.choice(["north", "east", "south"], people),
        "y": draw.integers(1, 9, people).astype(float),
    })  # fmt: skip
    frame = frame.assign(psu=frame["stratum"] + draw.choice(list("1234"), people))
    north = frame.index[frame["region"] == "north"]
    frame.loc[north, "y"] = 0.0
    frame.loc[north[:12], "y"] = [8.0, *[1.0] * 11]
    frame.loc[north[0], "weight"] = 3000.0  # nearly all of it is one person's
    sizes = count_psus(zip(frame["stratum"], frame["psu"], strict=True))
    cells = {(): frame} | {(region,): frame[frame["region"] == region] for region in ("north", "east", "south")}
    rows = [
        CohortRow(("region",)[: len(cell)], cell, "y", estimate_domain(sum_people(people, "y"), sizes, "mean"))
        for cell, people in cells.items()
    ]
    files = write(frame, tmp_path)

    def protect(profile):
        dominated = find_dominated(files, [(), ("region",)], [MEAN], PROFILES[profile], tmp_path)
        public = protect_kinds(mark_dominated(rows, dominated), [MEAN], {}, PROFILES[profile])
        return {row.cell: (row.disclosure, row.figures.reason) for row in public}

    fates = protect("acro")
    assert fates["north",] == ("suppressed", DOMINATED)
    assert ("complementary", NEIGHBOUR) in fates.values()
    assert {fate for fate, _ in protect("cms").values()} == {"shown"}
