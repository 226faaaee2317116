"""`python -m benchmarks.stability`: does a profile mean the same after many nights of fine-tuning?

Every night a share of the people leaves and new ones come; the model goes on from the night before, in the unit of
the first night's population. The first night's people are scored by the first model and by the last.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.recovery import FOLDS, find_profiles, make_spec
from benchmarks.simulation import Sample, make_truth, simulate
from model.fitting import TrainingSettings
from model.spec import FeatureSpec
from model.training import train

NEW_PEOPLE = 0.01
SETTINGS = TrainingSettings()


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    truth = make_truth()
    spec = make_spec(truth)
    first = simulate(truth, arguments.people, arguments.missing, arguments.seed)
    arriving = simulate(truth, arguments.people, arguments.missing, arguments.seed + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(write_features(folder / "first.parquet", spec, first), spec, SETTINGS, folder / "checkpoints-0")
        before, _ = find_profiles(model.network, first.codes)
        sample, errors = first, {}
        for night in range(1, arguments.nights + 1):
            sample = replace_people(sample, arriving, night)
            paths = write_features(folder / f"night-{night}.parquet", spec, sample)
            model = train(paths, spec, SETTINGS, folder / f"checkpoints-{night}", champion=model)
            errors = model.report["link"]["errors"]
            after, _ = find_profiles(model.network, first.codes)
            print(json.dumps({"night": night, **compare_profiles(before, after), "linking_errors": errors}), flush=True)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability", description=__doc__)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--missing", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def replace_people(sample: Sample, arriving: Sample, night: int) -> Sample:
    """Tonight's sample: NEW_PEOPLE of it, other places every night, are the arriving people's."""
    count = round(NEW_PEOPLE * len(sample.codes))
    places = (np.arange(count) + (night - 1) * count) % len(sample.codes)
    codes, traits, weights = sample.codes.copy(), sample.traits.copy(), sample.weights.copy()
    codes[places], traits[places], weights[places] = (
        arriving.codes[places],
        arriving.traits[places],
        arriving.weights[places],
    )
    return Sample(codes, traits, weights)


def write_features(path: Path, spec: FeatureSpec, sample: Sample) -> list[Path]:
    columns = {key: sample.codes[:, position] for position, key in enumerate(spec.columns)}
    folds = (np.arange(len(sample.codes)) % FOLDS).astype(np.int8)
    pq.write_table(pa.table({**columns, "weight": sample.weights, "fold": folds}), path)
    return [path]


def compare_profiles(before: np.ndarray, after: np.ndarray) -> dict[str, list[float]]:
    """For each trait: correlation, slope of after on before, and mean shift in reference sds."""
    traits = range(before.shape[1])
    return {
        "correlation": [round(float(np.corrcoef(before[:, t], after[:, t])[0, 1]), 4) for t in traits],
        "slope": [round(float(np.polyfit(before[:, t], after[:, t], 1)[0]), 4) for t in traits],
        "shift": [round(float((after[:, t] - before[:, t]).mean()), 4) for t in traits],
    }


if __name__ == "__main__":
    sys.exit(main())
