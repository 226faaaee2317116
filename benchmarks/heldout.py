"""`python -m benchmarks.heldout DIR --out FILE`: predict hidden answers with the model, and compare with baselines.

The model has one configuration for every questionnaire. Everything runs on one thread. Training seconds are
processor time, and include the choice of settings on validation people where a method has one.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.environment import PeerError, ask_peer
from benchmarks.graded_response import predict_with_graded_response
from benchmarks.heldout_data import (
    DataError,
    Integers,
    Questionnaire,
    read_questionnaire,
    read_truth,
    write_predictions,
)
from benchmarks.margins import predict_margins
from benchmarks.measures import Floats, clustered_se, measure_losses, measure_score
from benchmarks.profile_model import NEARLY_DONE, measure_pace, predict_with_model, predict_with_plain
from model.errors import ModelError

CACHE = Path(__file__).resolve().parent.parent / ".bench"
MODEL = "this model"
PACE_SETTER = "TVAE"  # the last baseline: the model's pace is measured right after it

Prediction = tuple[Floats, float]  # probabilities (C, K), seconds of training


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    try:
        data = read_questionnaire(arguments.folder)
        truth = read_truth(arguments.folder, data)
        if arguments.baselines and truth is None:
            raise DataError(f"The folder {arguments.folder} has no truth.parquet: baselines cannot be compared.")
        probabilities, trained = predict_with_model(data, arguments.seed)
        write_predictions(data, probabilities, arguments.out)
        print(describe_data(data))
        seconds: dict[str, float] = {}
        if truth is not None:
            ours = (probabilities, trained.seconds if trained else 0.0)
            seconds = print_table(data, truth, ours, arguments.seed, arguments.cache if arguments.baselines else None)
        if PACE_SETTER in seconds and trained:
            nearly, whole = measure_pace(data, trained)
            print(
                f"the chosen model alone: {whole:.1f} s, to within {NEARLY_DONE} of its final likelihood "
                f"{nearly:.1f} s, {nearly / seconds[PACE_SETTER]:.2f} of {PACE_SETTER}'s"
            )
    except (DataError, ModelError, PeerError) as error:
        print(f"heldout: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heldout", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="train, test_input and test_cells, and meta.json")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the predictions, Parquet")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--baselines", action="store_true", help="compare with baselines on truth.parquet")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="where the peers' packages live")
    return parser.parse_args()


def describe_data(data: Questionnaire) -> str:
    return (
        f"{data.name}: {len(data.items)} items of {data.sizes.min()} to {data.sizes.max()} levels, "
        f"{len(data.train)} training rows, {len(data.cell_rows)} hidden answers of {len(data.test)} rows"
    )


def list_baselines(data: Questionnaire, seed: int, cache: Path) -> dict[str, Callable[[], Prediction]]:
    return {
        "item margins": partial(measure_time, predict_margins, data),
        "factor analysis": partial(ask_peer, "factors", data, seed, cache),
        "graded response per scale": partial(measure_time, predict_with_graded_response, data),
        "gradient boosting per item": partial(ask_peer, "boosting", data, seed, cache),
        "plain VAE, 20 latents": partial(predict_with_plain, data, seed),
        PACE_SETTER: partial(ask_peer, "tvae", data, seed, cache),
    }


def measure_time(predict: Callable[[Questionnaire], Floats], data: Questionnaire) -> Prediction:
    """Prediction takes next to nothing in these, and is not told apart."""
    start = time.process_time()
    return predict(data), time.process_time() - start


def print_table(
    data: Questionnaire, truth: Integers, ours: Prediction, seed: int, cache: Path | None
) -> dict[str, float]:
    """A line as soon as it is known; differences are to the model, on the same answers. Baselines' training seconds."""
    print(f"{'':28}{'nats':>8}{'se':>7}{'minus ours':>12}{'se':>7}{'correct':>9}{'training s':>12}")
    print_line(MODEL, data, truth, ours, ours[0])
    seconds = {}
    for name, predict in list_baselines(data, seed, cache).items() if cache is not None else ():
        found = predict()
        print_line(name, data, truth, found, ours[0])
        seconds[name] = found[1]
    return seconds


def print_line(name: str, data: Questionnaire, truth: Integers, found: Prediction, ours: Floats) -> None:
    probabilities, seconds = found
    score = measure_score(data, probabilities, truth)
    apart = measure_losses(probabilities, truth) - measure_losses(ours, truth)
    difference = f"{apart.mean():12.4f}{clustered_se(apart, data.cell_rows):7.4f}" if np.any(apart) else " " * 19
    print(
        f"{name:28}{score.nll:8.4f}{score.nll_se:7.4f}{difference}{score.accuracy:9.3f}{seconds:12.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
