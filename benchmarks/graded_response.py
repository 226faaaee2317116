"""A graded response model of each scale by itself on a questionnaire; items without a scale have their margins."""

from dataclasses import replace

import numpy as np
import torch

from benchmarks.heldout_data import MISSING, Codes, Questionnaire
from benchmarks.margins import find_margins, predict_margins
from benchmarks.measures import Floats, measure_losses
from benchmarks.scales import Scale, find_partitions
from model.graded_response import find_posterior, fit_scale
from model.validation import HIDDEN_SHARE

MOST_LEARNERS = 1_000  # people who tell which way to share items out is the better one


def predict_with_graded_response(data: Questionnaire) -> Floats:
    return predict_with_scales(data, choose_scales(data))


def choose_scales(data: Questionnaire) -> list[Scale]:
    """Of the ways to share items out among overlapping scales, the one whose graded response models foretell hidden
    answers of the validation people best."""
    ways = find_partitions(data)
    if len(ways) == 1:
        return ways[0]
    people = data.train[data.validation]
    hidden = (np.random.default_rng(1).uniform(size=people.shape) < HIDDEN_SHARE) & (people != MISSING)
    rows, items = np.nonzero(hidden)
    learners = data.train[~data.validation][:MOST_LEARNERS]
    judged = replace(data, train=learners, test=np.where(hidden, MISSING, people), cell_rows=rows, cell_items=items)
    truth = people[rows, items].astype(np.int64)
    return min(ways, key=lambda way: float(measure_losses(predict_with_scales(judged, way), truth).mean()))


def predict_with_scales(data: Questionnaire, scales: list[Scale]) -> Floats:
    """Probabilities (C, K): each person's trait has its posterior given the answers seen in the scale."""
    probabilities = predict_margins(data)
    place = np.full(len(data.items), -1)
    for scale in scales:
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
