"""What differential privacy costs a training: likelihood of held-out answers, and nearness to traits that are known.

People are simulated, as in benchmarks/recovery.py; a training without privacy stands beside DRAWS private ones, since
noise differs each time. All figures are weighted.
"""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.recovery import FOLDS, correlate, find_profiles, make_spec
from benchmarks.simulation import Sample, make_truth, simulate
from model.fitting import TrainingSettings
from model.private_fitting import Privacy
from model.private_training import train_privately
from model.spec import PERSON
from model.training import TrainingResult, train

PEOPLE, MISSING, SEED = 10_000, 0.2, 1
PRIVACY = Privacy(epsilon=3.0, delta=1e-5, clip=4.0, weight=1.0)
DRAWS = 3


def measure_training() -> dict[str, Any]:
    """Correlations by trait and nats per hidden answer, without privacy and with it (means), and what was lost."""
    truth = make_truth()
    sample = simulate(truth, PEOPLE, MISSING, SEED)
    spec, settings = make_spec(truth), TrainingSettings(seed=SEED)
    with TemporaryDirectory() as name:
        path = Path(name) / "features.parquet"
        columns: dict[str, np.ndarray] = {key: sample.codes[:, position] for position, key in enumerate(spec.columns)}
        columns |= {"weight": sample.weights, "fold": (np.arange(PEOPLE) % FOLDS).astype(np.int8)}
        pq.write_table(pa.table({PERSON: np.arange(PEOPLE).astype(str), **columns}), path)
        plain = train([path], spec, settings, Path(name) / "checkpoints", progress=False)
        private = [train_privately([path], spec, settings, PRIVACY) for _ in range(DRAWS)]
    before, after = correlate_traits(plain, sample), np.mean([correlate_traits(one, sample) for one in private], axis=0)
    nats = [one.report["validation"]["nats_per_answer"] for one in (plain, *private)]
    return {
        "dp_training": private[0].report["privacy"] | asdict(PRIVACY),
        "dp_training_people": PEOPLE,
        "dp_training_correlation_without": before.round(4).tolist(),
        "dp_training_correlation": after.round(4).tolist(),
        "dp_training_correlation_lost": (before - after).round(4).tolist(),
        "dp_training_nats_without": round(nats[0], 4),
        "dp_training_nats": round(float(np.mean(nats[1:])), 4),
    }


def correlate_traits(result: TrainingResult, sample: Sample) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Correlation (T) of posterior means with the true traits."""
    means, _ = find_profiles(result.network, sample.codes)
    return np.array([correlate(means[:, t], sample.traits[:, t], sample.weights) for t in range(means.shape[1])])
