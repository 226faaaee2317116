import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.heldout_data import (
    DataError,
    choose_validation,
    encode_answers,
    read_questionnaire,
    read_truth,
    write_predictions,
)
from benchmarks.margins import find_margins, predict_margins
from benchmarks.measures import clustered_se, measure_score

LEVELS = {"a": [1, 2, 3], "b": [0, 1], "c": [3, 1, 2], "d": [5], "fold": [0, 1]}


def write_folder(folder, **meta):
    """Item a has nulls, c's levels are in no order, d has one level, nobody answered `fold`; p1 answers twice."""
    items = {
        "a": [1, 2, None, 2],
        "b": [0, 0, 1, 0],
        "c": [1, 1, 1, 1],
        "d": [5, 5, None, 5],
        "fold": [None] * 4,
    }
    train = pd.DataFrame({"row": [0, 1, 2, 3], "person": ["p0", "p1", "p1", "p2"], **items})
    test = pd.DataFrame({"row": [7, 9], "person": ["p8", "p9"], "a": [3, None], "b": [None, 1], "c": [2.0, None]})
    cells = pd.DataFrame({"row": [9, 7, 9], "item": ["a", "b", "c"]})
    truth = pd.DataFrame({"row": [7, 9, 9], "item": ["b", "c", "a"], "answer": [1, 3, 2]})
    folder.mkdir(exist_ok=True)
    for name, table in (("train", train), ("test_input", test), ("test_cells", cells), ("truth", truth)):
        table.to_parquet(folder / f"{name}.parquet")
    (folder / "meta.json").write_text(json.dumps({"items": list(LEVELS), "levels": LEVELS, **meta}))
    return folder


def test_reading(tmp_path):
    data = read_questionnaire(write_folder(tmp_path))
    # a   b   c   d  fold
    assert data.train.tolist() == [
        [0, 0, 0, 0, -1],
        [1, 0, 0, 0, -1],
        [-1, 1, 0, -1, -1],
        [1, 0, 0, 0, -1],
    ]
    assert data.test.tolist() == [[2, -1, 1, -1, -1], [-1, 1, -1, -1, -1]]
    assert data.cell_rows.tolist() == [1, 0, 1] and data.cell_items.tolist() == [0, 1, 2]
    assert data.sizes.tolist() == [3, 2, 3, 1, 2]
    assert data.keys == {}
    assert data.hidden_share == 3 / 6
    assert read_truth(tmp_path, data).tolist() == [1, 1, 2]


def test_an_answer_that_ought_to_be_hidden_is_not_seen(tmp_path):
    folder = write_folder(tmp_path)
    test = pd.read_parquet(folder / "test_input.parquet").assign(a=[3, 2])
    test.to_parquet(folder / "test_input.parquet")
    assert read_questionnaire(folder).test[1, 0] == -1


@pytest.mark.parametrize("values", [[1, 4], [1.5, None], ["x", None]])
def test_answers_that_are_no_level_are_refused(values):
    with pytest.raises(DataError, match="Item a holds answers that are none of its levels"):
        encode_answers(pd.DataFrame({"a": values}), ("a",), ((1, 2, 3),))


def test_hidden_cells_of_unknown_rows_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    pd.DataFrame({"row": [8], "item": ["a"]}).to_parquet(folder / "test_cells.parquet")
    with pytest.raises(DataError, match="row 8 is unknown"):
        read_questionnaire(folder)


def test_validation_people_are_a_tenth_and_never_split():
    people = np.array([f"p{number % 500}" for number in range(800)])
    chosen = choose_validation(people)
    assert len(set(people[chosen])) == 50
    assert not set(people[chosen]) & set(people[~chosen])
    assert choose_validation(people[:3]).sum() == 1


def test_margins_by_hand(tmp_path):
    data = read_questionnaire(write_folder(tmp_path))
    # Counts, each with half an answer spread over the item's levels.
    expected = {
        "a": [7 / 21, 13 / 21, 1 / 21],  # 1, 2 and 0 of 3, and a sixth each
        "b": [13 / 18, 5 / 18, 0],  # 3 and 1 of 4, and a quarter each
        "c": [25 / 27, 1 / 27, 1 / 27],  # never a second level
        "d": [1, 0, 0],
        "fold": [1 / 2, 1 / 2, 0],  # nobody answered
    }
    np.testing.assert_allclose(find_margins(data.train, data.sizes), list(expected.values()))


def test_predictions_and_their_score(tmp_path):
    data = read_questionnaire(write_folder(tmp_path))
    probabilities = predict_margins(data)
    write_predictions(data, probabilities, tmp_path / "new" / "predictions.parquet")
    written = pd.read_parquet(tmp_path / "new" / "predictions.parquet")
    assert written[["row", "item"]].to_numpy().tolist() == [[9, "a"], [7, "b"], [9, "c"]]
    assert written["p2"].isna().tolist() == [False, True, False]
    np.testing.assert_allclose(written[["p0", "p1", "p2"]].sum(axis=1), 1)
    score = measure_score(data, probabilities, read_truth(tmp_path, data))
    assert score.nll == pytest.approx(-np.log([13 / 21, 5 / 18, 1 / 27]).mean())
    assert score.accuracy == pytest.approx(1 / 3)


def test_standard_error_counts_rows_not_answers():
    values = np.array([1.0, 1.0, 3.0, 3.0])
    assert clustered_se(values, np.array([0, 0, 1, 1])) == pytest.approx(np.sqrt(8) / 4)
    assert clustered_se(values, np.array([0, 1, 2, 3])) == pytest.approx(1 / 2)
