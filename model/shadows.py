"""Shadow models: the night's own training on random halves of its people, for the attacks of model/membership.py.

Shapes: M models, N people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.fitting import TrainingSettings
from model.inputs import HELD_OUT_FOLD, read_codes
from model.network import ProfileNetwork
from model.private_fitting import Privacy
from model.private_training import train_privately
from model.progress import Progress
from model.spec import FeatureSpec
from model.threads import fix_threads
from model.training import train

MOST_PEOPLE = 20_000  # more show the same, and each of many models is trained on half of them
SETTLED = 5  # one part in so many of the steps that settle the encoder
DRAWS = 128
BLOCK = 1024

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shadows:
    """The log likelihood (M, N) of each person's answers under each model, and whether it was trained on them."""

    scores: Floats
    members: Flags


def train_shadows(
    paths: Sequence[Path],
    spec: FeatureSpec,
    settings: TrainingSettings,
    models: int,
    folder: Path,
    privacy: Privacy | None = None,
) -> Shadows:
    """`models` models, each trained on a random half of the people outside fold 0, and validated on all of fold 0.

    Everything else is as it is in a night, the seed too, but that the encoder is settled in fewer steps: it learns from
    simulated people alone, and scores are importance-weighted. People of weight 0 and without an answer are left out:
    nothing is learned from them. `folder` keeps the scores of finished models: what was killed goes on there. Raises
    ModelError as `train` does.
    """
    table = pa.concat_tables([pq.read_table(path) for path in sorted(paths)])
    codes, folds = read_codes(table, spec), table["fold"].to_numpy()
    asked = (codes >= 0).any(axis=1) & (folds != HELD_OUT_FOLD)
    if settings.weight_column is not None:
        asked &= table[settings.weight_column].to_numpy() > 0
    people = np.flatnonzero(asked)[:MOST_PEOPLE]
    folder.mkdir(parents=True, exist_ok=True)
    settings = replace(settings, settle_steps=settings.settle_steps // SETTLED)
    heard = Progress("shadow models", models)
    scores, members = [], []
    for number in range(models):
        heard.tell(number)
        chosen = np.random.default_rng(number).permutation(len(people)) < len(people) // 2
        members.append(chosen)
        file = folder / f"scores-{number:03d}.npy"
        if not file.exists():
            rows = np.sort(np.concatenate([np.flatnonzero(folds == HELD_OUT_FOLD), people[chosen]]))
            network = _train_on(table.take(rows), spec, settings, folder, privacy)
            found = score_people(network, codes[people])
            with (temporary := file.with_suffix(".tmp")).open("wb") as target:
                np.save(target, found)
            temporary.replace(file)
        scores.append(np.load(file))
    return Shadows(np.stack(scores), np.stack(members))


def _train_on(
    table: pa.Table, spec: FeatureSpec, settings: TrainingSettings, folder: Path, privacy: Privacy | None
) -> ProfileNetwork:
    features, checkpoints = folder / "features.parquet", folder / "checkpoints"
    rmtree(checkpoints, ignore_errors=True)  # those of another half
    pq.write_table(table, features)
    if privacy:
        trained = train_privately([features], spec, settings, privacy)
    else:
        trained = train([features], spec, settings, checkpoints, progress=False)
    rmtree(checkpoints, ignore_errors=True)
    features.unlink()
    return trained.network


@torch.no_grad()
def score_people(network: ProfileNetwork, codes: npt.NDArray[np.int8]) -> Floats:
    """Importance-weighted bound (N) of the log likelihood of people's codes (N, items), in nats."""
    with fix_threads(1):
        categories = network.categories(torch.from_numpy(codes))
        bounds = [network.infer(block, DRAWS).bound() for block in torch.split(categories, BLOCK)]
    return np.asarray(torch.cat(bounds).double().numpy())
