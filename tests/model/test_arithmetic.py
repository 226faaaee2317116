"""Other numbers than float32: what they move, and that too much of it stops the publishing."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model.arithmetic import EXACT, Arithmetic, choose_arithmetic, make_generator, multiplies_bfloat16
from model.errors import ModelError
from model.exactness import LIMIT, Deviation, measure_deviation
from model.rewriting import Piece
from model.scoring import Scorer, score_file
from tests.model.simulation import simulate

BFLOAT16 = Arithmetic("cpu", "bfloat16")
# Of a mean's standard error: so much of a shift leaves a 95 % interval covering 94.99 %. The rounding of a model's
# weights moves everybody alike, by .007 standard errors of 9,000 people (root mean square over trainings of 8 seeds).
SHIFT = 0.03
NAMES = ("t0_mean", "t0_sd", "t1_mean", "t1_sd", "s0_ge6_probability")
SCHEMA = pa.schema([(name, pa.float32()) for name in NAMES])


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.delenv("MINDCENSUS_DEVICE", raising=False)
    monkeypatch.delenv("MINDCENSUS_NUMBERS", raising=False)


def test_of_itself_it_takes_what_the_machine_has():
    chosen = choose_arithmetic()
    assert chosen.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert chosen.numbers == ("bfloat16" if chosen.device == "cpu" and multiplies_bfloat16() else "float32")


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("MINDCENSUS_DEVICE", "cpu")
    monkeypatch.setenv("MINDCENSUS_NUMBERS", "bfloat16")
    assert choose_arithmetic() == BFLOAT16
    monkeypatch.setenv("MINDCENSUS_NUMBERS", "float32")
    assert choose_arithmetic() == EXACT
    monkeypatch.setenv("MINDCENSUS_NUMBERS", "int8")
    with pytest.raises(ModelError, match="MINDCENSUS_NUMBERS is 'int8': it must be one of auto, float32, bfloat16"):
        choose_arithmetic()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(monkeypatch, trained):
    monkeypatch.setenv("MINDCENSUS_DEVICE", "cuda")
    with pytest.raises(ModelError, match=r"no GPU .* set MINDCENSUS_DEVICE=cpu"):
        choose_arithmetic()
    with pytest.raises(ModelError, match="no GPU"):
        Scorer.load(trained.folder, Arithmetic("cuda"))


def test_bfloat16_moves_profiles_by_little(trained):
    exact, coarse = Scorer.load(trained.folder), Scorer.load(trained.folder, BFLOAT16)
    codes, _ = simulate(exact.model.spec, 9000)
    people = pa.table({key: codes[:, place] for place, key in enumerate(exact.model.spec.columns)})
    one, other = exact.score(people), coarse.score(people)
    for name in ("t0_mean", "t1_mean"):
        wanted, found = one[name].to_numpy(), other[name].to_numpy()
        assert not np.array_equal(wanted, found)
        assert np.corrcoef(wanted, found)[0, 1] > 0.9999
        assert abs(float((found - wanted).mean())) < SHIFT * found.std() / np.sqrt(len(found))


def write_profiles(scorer, trained, folder, shift=0.0):
    schema = pa.schema([*SCHEMA, ("weight", pa.float64())])
    file = folder / f"profiles-{shift}.parquet"
    score_file(scorer, [Piece(trained.paths[0])], file, schema)
    if shift:
        table = pq.read_table(file)
        pq.write_table(table.set_column(0, "t0_mean", pa.array(table["t0_mean"].to_numpy() + np.float32(shift))), file)
    return [Piece(trained.paths[0])], file


def test_deviation_is_of_what_was_written(trained, tmp_path):
    exact = Scorer.load(trained.folder)
    same = measure_deviation(exact, [write_profiles(exact, trained, tmp_path)])
    assert same == Deviation(pq.read_metadata(trained.paths[0]).num_rows, 0.0, 0.0)
    moved = measure_deviation(exact, [write_profiles(exact, trained, tmp_path, 0.1)])
    assert moved.largest == pytest.approx(0.1, abs=1e-6)
    assert moved.root_mean_square == pytest.approx(0.1, abs=1e-6), "one of the columns has moved"
    with pytest.raises(ModelError, match=r"In bfloat16 on the processor, .* 0\.1000 sd off .* nothing is published"):
        moved.check(BFLOAT16)
    coarse = measure_deviation(exact, [write_profiles(Scorer.load(trained.folder, BFLOAT16), trained, tmp_path)])
    assert 0 < coarse.root_mean_square < LIMIT / 2
    coarse.check(BFLOAT16)


def test_of_nobody_nothing_deviates(trained, tmp_path):
    exact, empty = Scorer.load(trained.folder), tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(trained.paths[0]).slice(0, 0), empty)
    score_file(exact, [Piece(empty)], tmp_path / "none.parquet", SCHEMA)
    assert measure_deviation(exact, [([Piece(empty)], tmp_path / "none.parquet")]).people == 0
    assert measure_deviation(exact, []) == Deviation(0, 0.0, 0.0)


def test_a_deviation_that_is_no_number_does_not_pass():
    with pytest.raises(ModelError, match="nothing is published"):
        replace(Deviation(5, 0.0, 0.0), root_mean_square=float("nan")).check(BFLOAT16)


def test_random_numbers_are_those_of_torch():
    assert torch.equal(
        torch.rand(5, generator=make_generator(3)), torch.rand(5, generator=torch.Generator().manual_seed(3))
    )
