"""scikit-learn's histogram gradient boosting, one classifier an item on all the others.

Training people's answers are hidden at random as the test people's are, anew in each of some copies; missing answers
are NaN. Validation people stop the boosting.
"""

import time

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.peers.exchange import MISSING, Floats, Task, blend_with_margins, hide_answers, run_peer

COPIES = 5
SETTINGS = {"learning_rate": 0.05, "max_iter": 500, "max_leaf_nodes": 6, "min_samples_leaf": 20, "n_iter_no_change": 15}


def predict(task: Task) -> tuple[Floats, float]:
    random = np.random.default_rng(int(task.seed))
    probabilities = task.margins[task.cell_items]
    training = 0.0
    for item in np.unique(task.cell_items):
        cells = task.cell_items == item
        start = time.process_time()
        fitted = fit_item(task, int(item), random)
        training += time.process_time() - start
        if fitted is not None:
            model, others = fitted
            found = np.zeros((cells.sum(), probabilities.shape[1]))
            found[:, model.classes_] = model.predict_proba(as_numbers(task.test[task.cell_rows[cells]][:, others]))
            probabilities[cells] = blend_with_margins(found, probabilities[cells])
    return probabilities, training


def fit_item(
    task: Task, item: int, random: np.random.Generator
) -> tuple[HistGradientBoostingClassifier, npt.NDArray[np.int64]] | None:
    """A classifier, and the other items that it reads; None where the training people chose fewer than two levels."""
    answered = task.train[:, item] != MISSING
    learns, judges = answered & ~task.validation, answered & task.validation
    levels = np.unique(task.train[learns, item])
    if len(levels) < 2:
        return None
    inputs, answers = make_rows(task, item, learns, random)
    # The classifier refuses columns that do not vary.
    varies = np.array([len(np.unique(column[~np.isnan(column)])) > 1 for column in inputs.T], dtype=bool)
    if not varies.any():
        return None
    others = np.delete(np.arange(len(task.margins)), item)[varies]
    # A level that nobody learns from cannot be judged.
    judges &= np.isin(task.train[:, item], levels)
    stop = judges.sum() > 0
    model = HistGradientBoostingClassifier(**SETTINGS, early_stopping=bool(stop), random_state=int(task.seed))
    if not stop:
        return model.fit(inputs[:, varies], answers), others
    held_inputs, held_answers = make_rows(task, item, judges, random)
    return model.fit(inputs[:, varies], answers, X_val=held_inputs[:, varies], y_val=held_answers), others


def make_rows(
    task: Task, item: int, chosen: npt.NDArray[np.bool_], random: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Other items' answers (COPIES x rows, J-1), each copy with other answers hidden, and the item's codes."""
    others = np.delete(task.train[chosen], item, axis=1)
    copies = [as_numbers(hide_answers(others, float(task.hidden_share), random).seen) for _ in range(COPIES)]
    return np.concatenate(copies), np.tile(task.train[chosen, item], COPIES).astype(np.int64)


def as_numbers(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    return np.where(codes == MISSING, np.nan, codes).astype(np.float32)


if __name__ == "__main__":
    run_peer(predict)
