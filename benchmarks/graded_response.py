"""A graded response model of each scale by itself on a questionnaire; items without a scale have their margins."""

import numpy as np
import torch

from benchmarks.heldout_data import MISSING, Codes, Questionnaire
from benchmarks.margins import find_margins, predict_margins
from benchmarks.measures import Floats
from benchmarks.scales import Scale, find_scales
from model.graded_response import find_posterior, fit_scale


def predict_with_graded_response(data: Questionnaire) -> Floats:
    """Probabilities (C, K): each person's trait has its posterior given the answers seen in the scale."""
    probabilities = predict_margins(data)
    place = np.full(len(data.items), -1)
    for scale in find_scales(data):
        items = list(scale.items)
        codes = turn(data.train, data, scale)
        table = fit_scale(codes, find_margins(codes, data.sizes[items]))
        posterior = find_posterior(torch.from_numpy(turn(data.test, data, scale)), table)
        found = torch.einsum("nq,qjk->njk", posterior, table).numpy()
        place[:] = -1
        place[items] = np.arange(len(items))
        for cell in np.flatnonzero(place[data.cell_items] >= 0):
            item = data.cell_items[cell]
            values = found[data.cell_rows[cell], place[item], : data.sizes[item]]
            flipped = scale.flipped[place[item]]
            probabilities[cell, : data.sizes[item]] = values[::-1] if flipped else values
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def turn(codes: Codes, data: Questionnaire, scale: Scale) -> Codes:
    """The scale's codes (n, J), flipped items turned round."""
    chosen = codes[:, scale.items]
    turned = (data.sizes[list(scale.items)] - 1 - chosen).astype(np.int8)
    return np.where(np.array(scale.flipped) & (chosen != MISSING), turned, chosen).astype(np.int8)
