"""Differentially private releases: what one person changes, what it costs, what the figures are worth, the ledger."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.codebook import Codebook, read_codebook
from expectations.errors import ContractBroken
from jobs.dp_ledger import exact, read_ledger, sum_ledger
from jobs.dp_noise import add_noise, measure_cost, plan_noise
from jobs.dp_rows import make_rows
from jobs.dp_sums import UNITS, CellSums, add_up, list_questions
from tests.nights.small_night import CODEBOOK

PRIVATE = {"epsilon": 1.0, "budget": 2.0, "weights": 4.0, "design_effect": 1.5}
LARGEST = PRIVATE["weights"]


def make_book(tmp_path: Path, **more: object) -> Codebook:
    file = tmp_path / "private.yaml"
    file.write_text(CODEBOOK + yaml.safe_dump({"disclosure": {"dp": PRIVATE | more}}))
    return read_codebook(str(file))[0]


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Codebook:
    return make_book(tmp_path_factory.mktemp("book"))


def write_people(file: Path, people: list[dict[str, object]]) -> list[Path]:
    names = {"weight": pa.float64(), "mood_total": pa.float32(), "sleep_total": pa.float32()}
    names |= dict.fromkeys(("sex", "age_band", "region"), pa.string())
    pq.write_table(pa.Table.from_pylist(people, pa.schema(names)), file)
    return [file]


def sum_people(folder: Path, book: Codebook, people: list[dict[str, object]]) -> list[CellSums]:
    questions = list_questions(book.parsed_outcomes())
    return add_up(write_people(folder / "people.parquet", people), book, questions, LARGEST, folder)


TOTALS = st.one_of(st.none(), st.integers(0, 18).map(lambda half: half / 2))
PEOPLE = st.fixed_dictionaries(
    {
        "weight": st.floats(0.01, 20, allow_nan=False),
        "mood_total": TOTALS,
        "sleep_total": st.one_of(st.none(), st.integers(0, 12).map(float)),
        "sex": st.sampled_from(["men", "women", None]),
        "age_band": st.sampled_from(["18-39", "40-64", "65+"]),
        "region": st.sampled_from(["North", "South", None]),
    }
)


@settings(max_examples=10, deadline=None)
@given(people=st.lists(PEOPLE, min_size=1, max_size=12))
def test_one_person_changes_one_cell_by_one_unit_of_each_part(book, tmp_path_factory, people):
    folder = tmp_path_factory.mktemp("sums")
    changes: dict[tuple[object, str], list[tuple[int, ...]]] = {}
    for one, other in zip(sum_people(folder, book, people), sum_people(folder, book, people[1:]), strict=True):
        moved = (
            abs(one.n - other.n) * UNITS,
            sum(abs(a - b) for a, b in zip(one.intervals, other.intervals, strict=True)),
            *(abs(a - b) for a, b in ((one.total, other.total), (one.square, other.square)) if a is not None),
        )
        changes.setdefault((one.breakdown, one.question.source), []).append(moved)
    for cells in changes.values():
        assert sum(any(moved) for moved in cells) <= 1
        assert max(max(moved) for moved in cells) <= UNITS


def test_all_cells_of_the_codebook_are_there_whoever_came(book, tmp_path):
    sums = sum_people(tmp_path, book, [])
    assert len(sums) == 2 * (1 + 2 + 3 + 2 + 6)
    assert {one.n for one in sums} == {0}


def test_the_parts_cost_what_the_codebook_says(book):
    plan = plan_noise(1.0, book.breakdowns, list_questions(book.parsed_outcomes()))
    assert measure_cost(plan) == pytest.approx(1.0, rel=1e-12)
    halved = {key: replace(noise, scales={k: v / 2 for k, v in noise.scales.items()}) for key, noise in plan.items()}
    assert measure_cost(halved) == pytest.approx(2.0, rel=1e-12)


def simulate(count: int) -> list[dict[str, object]]:
    random = np.random.default_rng(3)
    totals = random.binomial(9, 0.35, count).astype(float)
    missing = random.random(count) < 0.1
    return [
        {
            "weight": float(weight),
            "mood_total": None if gone else float(total),
            "sleep_total": None,
            "sex": "men",
            "age_band": "65+",
            "region": None,
        }
        for weight, total, gone in zip(random.uniform(0.5, 4, count), totals, missing, strict=True)
    ]


def test_figures_are_near_the_truth_by_the_error_that_they_tell(book, tmp_path):
    people = simulate(4_000)
    answered = [one for one in people if one["mood_total"] is not None]
    weights = np.array([one["weight"] for one in answered])
    totals = np.array([one["mood_total"] for one in answered])
    everybody = sum(one["weight"] for one in people)
    share = float(weights @ (totals >= 5) / weights.sum())
    truth = {("mood_total", "mean"): float(weights @ totals / weights.sum())}
    truth |= {("mood_ge5", "proportion"): share, ("mood_ge5", "total"): share * everybody}
    plan = plan_noise(1.0, book.breakdowns, list_questions(book.parsed_outcomes()))
    (sums,) = (
        one for one in sum_people(tmp_path, book, people) if not one.breakdown and one.question.source == "mood_total"
    )
    outcomes = [one for one in book.parsed_outcomes() if one.source == "mood_total" and one.kind != "quantile"]
    noise = plan[(), "mood_total"]
    drawn: dict[tuple[str, str], list[float]] = {}
    for _ in range(300):
        for row in make_rows(add_noise(sums, noise), noise, [o for o in outcomes if o.kind != "ratio"], LARGEST, 1.5):
            figures = row.figures
            assert figures.ci_low <= figures.estimate <= figures.ci_high and figures.noise_se <= figures.se
            drawn.setdefault((row.outcome, figures.kind), []).append((figures.estimate, figures.noise_se))
    assert drawn.keys() == truth.keys()
    for name, values in drawn.items():
        estimates, told = np.array(values).T
        assert abs(estimates.mean() - truth[name]) < 5 * estimates.std() / math.sqrt(300), name
        assert estimates.std() == pytest.approx(told.mean(), rel=0.15), name


def test_a_cell_that_drowns_in_noise_has_no_figure(book, tmp_path):
    plan = plan_noise(0.01, book.breakdowns, list_questions(book.parsed_outcomes()))
    outcome = next(one for one in book.parsed_outcomes() if one.name == "mood_total")
    for sums in sum_people(tmp_path, book, simulate(20)):
        if sums.question.source == "mood_total":
            noise = plan[sums.breakdown, "mood_total"]
            small = replace(sums, n=20)  # as if no noise had come to the sums
            (row,) = make_rows(small, noise, [outcome], LARGEST, 1.5)
            assert row.figures.estimate is None and "as large as the group" in row.figures.reason


def publish(run_date: str, tables: str, epsilon: str = "0.1", public: bool = True) -> dict[str, object]:
    aggregated = {"tables": {"cohorts": [{"sha256": tables}]}}
    release = {"public": public, "privacy": {"epsilon": epsilon, "delta": "0"}}
    return {"run_date": run_date, "release": release, "stages": {"aggregate": aggregated}}


def test_the_ledger_adds_up_exactly_and_counts_what_left_the_house_once():
    ten = [publish(f"2026-03-{day:02d}", str(day)) for day in range(1, 11)]
    spent, delta = sum_ledger(read_ledger(ten))
    assert (spent, delta) == (1, 0)  # ten times 0.1, which floating point does not make 1
    assert sum_ledger(read_ledger([*ten, ten[3], publish("2026-03-11", "x", public=False)]))[0] == 1
    assert sum_ledger(read_ledger([*ten, publish("2026-03-04", "corrected")]))[0] == 1 + exact(0.1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"budget": 0.5}, "`epsilon`, of each release, is above `budget`"),
        ({"epsilon": 0}, "greater than 0"),
        ({"weights": "mine"}, "weights"),
        ({"design_effect": 0.5}, "greater than or equal to 1"),
    ],
)
def test_a_codebook_whose_budget_makes_no_sense(tmp_path, more, said):
    with pytest.raises(ContractBroken, match=said):
        make_book(tmp_path, **more)


def train_on(run_date: str, version: str, refused: str | None = None) -> dict[str, object]:
    cost = {"epsilon": 0.3, "delta": 1e-6}
    details = {"model_version": version, "privacy": cost}
    if refused:
        details["refused"] = {"model_version": refused, "privacy": cost}
    return {**publish(run_date, run_date, public=False), "stages": {"train": {"details": details}}}


def test_the_ledger_counts_a_private_training_once_and_a_refused_model_too():
    nights = [train_on("2026-03-01", "a"), train_on("2026-03-02", "a"), train_on("2026-03-03", "a", refused="b")]
    assert sum_ledger(read_ledger(nights)) == (exact(0.6), exact(2e-6))
    assert sum_ledger(read_ledger([*nights, publish("2026-03-04", "x")]))[0] == exact(0.7)


def test_the_ledger_counts_a_training_that_no_night_tells_of():
    noted = [
        {"model_version": version, "run_date": "2026-03-01", "epsilon": "0.3", "delta": "1e-06"} for version in "ac"
    ]
    assert sum_ledger(read_ledger([], noted)) == (exact(0.6), exact(2e-6))
    assert sum_ledger(read_ledger([train_on("2026-03-01", "a")], noted)) == (exact(0.6), exact(2e-6))


@pytest.mark.parametrize(
    ("training", "disclosure", "said"),
    [
        ({}, {}, "`dp` needs `disclosure.dp`"),
        ({"epsilon": 1.5}, {"dp": PRIVATE}, "cost more than the budget"),
        ({"delta": 2e-5}, {"dp": PRIVATE}, "less than or equal to 0.00001"),
        ({"clip": 0}, {"dp": PRIVATE}, "greater than 0"),
    ],
)
def test_a_codebook_whose_private_training_makes_no_sense(tmp_path, training, disclosure, said):
    chosen = {"epsilon": 1.0, "delta": 1e-6, "clip": 2.0, "weight": 200.0} | training
    file = tmp_path / "private.yaml"
    file.write_text(CODEBOOK + yaml.safe_dump({"training": {"dp": chosen}, "disclosure": disclosure}))
    with pytest.raises(ContractBroken, match=said):
        read_codebook(str(file))
