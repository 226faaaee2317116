"""People with known traits who answer graded response items, and their feature files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from model.spec import FeatureSpec, ItemSpec, ScaleSpec, TraitSpec

CORRELATION = 0.6


def make_spec(
    sizes: Sequence[int] = (5, 4),
    levels: int = 4,
    loose: int = 0,
    flipped: int | None = None,
    cuts: Sequence[str | None] = (),
) -> FeatureSpec:
    """Traits t0, t1, ... of so many items, and their scales, with `cuts`.

    `loose` items have no trait; the items of trait `flipped` are turned round.
    """
    items, traits, scales = [], [], []
    for number, size in enumerate(sizes):
        keys = tuple(f"t{number}_{position}" for position in range(size))
        items += [ItemSpec(key, tuple(range(levels)), f"t{number}", number == flipped) for key in keys]
        traits.append(TraitSpec(f"t{number}", keys))
        scales.append(ScaleSpec(f"s{number}", keys, cut=cuts[number] if cuts else None))
    items += [ItemSpec(f"loose_{position}", (0, 1, 2), None, False) for position in range(loose)]
    return FeatureSpec(tuple(items), tuple(traits), tuple(scales), "simulated", "1")


def simulate(
    spec: FeatureSpec, people: int, seed: int = 1, missing: float = 0.1, correlation: float = CORRELATION
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (people, items) int8 and true traits (people, traits); an item is the same whatever the seed."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    names = [trait.key for trait in spec.traits]
    covariance = np.full((len(names), len(names)), correlation) + (1 - correlation) * np.eye(len(names))
    traits = random.multivariate_normal(np.zeros(len(names)), covariance, people)
    codes = np.empty((people, len(spec.items)), dtype=np.int8)
    for position, item in enumerate(spec.items):
        slope = fixed.uniform(1.2, 2.2) if item.trait else 0.0
        thresholds = np.sort(fixed.normal(0.8, 1.0, len(item.levels) - 1))
        theta = traits[:, names.index(item.trait)] if item.trait else np.zeros(people)
        reached = random.uniform(size=people)[:, None] < expit(slope * theta[:, None] - thresholds)
        category = reached.sum(axis=1)
        codes[:, position] = len(item.levels) - 1 - category if item.flipped else category
    codes[random.uniform(size=codes.shape) < missing] = -1
    return codes, traits


def write_features(folder: Path, spec: FeatureSpec, codes: np.ndarray, weights: np.ndarray | None = None) -> list[Path]:
    """Two feature files of several row groups; every tenth person is in fold 0."""
    folder.mkdir(parents=True, exist_ok=True)
    people = len(codes)
    table = pa.table(
        {
            "person_id": [f"p{number:06d}" for number in range(people)],
            **{key: codes[:, position] for position, key in enumerate(spec.columns)},
            "weight": np.ones(people) if weights is None else weights,
            "fold": (np.arange(people) % 10).astype(np.int8),
        }
    )
    half = (people + 1) // 2
    paths = [folder / "part-0.parquet", folder / "part-1.parquet"]
    for path, part in zip(paths, (table.slice(0, half), table.slice(half)), strict=True):
        pq.write_table(part, path, row_group_size=max(1, half // 2))
    return paths
