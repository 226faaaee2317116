import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model import explaining
from model.errors import ModelError
from model.explaining import explain, explain_file, measure_moves
from model.rewriting import Piece
from model.scoring import BLOCK, Scorer
from tests.model.simulation import simulate

SCHEMA = pa.schema(
    [
        pa.field("person_id", pa.string(), nullable=False),
        pa.field("trait", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("moved", pa.float32(), nullable=False),
    ],
    {"meaning.moved": "with less without"},
)


@pytest.fixture(scope="module")
def scorer(trained):
    return Scorer.load(trained.folder)


@pytest.fixture(scope="module")
def model(scorer):
    return scorer.model


def table_of(codes: np.ndarray, model) -> pa.Table:
    people = pa.array([f"p{number:06d}" for number in range(len(codes))])
    return pa.table({"person_id": people, **{key: codes[:, n] for n, key in enumerate(model.spec.columns)}})


def read_means(scorer: Scorer, codes: np.ndarray) -> np.ndarray:
    scored = scorer.score(table_of(codes, scorer.model))
    return np.stack([scored["t0_mean"].to_numpy(), scored["t1_mean"].to_numpy()], axis=1)


def test_a_move_is_the_difference_of_two_profiles(scorer, model):
    codes, _ = simulate(model.spec, 30, seed=5, missing=0.3)
    found = measure_moves(model, codes)
    without = np.stack([codes] * 10)
    without[range(10), :, range(10)] = -1
    means = read_means(scorer, np.concatenate([codes, *without])).reshape(11, 30, 2)
    expected = np.moveaxis(means[0] - means[1:], 0, 2)
    expected[np.broadcast_to((codes < 0)[:, None], expected.shape)] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_rows_are_the_answers_given_sorted_by_person_trait_and_item(model):
    codes, _ = simulate(model.spec, 40, seed=6, missing=0.3)
    codes[3] = -1
    table = explain(model, table_of(codes, model))
    rows = [(row["person_id"], row["trait"], row["item"]) for row in table.to_pylist()]
    answers = [(f"p{n:06d}", model.spec.columns[item]) for n, item in np.argwhere(codes >= 0)]
    # By name, which is not the model's order: its last item is loose_0.
    assert rows == sorted((person, trait, item) for person, item in answers for trait in ("t0", "t1"))
    assert "p000003" not in {row[0] for row in rows}
    moves = measure_moves(model, codes)
    for row in table.to_pylist():
        person, trait = int(row["person_id"][1:]), ("t0", "t1").index(row["trait"])
        assert row["moved"] == moves[person, trait, model.spec.columns.index(row["item"])]


def test_an_item_of_another_trait_moves_too_and_its_own_moves_more(model):
    """Everybody at the top of one item of trait t0: it raises t0, and t1 by way of the traits' correlation."""
    codes, _ = simulate(model.spec, 2000, seed=8)
    codes[:, 0] = 3
    own, other = np.nanmean(measure_moves(model, codes)[:, :, 0], axis=0)
    assert own > 0.1 and 0.01 < other < own
    # The items of t1 are turned round: their lowest code is the most distress.
    codes[:, 5] = 0
    other, own = np.nanmean(measure_moves(model, codes)[:, :, 5], axis=0)
    assert own > 0.1 and 0.01 < other < own


def test_the_only_answer_moves_from_the_prior(scorer, model):
    codes = np.full((1, 10), -1, dtype=np.int8)
    codes[0, 2] = 3
    rows = explain(model, table_of(codes, model)).to_pylist()
    means = read_means(scorer, codes)[0]
    assert [(row["trait"], row["item"]) for row in rows] == [("t0", "t0_2"), ("t1", "t0_2")]
    assert [row["moved"] for row in rows] == pytest.approx(list(means), abs=1e-6)  # the prior's mean is 0


def test_a_person_gets_the_same_bits_in_any_company(model):
    codes, _ = simulate(model.spec, BLOCK // 8 + 700, seed=3)
    together = measure_moves(model, codes)
    order = np.random.default_rng(1).permutation(len(codes))
    np.testing.assert_array_equal(measure_moves(model, codes[order]), together[order])
    for start, stop in ((0, 1), (5, 6), (17, 60), (BLOCK // 10 - 3, BLOCK // 10 + 9)):
        np.testing.assert_array_equal(measure_moves(model, codes[start:stop]), together[start:stop])


def test_nobody_and_nothing(model):
    for codes in (np.empty((0, 10), np.int8), np.full((2, 10), -1, np.int8)):
        assert explain(model, table_of(codes, model)).num_rows == 0


def test_files_are_explained_row_group_by_row_group(model, trained, tmp_path, monkeypatch):
    table = pq.read_table(trained.paths[0])
    out, half = tmp_path / "all.parquet", tmp_path / "half.parquet"
    rows = explain_file(model, [Piece(trained.paths[0])], out, SCHEMA)
    found = pq.read_table(out)
    assert found.schema.equals(SCHEMA, check_metadata=True)
    assert found.equals(explain(model, table).cast(SCHEMA))
    answers = sum(int((table[key].to_numpy() >= 0).sum()) for key in model.spec.columns)
    assert rows == found.num_rows == 2 * answers
    # However many people are taken at once.
    monkeypatch.setattr(explaining, "ROWS_AT_ONCE", 20 * 77)
    assert explain_file(model, [Piece(trained.paths[0], (1,))], half, SCHEMA) == pq.read_metadata(half).num_rows
    people = set(table["person_id"].to_pylist()[500:])
    assert pq.read_table(half).equals(found.filter(pa.array([p in people for p in found["person_id"].to_pylist()])))
    column = pq.ParquetFile(half).metadata.row_group(0).column(3)
    assert column.compression == "ZSTD" and "DICTIONARY" not in str(column.encodings)


def test_a_file_that_does_not_fit_leaves_none_behind(model, trained, tmp_path):
    table = pq.read_table(trained.paths[0])
    for broken, reason in (
        (table.drop_columns("person_id"), "no columns person_id"),
        (table.drop_columns("t0_1"), "missing: t0_1"),
        (table.set_column(2, "t0_1", pa.array(np.full(len(table), 9, np.int8))), "outside their levels: t0_1"),
    ):
        pq.write_table(broken, tmp_path / "broken.parquet")
        with pytest.raises(ModelError, match=reason):
            explain_file(model, [Piece(tmp_path / "broken.parquet")], tmp_path / "out.parquet", SCHEMA)
        assert [path.name for path in tmp_path.iterdir()] == ["broken.parquet"]
