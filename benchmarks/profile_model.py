"""The project's own model on a questionnaire: the spec from its scales, training, and the hidden cells."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.graded_response import choose_scales
from benchmarks.heldout_data import Codes, Integers, Questionnaire
from benchmarks.margins import predict_margins
from benchmarks.measures import Floats
from model.fitting import Fitted, Task, TrainingSettings, fit
from model.inputs import survey_inputs
from model.network import ProfileNetwork
from model.plain import PlainNetwork
from model.spec import FeatureSpec, ItemSpec, ScaleSpec, TraitSpec
from model.training import TrainingResult, make_network, train

BLOCK = 1024  # people predicted at once
TRAINING_FOLDS = 9
PLAIN_BATCH = 64  # its gradients are noisy whatever the batch: more steps serve it better
PLAIN_RATE = 4e-3
NEARLY_DONE = 0.002  # nats per hidden answer of the validation people


@dataclass(frozen=True)
class Trained:
    """What training came to, and its seconds of processor time."""

    result: TrainingResult
    seconds: float


def predict_with_model(data: Questionnaire, seed: int) -> tuple[Floats, Trained | None]:
    """Probabilities (C, K) of the hidden cells' levels; nothing is trained where fewer than two items can be."""
    spec, positions = make_spec(data)
    probabilities = predict_margins(data)
    if spec is None:
        return probabilities, None
    trained = train_on(data, TrainingSettings(seed=seed, weight_column=None))
    return fill_modelled(data, positions, trained.result.network, probabilities), trained


def train_on(data: Questionnaire, settings: TrainingSettings) -> Trained:
    spec, positions = make_spec(data)
    assert spec is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.parquet"
        write_features(path, spec, data.train[:, positions], data.validation)
        start = time.process_time()
        result = train([path], spec, settings, Path(folder) / "model")
        return Trained(result, time.process_time() - start)


def predict_with_plain(data: Questionnaire, seed: int) -> tuple[Floats, float]:
    """The plain VAE's probabilities (C, K), and its seconds of processor time; its batches are smaller."""
    spec, positions = make_spec(data)
    probabilities = predict_margins(data)
    if spec is None:
        return probabilities, 0.0
    settings = TrainingSettings(seed=seed, weight_column=None, batch_size=PLAIN_BATCH, encoder_rate=PLAIN_RATE)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        path = Path(folder) / "features.parquet"
        write_features(path, spec, data.train[:, positions], data.validation)
        task = Task([path], spec, settings, survey_inputs([path], spec, None), [])
        torch.manual_seed(seed)
        start = time.process_time()
        network = fit(PlainNetwork(spec), task, Path(folder) / "model", progress=False).network
        seconds = time.process_time() - start
    return fill_modelled(data, positions, network, probabilities), seconds


def fill_modelled(
    data: Questionnaire, positions: Integers, network: ProfileNetwork | PlainNetwork, margins: Floats
) -> Floats:
    """Probabilities (C, K) of the hidden cells: the network's where it has the item, else the margins."""
    place = np.full(len(data.items), -1)
    place[positions] = np.arange(len(positions))
    modelled = place[data.cell_items] >= 0
    rows, items = data.cell_rows[modelled], place[data.cell_items[modelled]]
    filled = margins.copy()
    filled[modelled] = predict_cells(network, data.test[:, positions], rows, items, margins.shape[1])
    return filled


def measure_pace(data: Questionnaire, trained: Trained) -> tuple[float, float]:
    """Seconds of processor time to within NEARLY_DONE of the final likelihood, and of that whole training.

    The chosen number of residuals is trained once more, by itself; its epochs take the same time each.
    """
    spec, positions = make_spec(data)
    assert spec is not None
    report = trained.result.report
    settings = TrainingSettings(**{**report["settings"], "residuals": report["residuals"]["chosen"]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.parquet"
        write_features(path, spec, data.train[:, positions], data.validation)
        task = Task([path], spec, settings, survey_inputs([path], spec, None), [])
        start = time.process_time()
        fitted = fit(make_network(task), task, Path(folder) / "model", progress=False)
        seconds = time.process_time() - start
    return seconds * find_nearly_done(fitted) / fitted.history[-1].epoch, seconds


def find_nearly_done(fitted: Fitted[ProfileNetwork]) -> float:
    """Epochs to within NEARLY_DONE of the final likelihood; between two looks at it, on the line from one to the other.

    A training gains less and less, so that the line is passed late, if anything.
    """
    aim = fitted.nats_per_answer + NEARLY_DONE
    place = next(number for number, epoch in enumerate(fitted.history) if epoch.nats_per_answer <= aim)
    after = fitted.history[place]
    if place == 0:
        return after.epoch
    before = fitted.history[place - 1]
    share = (before.nats_per_answer - aim) / (before.nats_per_answer - after.nats_per_answer)
    return before.epoch + share * (after.epoch - before.epoch)


def make_spec(data: Questionnaire) -> tuple[FeatureSpec | None, Integers]:
    """The spec, and the positions of its items; no spec without two items of two levels.

    Columns are numbered: an item may have any name, a column's of the features too.
    """
    positions = np.flatnonzero(data.sizes > 1)
    scales = choose_scales(data)
    if not scales:
        return None, positions
    keys = {int(position): f"item_{position:03d}" for position in positions}
    trait_of = {item: f"trait_{number}" for number, scale in enumerate(scales) for item in scale.items}
    flipped = {item for scale in scales for item, turned in zip(scale.items, scale.flipped, strict=True) if turned}
    items = tuple(
        ItemSpec(key, tuple(range(data.sizes[item])), trait_of.get(item), item in flipped) for item, key in keys.items()
    )
    members = [tuple(sorted(keys[item] for item in scale.items)) for scale in scales]
    traits = tuple(TraitSpec(f"trait_{number}", group) for number, group in enumerate(members))
    totals = tuple(ScaleSpec(f"scale_{number}", group) for number, group in enumerate(members))
    return FeatureSpec(items, traits, totals, data.name, "1"), positions


def write_features(path: Path, spec: FeatureSpec, codes: Codes, validation: npt.NDArray[np.bool_]) -> None:
    """A feature file of the rows with an answer (rows, items); validation people are fold 0."""
    answered = (codes >= 0).any(axis=1)
    folds = np.where(validation, 0, 1 + np.arange(len(codes)) % TRAINING_FOLDS).astype(np.int8)
    columns = {key: codes[answered, position] for position, key in enumerate(spec.columns)}
    pq.write_table(pa.table({**columns, "fold": folds[answered]}), path)


@torch.no_grad()
def predict_cells(
    network: ProfileNetwork | PlainNetwork, codes: Codes, rows: Integers, items: Integers, most: int
) -> Floats:
    """Probabilities (C, most) of levels in ascending order; `codes` (m, J) are what is seen of the people."""
    categories = network.categories(torch.from_numpy(codes))
    blocks = [network.predict(block) for block in torch.split(categories, BLOCK)]
    found = torch.cat(blocks)[torch.from_numpy(rows), torch.from_numpy(items)].double().numpy()
    probabilities = np.zeros((len(rows), most))
    for number, item in enumerate(network.spec.items):
        cells = np.flatnonzero(items == number)
        values = found[cells, : len(item.levels)]
        probabilities[cells, : len(item.levels)] = values[:, ::-1] if item.flipped else values
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))
