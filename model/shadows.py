"""Shadow models: the night's own training on random halves of its people, for the attacks of model/membership.py.

Shapes: M models, N people.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from shutil import rmtree
from threading import Thread

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
from model.spec import PERSON, FeatureSpec
from model.threads import fix_threads
from model.training import train

MOST_PEOPLE = 20_000  # more show the same, and each of many models is trained on half of them
SETTLED = 5  # one part in so many of the steps that settle the encoder
DRAWS = 128
BLOCK = 1024
HELD_OUT, PEOPLE = "held_out.parquet", "people.parquet"  # of the scratch folder

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
    nothing is learned from them. One model a core is trained at a time. `folder` keeps the scores of finished models:
    what was killed goes on there. Raises ModelError as `train` does.
    """
    spec = replace(spec, covariates=())  # they bend neither items nor scores
    table = pa.concat_tables([pq.read_table(path) for path in sorted(paths)])
    names = [*spec.columns, "fold", *([settings.weight_column] if settings.weight_column else [])]
    nobody = pa.array(range(len(table))).cast(pa.string())  # what is written has no pseudonym
    table = table.select(names).append_column(PERSON, nobody)
    codes, folds = read_codes(table, spec), table["fold"].to_numpy()
    asked = (codes >= 0).any(axis=1) & (folds != HELD_OUT_FOLD)
    if settings.weight_column is not None:
        asked &= table[settings.weight_column].to_numpy() > 0
    people = np.flatnonzero(asked)[:MOST_PEOPLE]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.take(np.flatnonzero(folds == HELD_OUT_FOLD)), folder / HELD_OUT)
    pq.write_table(table.take(people), folder / PEOPLE)
    del table
    settings = replace(settings, settle_steps=settings.settle_steps // SETTLED)
    files = [folder / f"scores-{number:03d}.npy" for number in range(models)]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    heard = Progress("shadow models", models)
    with ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        work = partial(_train_shadow, folder=folder, spec=spec, settings=settings, privacy=privacy)
        trained = pool.map(work, missing, [files[number] for number in missing])
        for place, _ in enumerate(trained, models - len(missing) + 1):
            heard.tell(place)
    for name in (HELD_OUT, PEOPLE):
        (folder / name).unlink()
    members = [choose_members(number, len(people)) for number in range(models)]
    return Shadows(np.stack([np.load(file) for file in files]), np.stack(members))


def choose_members(number: int, people: int) -> Flags:
    """Who of so many people (N) shadow model `number` is trained on."""
    return np.random.default_rng(number).permutation(people) < people // 2


def _train_shadow(
    number: int, file: Path, folder: Path, spec: FeatureSpec, settings: TrainingSettings, privacy: Privacy | None
) -> None:
    """Writes everybody's scores under one model."""
    people = pq.read_table(folder / PEOPLE)
    scratch = folder / f"{number:03d}"
    rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    members = people.filter(pa.array(choose_members(number, len(people))))
    features = scratch / "features.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(folder / HELD_OUT), members]), features)
    if privacy:
        trained = train_privately([features], spec, settings, privacy)
    else:
        trained = train([features], spec, settings, scratch / "checkpoints", progress=False)
    with (temporary := file.with_suffix(".tmp")).open("wb") as target:
        np.save(target, score_people(trained.network, read_codes(people, spec)))
    rmtree(scratch)
    temporary.replace(file)


def _end_with_parent() -> None:
    """Of a process of the pool: a parent that was killed cannot end it."""
    parent = parent_process()
    assert parent
    Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


@torch.no_grad()
def score_people(network: ProfileNetwork, codes: npt.NDArray[np.int8]) -> Floats:
    """Importance-weighted bound (N) of the log likelihood of people's codes (N, items), in nats."""
    with fix_threads(1):
        categories = network.categories(torch.from_numpy(codes))
        bounds = [network.infer(block, DRAWS).bound() for block in torch.split(categories, BLOCK)]
    return np.asarray(torch.cat(bounds).double().numpy())
