"""Where there is a GPU: the same profiles as the processor's, and trainings that end with the same bits."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.arithmetic import Arithmetic
from model.fitting import TrainingSettings
from model.scoring import Scorer
from model.training import train
from tests.model.simulation import simulate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def test_profiles_are_those_of_the_processor(trained):
    exact, quick = Scorer.load(trained.folder), Scorer.load(trained.folder, Arithmetic("cuda"))
    codes, _ = simulate(exact.model.spec, 9000)
    people = pa.table({key: codes[:, place] for place, key in enumerate(exact.model.spec.columns)})
    one, other = exact.score(people), quick.score(people)
    for name in one.column_names[1:]:
        wanted, found = (table[name].to_numpy().astype(float) for table in (one, other))
        np.testing.assert_allclose(found, wanted, atol=0.01 if name.endswith("percentile") else 1e-3)
    assert other.equals(quick.score(people))
    assert other.slice(17, 1).equals(quick.score(people.slice(17, 1)))


def test_a_training_ends_with_the_same_bits(trained, tmp_path):
    settings = TrainingSettings(device="cuda", max_epochs=4, settle_steps=50)
    spec = trained.result.network.spec
    ended = [train(trained.paths, spec, settings, tmp_path / name, progress=False) for name in ("one", "other")]
    one, other = (result.network.state_dict() for result in ended)
    assert all(torch.equal(one[name], other[name]) and one[name].device.type == "cpu" for name in one)
