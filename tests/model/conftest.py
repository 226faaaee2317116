"""One small trained model for all tests of the registry and the scoring."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from model.fitting import TrainingSettings
from model.registry import save_model
from model.spec import FeatureSpec
from model.training import TrainingResult, train
from tests.model.simulation import make_spec, simulate, write_features


class Trained(NamedTuple):
    spec: FeatureSpec
    paths: list[Path]
    result: TrainingResult
    folder: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """2,000 people, two correlated traits of five and four items (the second's turned round), a loose item."""
    home = tmp_path_factory.mktemp("trained")
    spec = make_spec((5, 4), loose=1, flipped=1, cuts=(">=6", None))
    codes, _ = simulate(spec, 2000)
    codes[7] = -1
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(codes))
    paths = write_features(home / "features", spec, codes, weights)
    result = train(
        paths,
        spec,
        TrainingSettings(max_epochs=40, residuals=2, settle_steps=500),
        home / "checkpoints",
        progress=False,
    )
    save_model(home / "model", result, "simulated-1")
    return Trained(spec, paths, result, home / "model")
