"""Item margins: what can be said of an answer without the person's others."""

import numpy as np

from benchmarks.heldout_data import Codes, Integers, Questionnaire
from benchmarks.measures import Floats

PSEUDO_COUNT = 0.5  # spread over an item's levels: one that nobody chose keeps a probability


def find_margins(codes: Codes, sizes: Integers) -> Floats:
    """Shares (J, K) of each item's levels among the answers of `codes` (n, J); zero beyond its last level."""
    exists = np.arange(sizes.max()) < sizes[:, None]
    counts = np.stack([(codes == level).sum(axis=0) for level in range(sizes.max())], axis=1)
    smoothed = np.where(exists, counts + PSEUDO_COUNT / sizes[:, None], 0.0)
    return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True))


def predict_margins(data: Questionnaire) -> Floats:
    return find_margins(data.train, data.sizes)[data.cell_items]
