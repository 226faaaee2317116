"""Read a folder of a questionnaire with hidden answers: who trains, what is seen of the others, what is asked.

`train.parquet` and `test_input.parquet` hold row, person and the items (null: no answer), `test_cells.parquet` the row
and item of every hidden answer, `meta.json` the items, their levels and, perhaps, `keys`: a scale's items, with "-" in
front of those that are scored the other way round.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Codes = npt.NDArray[np.int8]
Integers = npt.NDArray[np.int64]

MISSING = -1
VALIDATION_SHARE = 0.1


class DataError(Exception):
    """The folder's files do not fit together; the message says where."""


@dataclass(frozen=True)
class Questionnaire:
    """n training rows, m test rows, J items, C hidden cells. Codes are 0..K-1 in ascending order of levels."""

    name: str
    items: tuple[str, ...]
    levels: tuple[tuple[float, ...], ...]
    keys: dict[str, tuple[str, ...]]
    train: Codes  # (n, J)
    validation: npt.NDArray[np.bool_]  # (n): rows of the people who choose between settings
    rows: npt.NDArray[Any]  # (m): the test rows' names
    test: Codes  # (m, J), hidden cells missing
    cell_rows: Integers  # (C): positions in `rows`
    cell_items: Integers  # (C): positions in `items`

    @property
    def sizes(self) -> Integers:
        """Levels of each item (J)."""
        return np.array([len(levels) for levels in self.levels])

    @property
    def hidden_share(self) -> float:
        """Of the test people's answers, how many are hidden."""
        seen = int((self.test != MISSING).sum())
        return len(self.cell_rows) / max(1, seen + len(self.cell_rows))


def read_questionnaire(folder: Path) -> Questionnaire:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        train = pd.read_parquet(folder / "train.parquet")
        test = pd.read_parquet(folder / "test_input.parquet")
        cells = pd.read_parquet(folder / "test_cells.parquet")
    except OSError as error:
        raise DataError(f"The folder {folder} lacks a file: {error}.") from error
    items = tuple(meta["items"])
    levels = tuple(tuple(sorted(set(meta["levels"][item]))) for item in items)
    rows = test["row"].to_numpy()
    cell_rows = find_positions(cells["row"], rows, "test_cells.parquet: row")
    cell_items = find_positions(cells["item"], np.array(items), "test_cells.parquet: item")
    test_codes = encode_answers(test, items, levels)
    test_codes[cell_rows, cell_items] = MISSING
    people = train["person"].fillna(train["row"].astype(str)) if "person" in train else train["row"]
    return Questionnaire(
        name=meta.get("dataset", folder.name),
        items=items,
        levels=levels,
        keys={scale: tuple(members) for scale, members in (meta.get("keys") or {}).items()},
        train=encode_answers(train, items, levels),
        validation=choose_validation(people.astype(str).to_numpy()),
        rows=rows,
        test=test_codes,
        cell_rows=cell_rows,
        cell_items=cell_items,
    )


def encode_answers(table: pd.DataFrame, items: tuple[str, ...], levels: tuple[tuple[float, ...], ...]) -> Codes:
    """Codes (rows, items); an item that the table lacks was answered by nobody."""
    codes = np.full((len(table), len(items)), MISSING, dtype=np.int8)
    for position, (item, scale) in enumerate(zip(items, levels, strict=True)):
        if item not in table:
            continue
        values = pd.to_numeric(table[item], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        answered = ~np.isnan(values)
        unknown = ~np.isin(values[answered], scale)
        if unknown.any() or answered.sum() < table[item].notna().sum():
            raise DataError(f"Item {item} holds answers that are none of its levels {list(scale)}.")
        codes[answered, position] = np.searchsorted(scale, values[answered])
    return codes


def find_positions(wanted: pd.Series, names: npt.NDArray[Any], what: str) -> Integers:
    """Where each of `wanted` stands in `names`, all of which differ."""
    positions = pd.Index(names).get_indexer(pd.Index(wanted))
    if (positions < 0).any():
        raise DataError(f"{what} {wanted.iloc[int(np.argmin(positions))]} is unknown.")
    return np.asarray(positions, dtype=np.int64)


def choose_validation(people: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """A tenth of the people (at least one) by a hash of their names: nobody stands on both sides."""
    names = sorted(set(people), key=lambda name: hashlib.sha256(str(name).encode()).digest())
    chosen = names[: max(1, round(len(names) * VALIDATION_SHARE))]
    return np.isin(people, chosen)


def read_truth(folder: Path, data: Questionnaire) -> Integers | None:
    """Codes (C) of the hidden answers, in the order of the cells; None where the folder does not tell."""
    if not (folder / "truth.parquet").exists():
        return None
    truth = pd.read_parquet(folder / "truth.parquet")
    cells = pd.DataFrame({"row": data.rows[data.cell_rows], "item": np.array(data.items)[data.cell_items]})
    answers = cells.merge(truth, on=["row", "item"], how="left", validate="one_to_one")["answer"].to_numpy(dtype=float)
    if np.isnan(answers).any():
        raise DataError("truth.parquet does not hold every hidden answer.")
    scales = [data.levels[item] for item in data.cell_items]
    return np.array([scale.index(answer) for scale, answer in zip(scales, answers, strict=True)])


def write_predictions(data: Questionnaire, probabilities: npt.NDArray[np.float64], path: Path) -> None:
    """One line a hidden cell: row, item, p0, p1, ... (null beyond an item's last level)."""
    beyond = np.arange(probabilities.shape[1]) >= data.sizes[data.cell_items][:, None]
    table = pd.DataFrame({"row": data.rows[data.cell_rows], "item": np.array(data.items)[data.cell_items]})
    values = np.where(beyond, np.nan, probabilities)
    for level in range(probabilities.shape[1]):
        table[f"p{level}"] = values[:, level]
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)
