"""What hidden answers cost, for everybody and by cohort, beside guessing by the items' margins alone.

Shapes: B rows of hidden cells, of P held-out people, J items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.inputs import Inputs
from model.likelihood import smooth_margins
from model.network import ProfileNetwork
from model.spec import FeatureSpec
from model.validation import MOST_PEOPLE, HiddenCells, cost_people, hide_cells

FEWEST_PEOPLE = 50  # figures of fewer are withheld

Floats = npt.NDArray[np.float64]
Groups = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class GroupCost:
    """Weighted means in nats per hidden answer (lower is better); `gain` is margins less model, with its se.

    All None where fewer than FEWEST_PEOPLE have a hidden answer. `column` is empty for everybody.
    """

    column: str
    group: str
    people: int | None
    model: float | None
    margins: float | None
    gain: float | None
    gain_se: float | None


@torch.no_grad()
def cost_groups(network: ProfileNetwork, inputs: Inputs, groups: Groups) -> list[GroupCost]:
    """Everybody, then each group of each column, groups in order of name.

    `groups` are the labels of the held-out people, as `read_held_out_labels` gives them.
    """
    cells = hide_cells(inputs)
    own = cost_people(network, cells).double().numpy()
    margins = cost_by_margins(cells, inputs, network.spec).double().numpy()
    # People are asked several times where they are few: rows of one person belong together.
    person = np.arange(len(own)) % min(len(inputs.held_out), MOST_PEOPLE)
    judge = _Judge(cells, own, margins, person)
    found = [judge.measure("", "", np.ones(len(own), dtype=bool))]
    for column, values in groups.items():
        of_row = np.array(values, dtype=object)[person]
        for group in sorted({value for value in values if value is not None}):
            found.append(judge.measure(column, group, of_row == group))
    return found


def cost_by_margins(cells: HiddenCells, inputs: Inputs, spec: FeatureSpec) -> Tensor:
    """What each row's hidden answers cost (B), in nats, under the training folds' item margins."""
    margins = torch.from_numpy(smooth_margins(inputs.counts, spec))
    probability = margins[torch.arange(len(spec.items)), cells.hidden.clamp(min=0)]
    costs: Tensor = -(probability.log() * (cells.hidden >= 0)).sum(dim=1)
    return costs


@dataclass(frozen=True)
class _Judge:
    """Costs of rows (B) by the model and by the margins, and whose row each is."""

    cells: HiddenCells
    own: Floats
    margins: Floats
    person: npt.NDArray[np.int64]

    def measure(self, column: str, group: str, member: npt.NDArray[np.bool_]) -> GroupCost:
        answers = (self.cells.hidden >= 0).sum(dim=1).double().numpy() * member
        weights = self.cells.weights.double().numpy()
        people = len(np.unique(self.person[(answers > 0) & (weights > 0)]))
        if people < FEWEST_PEOPLE:
            return GroupCost(column, group, None, None, None, None, None)
        total = float((weights * answers).sum())
        model, margins = (float((weights * costs * member).sum()) / total for costs in (self.own, self.margins))
        gain = margins - model
        # A ratio of weighted sums: its se by linearisation, people as clusters.
        scores = np.bincount(self.person, weights * ((self.margins - self.own) * member - gain * answers))
        return GroupCost(column, group, people, model, margins, gain, float(np.sqrt(np.square(scores).sum())) / total)
