"""Read people from feature files with pyarrow: answer counts before a training starts, and the held-out fold."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from model.errors import ModelError
from model.likelihood import to_categories
from model.spec import MISSING, FeatureSpec

HELD_OUT_FOLD = 0
READ_ROWS = 65_536
MOST_HELD_OUT = 65_536  # that are kept: a random part, since features lie in the order of their pseudonyms


@dataclass(frozen=True)
class People:
    """Some rows: codes (rows, items) int8, weights (rows) and folds (rows)."""

    codes: npt.NDArray[np.int8]
    weights: npt.NDArray[np.float64]
    folds: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Counts are weighted, of the training folds' categories (items, most categories); weights have mean 1 there.

    `held_out` has the first MOST_HELD_OUT of `held_out_rows` people, as categories.
    """

    rows: int
    held_out_rows: int
    mean_weight: float
    counts: npt.NDArray[np.float64]
    held_out: Tensor
    held_out_weights: Tensor


def read_codes(table: pa.Table | pa.RecordBatch, spec: FeatureSpec) -> npt.NDArray[np.int8]:
    """Codes (rows, items) of a table's item columns.

    Raises ModelError naming columns that are missing, of another type, hold nulls or codes outside the item's levels.
    """
    spec.check_columns(table.schema)
    columns = [table.column(key) for key in spec.columns]
    if nulls := [key for key, column in zip(spec.columns, columns, strict=True) if column.null_count]:
        raise ModelError(f"Item columns hold nulls: {', '.join(nulls)}. Write {MISSING} where there is no answer.")
    codes = np.empty((table.num_rows, len(columns)), dtype=np.int8)
    for position, column in enumerate(columns):
        codes[:, position] = column.to_numpy()
    if len(codes):
        last = np.array([len(item.levels) - 1 for item in spec.items])
        outside = (codes.min(axis=0) < MISSING) | (codes.max(axis=0) > last)
        if outside.any():
            keys = [spec.columns[position] for position in np.flatnonzero(outside)]
            raise ModelError(f"Item columns hold codes outside their levels: {', '.join(keys)}.")
    return codes


def iterate_people(paths: Sequence[Path], spec: FeatureSpec, weight_column: str | None) -> Iterator[People]:
    """Everybody in the files, in order, some tens of thousands at a time.

    Raises ModelError for files and columns that do not fit, and for weights that are null, negative or infinite.
    """
    extra = ["fold"] if weight_column is None else ["fold", weight_column]
    for path in paths:
        with open_parquet(path) as file:
            spec.check_columns(file.schema_arrow)
            if missing := [name for name in extra if name not in file.schema_arrow.names]:
                raise ModelError(f"{path.name} has no column {', '.join(missing)}: make the features again.")
            for batch in file.iter_batches(READ_ROWS, columns=[*spec.columns, *extra]):
                weights = np.ones(batch.num_rows)
                if weight_column is not None:
                    weights = batch.column(weight_column).to_numpy(zero_copy_only=False).astype(np.float64)
                    if not (np.isfinite(weights) & (weights >= 0)).all():
                        raise ModelError(f"{path.name}: weights in {weight_column} must be finite and not negative.")
                folds = batch.column("fold").to_numpy(zero_copy_only=False).astype(np.int64)
                yield People(read_codes(batch, spec), weights, folds)


def read_sample(paths: Sequence[Path], spec: FeatureSpec, weight_column: str | None, count: int) -> People:
    """The first `count` people of the files: features lie in the order of their pseudonyms, which is a random one."""
    parts, left = [], count
    for people in iterate_people(paths, spec, weight_column):
        parts.append(People(people.codes[:left], people.weights[:left], people.folds[:left]))
        left -= len(parts[-1].codes)
        if left <= 0:
            break
    return People(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.folds for part in parts]),
    )


def read_held_out_labels(paths: Sequence[Path], columns: Sequence[str]) -> dict[str, list[str | None]]:
    """Text columns of the people of `Inputs.held_out`, in its order."""
    labels: dict[str, list[str | None]] = {name: [] for name in columns}
    kept = 0
    for path in paths:
        with open_parquet(path) as file:
            for batch in file.iter_batches(READ_ROWS, columns=[*columns, "fold"]):
                held = batch.filter(pc.equal(batch.column("fold"), HELD_OUT_FOLD))[: MOST_HELD_OUT - kept]
                kept += len(held)
                for name in columns:
                    labels[name] += held.column(name).to_pylist()
                if kept == MOST_HELD_OUT:
                    return labels
    return labels


def read_labels(paths: Sequence[Path], columns: Sequence[str], count: int) -> dict[str, list[str | None]]:
    """Text columns of the files' first `count` people, in the order of `read_sample`."""
    labels: dict[str, list[str | None]] = {name: [] for name in columns}
    left = count
    for path in paths:
        with open_parquet(path) as file:
            for batch in file.iter_batches(min(READ_ROWS, count), columns=list(columns)):
                for name in columns:
                    labels[name] += batch.column(name)[:left].to_pylist()
                left -= min(left, batch.num_rows)
                if left <= 0:
                    return labels
    return labels


def survey_inputs(paths: Sequence[Path], spec: FeatureSpec, weight_column: str | None) -> Inputs:
    """Count the training folds' answers, and keep the held-out fold's people.

    Raises ModelError where either has no weighted answer.
    """
    most = max(len(item.levels) for item in spec.items)
    counts = np.zeros((len(spec.items), most))
    rows, held_rows, total = 0, 0, 0.0
    held_codes, held_weights = [], []
    for people in iterate_people(paths, spec, weight_column):
        held = people.folds == HELD_OUT_FOLD
        left = max(0, MOST_HELD_OUT - held_rows)
        held_codes.append(people.codes[held][:left])
        held_weights.append(people.weights[held][:left])
        held_rows += int(held.sum())
        rows += int((~held).sum())
        total += float(people.weights[~held].sum())
        counts += count_categories(people.codes[~held], people.weights[~held], spec, most)
    if not counts.sum() > 0:
        raise ModelError("Nobody outside fold 0 has an answer and a weight above zero: there is nothing to train on.")
    codes, weights = np.concatenate(held_codes), np.concatenate(held_weights)
    if not (weights[(codes != MISSING).any(axis=1)] > 0).any():
        raise ModelError(
            f"Nobody in fold {HELD_OUT_FOLD}, which is held out of training, has an answer and a weight above zero: "
            "the model could not be judged. More people are needed."
        )
    return Inputs(
        rows=rows,
        held_out_rows=held_rows,
        mean_weight=total / rows,
        counts=counts * rows / total,
        held_out=to_categories(torch.from_numpy(codes), spec),
        held_out_weights=torch.from_numpy(weights / weights.mean()).float(),
    )


def count_categories(
    codes: npt.NDArray[np.int8], weights: npt.NDArray[np.float64], spec: FeatureSpec, most: int
) -> npt.NDArray[np.float64]:
    """Weighted counts (items, most) of the categories of codes (rows, items)."""
    categories = to_categories(torch.from_numpy(codes), spec).numpy()
    return np.stack([np.bincount(column[column >= 0], weights[column >= 0], minlength=most) for column in categories.T])


def open_parquet(path: Path) -> pq.ParquetFile:
    """Raises ModelError naming a file that is missing or no Parquet."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ModelError(f"{path} cannot be read as Parquet: it is missing or damaged.") from error


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
