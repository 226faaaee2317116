"""Train a profile network under differential privacy: nothing in it but model/private_fitting.py's steps is people's.

What a training without privacy takes from people beside gradients is given up: initial thresholds from the margins, the
choice of residuals, the population's place by EM, covariates, norms of real people, and a champion to go on from. So
every such training begins a series. Figures in the report are of real people, and no part of what is promised.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from model.amortise import settle_encoder, simulate_people
from model.drift import share_answers, share_traits
from model.errors import ModelError
from model.fitting import TrainingSettings
from model.inputs import HELD_OUT_FOLD, People, hash_file, iterate_people, read_sample, survey_inputs
from model.network import ProfileNetwork
from model.norms import Norms, describe_block, tabulate_norms
from model.private_fitting import Privacy, fit_privately, full_pattern
from model.spec import PERSON, FeatureSpec
from model.threads import fix_threads
from model.training import TrainingResult
from model.unit import PEOPLE
from model.validation import validate

SIMULATED = 32_768  # people that norms are made of
BLOCK = 4096


def train_privately(
    paths: Sequence[Path], spec: FeatureSpec, settings: TrainingSettings, privacy: Privacy
) -> TrainingResult:
    """Train on the files' rows outside fold 0; the same people give another model each time.

    Raises ModelError for features that do not fit, more than one row of a person, and nobody to learn from.
    """
    paths, spec = sorted(paths), replace(spec, covariates=())
    check_people(paths)
    with fix_threads(settings.threads), torch.random.fork_rng(devices=[]):
        people = read_training_people(paths, spec, settings.weight_column)
        torch.manual_seed(settings.seed)
        network = ProfileNetwork(spec)
        categories = network.categories(torch.from_numpy(people.codes))
        weights = torch.from_numpy(people.weights / privacy.weight).float()
        spent = fit_privately(network, categories, weights, settings, privacy)
        network.requires_grad_(False)
        settle_encoder(network, full_pattern(network), settings.seed, settings.settle_steps)
        inputs = survey_inputs(paths, spec, settings.weight_column)
        validation = validate(network.eval(), inputs)
        norms = simulate_norms(network, settings.seed)
        profiles = share_traits(network, read_sample(paths, spec, settings.weight_column, PEOPLE))
    report = {
        "settings": asdict(settings),
        "privacy": asdict(spent),
        "codebook": spec.codebook,
        "codebook_version": spec.codebook_version,
        "rows": {"training": inputs.rows, "validation": inputs.held_out_rows},
        "files": [hash_file(path) for path in paths],
        "residuals": {"chosen": 0, "nats_per_answer": {}},
        "reference": {},
        "link": None,
        "covariates": [],
        "validation": asdict(validation),
        "answers": share_answers(paths, spec, settings.weight_column),
        "profiles": profiles,
        "torch": torch.__version__,
    }
    return TrainingResult(network, network.without_covariates(), norms, report)


def check_people(paths: Sequence[Path]) -> None:
    """A person's gradient is clipped row by row. Raises ModelError where somebody has several rows."""
    ids = np.concatenate([pq.read_table(path, columns=[PERSON])[PERSON].to_numpy() for path in paths])
    if repeated := len(ids) - len(np.unique(ids)):
        raise ModelError(
            f"{repeated:,} rows are of people who have another one: under differential privacy each has one. Make the "
            "features again."
        )


def read_training_people(paths: Sequence[Path], spec: FeatureSpec, weight_column: str | None) -> People:
    """Everybody outside fold 0. Raises ModelError where that is nobody."""
    parts = list(iterate_people(paths, spec, weight_column))
    codes, weights, folds = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "weights", "folds")
    )
    kept = folds != HELD_OUT_FOLD
    if not kept.any():
        raise ModelError("Nobody is outside fold 0: there is nothing to train on.")
    return People(codes[kept], weights[kept], folds[kept])


def simulate_norms(network: ProfileNetwork, seed: int) -> Norms:
    """Norms of people whom the model simulates, who answer everything."""
    generator = torch.Generator().manual_seed(seed)
    _, categories = simulate_people(network, full_pattern(network), SIMULATED, generator, thinned=0.0)
    blocks = [describe_block(network, block) for block in torch.split(categories, BLOCK)]
    return tabulate_norms(network, blocks, np.ones(SIMULATED))
