"""What goes to a peer and comes back: one file of arrays each way.

A peer runs in an environment of its own, so these modules know numpy and the peer's package alone.
Shapes: n training rows, m test rows, J items, C hidden cells, K the most levels of an item.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MISSING = -1


@dataclass(frozen=True)
class Task:
    train: npt.NDArray[np.int8]  # (n, J)
    validation: npt.NDArray[np.bool_]  # (n)
    test: npt.NDArray[np.int8]  # (m, J)
    cell_rows: Integers  # (C)
    cell_items: Integers  # (C)
    margins: Floats  # (J, K): for what a peer has not seen
    hidden_share: npt.NDArray[np.float64]  # ()
    seed: npt.NDArray[np.int64]  # ()

    @property
    def sizes(self) -> Integers:
        return np.asarray((self.margins > 0).sum(axis=1))


@dataclass(frozen=True)
class Cells:
    """People with some answers hidden: what is seen (m, J), and the hidden cells' rows, items and answers (C)."""

    seen: npt.NDArray[np.int8]
    rows: Integers
    items: Integers
    answers: Integers

    def measure(self, probabilities: Floats) -> float:
        """Mean negative log-likelihood of the hidden answers under probabilities (C, K)."""
        return float(-np.log(np.maximum(probabilities[np.arange(len(self.rows)), self.answers], 1e-6)).mean())


def hide_answers(codes: npt.NDArray[np.int8], share: float, random: np.random.Generator) -> Cells:
    hidden = (random.uniform(size=codes.shape) < share) & (codes != MISSING)
    rows, items = np.nonzero(hidden)
    return Cells(np.where(hidden, MISSING, codes).astype(np.int8), rows, items, codes[rows, items].astype(np.int64))


def blend_with_margins(probabilities: Floats, margins: Floats, share: float = 1e-3) -> Floats:
    """No level that exists is impossible: (C, K) with the items' margins (C, K) mixed in."""
    mixed = (1 - share) * probabilities + share * margins
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


def save_task(task: Task, path: Path) -> None:
    np.savez(path, **asdict(task))


def run_peer(predict: Callable[[Task], tuple[Floats, float]]) -> None:
    """Read the task that the first argument names; write probabilities and seconds to the second.

    `predict` returns probabilities (C, K), and the seconds of processor time that training took.
    """
    with np.load(sys.argv[1]) as file:
        task = Task(**{name: file[name] for name in file.files})
    probabilities, training = predict(task)
    np.savez(sys.argv[2], probabilities=probabilities, training=training)
