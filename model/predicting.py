"""What a network foretells of held-out people's hidden answers, answer by answer, beside what they were.

Shapes: A hidden answers, B rows of hidden cells, of which rounds of the same P people are made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.network import ProfileNetwork
from model.validation import HiddenCells

COVERAGE = 0.90
DRAWS = 32
BLOCK = 2048
SEED = 2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Foretold:
    """Of each hidden answer (A): its `row` (of B), `item` and person's weight; whether it lies `inside` the middle 90 %
    of what was foretold (0 or 1); the person's level of the item's `trait`, NaN where it has none; the expected less
    the given score, `error`.
    """

    row: Integers
    item: Integers
    weight: Floats
    inside: Floats
    trait: Floats
    error: Floats
    people: int

    @property
    def person(self) -> Integers:
        return self.row % self.people


@torch.no_grad()
def foretell_hidden(network: ProfileNetwork, cells: HiddenCells) -> Foretold:
    """Answers are discrete, so where one lies is drawn within its category's probability (randomised PIT, Czado,
    Gneiting & Held 2009): under a true model 90 % are inside."""
    loads, loose = network.items.loads.argmax(dim=0), network.items.loads.sum(dim=0) == 0
    generator = torch.Generator().manual_seed(SEED)
    parts = []
    for start in range(0, len(cells.seen), BLOCK):
        seen, hidden = cells.seen[start : start + BLOCK], cells.hidden[start : start + BLOCK]
        probability = network.predict(seen, DRAWS)
        row, item = torch.nonzero(hidden >= 0, as_tuple=True)
        cell, answer = probability[row, item], hidden[row, item][:, None]
        below = (cell.cumsum(dim=1) - cell).gather(1, answer)[:, 0]
        place = below + torch.rand(len(row), generator=generator) * cell.gather(1, answer)[:, 0]
        scores = network.items.category_scores[item]
        error = (cell * scores).sum(dim=1) - scores.gather(1, answer)[:, 0]
        trait = network.posterior(seen).mean[row, loads[item]].masked_fill(loose[item], math.nan)
        parts.append((row + start, item, cells.weights[start : start + BLOCK][row], place, trait, error))
    row, item, weight, place, trait, error = (torch.cat(columns) for columns in zip(*parts, strict=True))
    inside = (place.double() - 0.5).abs() <= COVERAGE / 2
    weight, inside, trait, error = (column.double() for column in (weight, inside, trait, error))
    floats = weight.numpy(), inside.numpy(), trait.numpy(), error.numpy()
    return Foretold(row.numpy(), item.numpy(), *floats, people=cells.people)
