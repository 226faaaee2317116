"""`python -m benchmarks.recovery`: how near profiles come to traits that are known, beside the best possible.

People are simulated, the model is trained on their answers and weights, and its posterior stands beside the posterior
under the true parameters. All figures are weighted: they stand for the population that the sample was drawn from.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.bayes import estimate_correlations, find_true_posterior
from benchmarks.simulation import LEVELS, Codes, Floats, Sample, Truth, make_truth, simulate
from model.errors import ModelError
from model.fitting import TrainingSettings
from model.network import ProfileNetwork
from model.spec import FeatureSpec, ItemSpec, ScaleSpec, TraitSpec
from model.training import train

NORMAL_90 = 1.6448536269514722
BLOCK = 1024  # people at once
FOLDS = 10


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    truth = make_truth()
    sample = simulate(truth, arguments.people, arguments.missing, arguments.seed)
    start = time.process_time()
    best = find_true_posterior(truth, sample.codes)
    best_seconds = time.process_time() - start
    try:
        network, seconds = train_model(truth, sample, arguments.seed)
        mean, sd = find_profiles(network, sample.codes)
        inside = {
            "best": (best.low <= sample.traits) & (sample.traits <= best.high),
            "model": np.abs(sample.traits - mean) <= NORMAL_90 * sd,
        }
        report: dict[str, Any] = {
            "people": arguments.people,
            "missing": round(float((sample.codes < 0).mean()), 4),
            "seed": arguments.seed,
            "seconds": {"best": round(best_seconds, 1), "training": round(seconds, 1)},
            "residuals": network.residuals,
            "traits": [
                describe_trait(sample, trait, best.mean, mean, inside) for trait in range(len(truth.correlations))
            ],
            "trait_correlations": compare_correlations(network, truth, sample),
        }
        if arguments.seeds_agree:
            other, _ = train_model(truth, sample, arguments.seed + 1)
            report["seeds"] = compare_seeds(mean, find_profiles(other, sample.codes)[0], sample.weights)
    except ModelError as error:
        print(f"recovery: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=1))
    print_tables(report)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--missing", type=float, default=0.2, help="share of answers that are skipped")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of the people and of the training")
    parser.add_argument("--seeds-agree", action="store_true", help="train with a second seed, too, and compare")
    return parser.parse_args()


def make_spec(truth: Truth) -> FeatureSpec:
    keys = [f"item_{number:02d}" for number in range(len(truth.traits))]
    items = tuple(
        ItemSpec(key, tuple(range(LEVELS)), f"trait_{trait}", False)
        for key, trait in zip(keys, truth.traits, strict=True)
    )
    members = [tuple(item.key for item in items if item.trait == f"trait_{n}") for n in range(len(truth.correlations))]
    traits = tuple(TraitSpec(f"trait_{number}", group) for number, group in enumerate(members))
    scales = tuple(ScaleSpec(f"scale_{number}", group) for number, group in enumerate(members))
    return FeatureSpec(items, traits, scales, "simulation", "1")


def train_model(truth: Truth, sample: Sample, seed: int) -> tuple[ProfileNetwork, float]:
    """The network, and the seconds of processor time that training took; every tenth person is held out."""
    spec = make_spec(truth)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.parquet"
        columns = {key: sample.codes[:, position] for position, key in enumerate(spec.columns)}
        folds = (np.arange(len(sample.codes)) % FOLDS).astype(np.int8)
        pq.write_table(pa.table({**columns, "weight": sample.weights, "fold": folds}), path)
        start = time.process_time()
        result = train([path], spec, TrainingSettings(seed=seed), Path(folder) / "model")
        return result.network, time.process_time() - start


@torch.no_grad()
def find_profiles(network: ProfileNetwork, codes: Codes) -> tuple[Floats, Floats]:
    """Posterior means and sds (n, T) of the named traits."""
    traits = len(network.spec.traits)
    posteriors = [network.posterior(block) for block in torch.split(network.categories(torch.from_numpy(codes)), BLOCK)]
    means, sds = (
        torch.cat(parts)[:, :traits].double().numpy()
        for parts in ([posterior.mean for posterior in posteriors], [posterior.sd() for posterior in posteriors])
    )
    return means, sds


def describe_trait(
    sample: Sample, trait: int, best: Floats, ours: Floats, inside: dict[str, npt.NDArray[np.bool_]]
) -> dict[str, Any]:
    true, weights = sample.traits[:, trait], sample.weights
    correlations = {"best": correlate(best[:, trait], true, weights), "model": correlate(ours[:, trait], true, weights)}
    return {
        "correlation": {name: round(value, 4) for name, value in correlations.items()},
        "lost": round(correlations["best"] - correlations["model"], 4),
        "coverage_90": {
            name: round(float(np.average(hit[:, trait], weights=weights)), 4) for name, hit in inside.items()
        },
        "coverage_90_unweighted": {name: round(float(hit[:, trait].mean()), 4) for name, hit in inside.items()},
    }


def compare_correlations(network: ProfileNetwork, truth: Truth, sample: Sample) -> dict[str, Any]:
    """The traits' correlations: true, estimated with all items known (the sample's own error), and the model's."""
    found = {
        "best": estimate_correlations(truth, sample.codes, sample.weights),
        "model": network.trait_correlations().detach().double().numpy(),
    }
    above = np.triu_indices(len(truth.correlations), 1)
    errors = {name: np.abs(values - truth.correlations)[above].max(initial=0.0) for name, values in found.items()}
    return {
        "true": truth.correlations[above].round(4).tolist(),
        **{name: values[above].round(4).tolist() for name, values in found.items()},
        "largest_error": {name: round(float(error), 4) for name, error in errors.items()},
    }


def compare_seeds(first: Floats, second: Floats, weights: Floats) -> list[dict[str, float]]:
    """For each trait: correlation, slope of the second training's means on the first's, and the mean's shift in sds."""
    compared = []
    for one, two in zip(first.T, second.T, strict=True):
        covariance = np.cov(one, two, aweights=weights)
        compared.append(
            {
                "correlation": round(correlate(one, two, weights), 5),
                "slope": round(float(covariance[0, 1] / covariance[0, 0]), 4),
                "shift": round(float(np.average(two - one, weights=weights)), 4),
            }
        )
    return compared


def correlate(one: Floats, two: Floats, weights: Floats) -> float:
    covariance = np.cov(one, two, aweights=weights)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def print_tables(report: dict[str, Any]) -> None:
    print(f"\n{'trait':8}{'correlation with the truth':^34}{'coverage of 90 %':^22}")
    print(f"{'':8}{'best possible':>14}{'this model':>12}{'lost':>8}{'best':>11}{'model':>9}")
    for number, trait in enumerate(report["traits"]):
        correlation, coverage = trait["correlation"], trait["coverage_90"]
        print(
            f"{number:<8}{correlation['best']:14.4f}{correlation['model']:12.4f}{trait['lost']:8.4f}"
            f"{coverage['best']:11.3f}{coverage['model']:9.3f}"
        )
    errors = report["trait_correlations"]["largest_error"]
    print(f"largest error of a trait correlation: {errors['model']:.3f}; with all items known {errors['best']:.3f}")
    for number, trait in enumerate(report.get("seeds", [])):
        print(f"two seeds, trait {number}: correlation {trait['correlation']:.4f}, slope {trait['slope']:.4f}")


if __name__ == "__main__":
    sys.exit(main())
