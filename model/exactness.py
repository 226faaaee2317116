"""Profiles that were made in coarser numbers, or on a GPU, beside those of the same people in float32."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model.arithmetic import NUMBERS, Arithmetic
from model.errors import ModelError
from model.rewriting import Piece, read_people
from model.scoring import Scorer

PEOPLE = 4096  # of each file that is looked into
# Root mean square: of a trait's mean, in trait sds, a correlation of .99999 where the traits' own sd is 1.
LIMIT = 0.005


@dataclass(frozen=True)
class Deviation:
    """How far profiles lie off float32's: traits' means and sds in trait sds, and probabilities of reaching a cut.

    The `root_mean_square` is of the column that lies farthest off; 0 of nobody.
    """

    people: int
    root_mean_square: float
    largest: float

    def check(self, arithmetic: Arithmetic) -> None:
        """Raises ModelError where it is above the limit, or not a number."""
        if self.root_mean_square <= LIMIT:
            return
        raise ModelError(
            f"In {arithmetic}, profiles lie {self.root_mean_square:.4f} sd off those in float32 (root mean square of "
            f"{self.people:,} people who were scored in both; {LIMIT} at most): nothing is published. Set {NUMBERS}="
            "float32, or MINDCENSUS_DEVICE=cpu where a GPU was used, and score again."
        )


def measure_deviation(exact: Scorer, scored: Iterable[tuple[list[Piece], Path]]) -> Deviation:
    """Of the first people of some profiles files, and of the features that each was made of."""
    found = [_compare(exact, pieces, profiles) for pieces, profiles in scored]
    moved = np.concatenate(found) if found else np.zeros((0, 1))
    if not moved.size:
        return Deviation(0, 0.0, 0.0)
    return Deviation(len(moved), math.sqrt(float(np.square(moved).mean(axis=0).max())), float(np.abs(moved).max()))


def _compare(exact: Scorer, pieces: list[Piece], profiles: Path) -> npt.NDArray[np.float64]:
    """Differences (people, columns)."""
    spec = exact.model.spec
    names = [f"{trait.key}_{part}" for trait in spec.traits for part in ("mean", "sd")]
    names += [scale.cut_column for scale in spec.scales if scale.cut]
    with pq.ParquetFile(profiles) as file:
        written = next(file.iter_batches(PEOPLE, columns=names), None)
    if written is None:
        return np.zeros((0, len(names)))
    people = next(read_people(pieces, spec, [], PEOPLE))
    return _stack(written, names) - _stack(exact.score(people), names)


def _stack(table: pa.Table | pa.RecordBatch, names: list[str]) -> npt.NDArray[np.float64]:
    columns = [table.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))
