"""What hidden answers cost, for everybody and by cohort, beside the items' margins and the usual model of each scale.

Shapes: B rows of hidden cells, of P held-out people, J items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.design import Design
from model.graded_response import find_posterior, fit_scale
from model.inputs import HELD_OUT_FOLD, Inputs, People
from model.likelihood import smooth_margins, to_categories
from model.network import ProfileNetwork
from model.spec import FeatureSpec
from model.validation import cost_by_margins, cost_people, cost_per_answer, hide_cells

FEWEST_PEOPLE = 50  # figures of fewer are withheld

Floats = npt.NDArray[np.float64]
Groups = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class GroupCost:
    """Weighted means in nats per hidden answer (lower is better); `gain` is margins less model, with its
    design-based 95 % interval, None where the group has no degrees of freedom.

    All None where fewer than FEWEST_PEOPLE have a hidden answer. `column` is empty for everybody.
    """

    column: str
    group: str
    people: int | None
    model: float | None
    margins: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None


@torch.no_grad()
def cost_groups(network: ProfileNetwork, inputs: Inputs, groups: Groups, design: Design) -> list[GroupCost]:
    """Everybody, then each group of each column, groups in order of name.

    `groups` are the labels of the held-out people, as `read_held_out_labels` gives them; `design` is theirs.
    """
    cells = hide_cells(inputs)
    own, margins = cost_people(network, cells), cost_by_margins(cells, inputs, network.spec)
    # People are asked several times where they are few: rows of one person belong together.
    answers = cells.sum_rounds((cells.hidden >= 0).sum(dim=1))
    judge = _Judge(cells.sum_rounds(own), cells.sum_rounds(margins), answers, design)
    found = [judge.measure("", "", np.ones(cells.people, dtype=bool))]
    for column, values in groups.items():
        of_person = np.array(values, dtype=object)[: cells.people]
        for group in sorted({value for value in values if value is not None}):
            found.append(judge.measure(column, group, of_person == group))
    return found


def cost_by_scales(inputs: Inputs, people: People, spec: FeatureSpec) -> float:
    """The same answers' weighted mean cost, in nats, under a graded response model of each trait's items by themselves.

    Fitted to the training folds' among some `people`. Items without a trait have their margins.
    """
    cells, margins = hide_cells(inputs), smooth_margins(inputs.counts, spec)
    training = (people.folds != HELD_OUT_FOLD) & (people.weights > 0)
    categories = to_categories(torch.from_numpy(people.codes[training]), spec).numpy().astype(np.int8)
    costs = cost_by_margins(cells, inputs, spec)
    for trait in spec.traits:
        places = [spec.columns.index(key) for key in trait.items]
        table = fit_scale(categories[:, places], margins[places], people.weights[training])
        given = find_posterior(cells.seen[:, places], table) @ table.flatten(1)
        hidden = cells.hidden[:, places]
        asked = hidden.clamp(min=0)[..., None]
        found = given.view(len(given), *table.shape[1:]).gather(2, asked)[..., 0]
        alone = torch.from_numpy(margins)[places, asked[..., 0]]
        costs += ((alone.log() - found.log()) * (hidden >= 0)).sum(dim=1)
    return cost_per_answer(costs, cells)


@dataclass(frozen=True)
class _Judge:
    """Costs of people's (P) hidden answers by the model and by the margins, how many those are, and the design."""

    own: Floats
    margins: Floats
    answers: Floats
    design: Design

    def measure(self, column: str, group: str, member: npt.NDArray[np.bool_]) -> GroupCost:
        answers = self.answers * member
        people = int(((answers > 0) & (self.design.weights > 0)).sum())
        if people < FEWEST_PEOPLE:
            return GroupCost(column, group, None, None, None, None, None, None)
        model, margins = (
            self.design.estimate_ratio(costs * member, answers).value for costs in (self.own, self.margins)
        )
        gain = self.design.estimate_ratio((self.margins - self.own) * member, answers)
        return GroupCost(column, group, people, model, margins, gain.value, gain.low, gain.high)
