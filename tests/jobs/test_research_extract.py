"""People for researchers: nobody is more alone than was asked, sums stay, and nothing names anybody."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.codebook import read_codebook
from jobs.errors import UsageError
from jobs.lake import Lake
from jobs.research_extract import FILE, SHEET, class_weights, coarsen, read_people, share_alone, write_extract
from model.cells import SMALLEST
from tests.nights.small_night import write_codebook


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    return read_codebook(str(write_codebook(tmp_path_factory.mktemp("book"))))[0]


def simulate(people: int, seed: int = 1) -> pa.Table:
    random = np.random.default_rng(seed)
    moods = random.normal(size=people)
    return pa.table(
        {
            "person_id": [f"{number:064x}" for number in range(people)],
            "sex": random.choice(["men", "women"], people),
            "age_band": random.choice(["18-39", "40-64", "65+"], people),
            "region": random.choice(["North", "South"], people),
            "mood_band": np.where(moods > 1, "high", "low"),
            "sleep_total": random.integers(0, 13, people).astype(np.float32),
            "distress_mean": moods.astype(np.float32),
            "sleeplessness_mean": random.normal(size=people).astype(np.float32),
            "weight": random.uniform(50, 500, people),
        }
    )


@pytest.mark.parametrize("limit", [0.3, 0.05, 0.02])
def test_no_more_people_are_alone_than_was_asked(book, limit):
    people = simulate(3_000)
    made = coarsen(people, book, limit)
    assert made.alone <= limit and share_alone(made.people) <= limit
    assert made.people.num_rows == people.num_rows
    assert sum(made.people["weight"].to_pylist()) == pytest.approx(sum(people["weight"].to_pylist()))
    assert "person_id" not in made.people.column_names


def test_the_coarser_ones_are_taken_only_where_they_are_needed(book):
    people = simulate(3_000)
    made = [coarsen(people, book, limit) for limit in (0.9, 0.3, 0.05, 0.01)]
    assert [one.weights for one in made] == sorted((one.weights for one in made), reverse=True)
    assert [len(one.cohorts) for one in made] == sorted((len(one.cohorts) for one in made), reverse=True)
    assert made[0].weights > made[-1].weights


def test_whoever_cannot_be_hidden_is_not_given(book):
    with pytest.raises(UsageError, match="alone with their row even in the coarsest"):
        coarsen(simulate(3), book, 0.01)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50), st.integers(1, 32))
def test_classes_keep_the_sum_of_weights_and_their_order(weights, classes):
    weight = np.array(weights)
    made = class_weights(weight, classes)
    assert made.sum() == pytest.approx(weight.sum())
    assert len(np.unique(made)) <= classes
    assert np.all(np.diff(made[np.argsort(weight)]) >= -1e-9 * weight.max())
    assert np.unique(made, return_counts=True)[1].min() >= min(SMALLEST, len(weights))


def test_rows_of_people_do_not_leave_a_lake_of_private_releases(book, tmp_path):
    private = book.model_copy(update={"disclosure": SimpleNamespace(dp=True)})
    with pytest.raises(UsageError, match="releases of this lake are differentially private"):
        write_extract(Lake(tmp_path), {}, private, 0.05, tmp_path / "out")


def test_the_files_are_the_same_whoever_stands_first(book, tmp_path):
    people, written = simulate(2_000), []
    for name, table in (("one", people), ("other", people.take(np.random.default_rng(0).permutation(2_000)))):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        tables = {"profiles": [{"path": f"{name}.parquet"}]}
        manifest = {"run_date": "2026-03-01", "codebook": {}, "model": {"model_version": "m"}}
        manifest["stages"] = {"score": {"tables": tables}}
        made = write_extract(Lake(tmp_path), manifest, book, 0.05, tmp_path / f"out-{name}")
        written.append((tmp_path / f"out-{name}" / FILE).read_bytes())
    assert written[0] == written[1]
    sheet = json.loads((tmp_path / "out-one" / SHEET).read_text())
    assert (sheet["people"], sheet["share_alone"]) == (2_000, made.alone)
    assert (tmp_path / "out-one").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="is not empty"):
        write_extract(Lake(tmp_path), manifest, book, 0.05, tmp_path / "out-one")
    assert read_people([tmp_path / "one.parquet"], book).num_rows == 2_000
    assert read_people([tmp_path / "one.parquet"], book, [f"{7:064x}", "f" * 64]).num_rows == 1_999
