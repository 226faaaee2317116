"""How well a network foretells answers that it was not shown, beside what the items' margins alone would say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.design import Design
from model.errors import ModelError
from model.inputs import Inputs
from model.likelihood import smooth_margins
from model.network import ProfileNetwork
from model.plain import PlainNetwork
from model.spec import MISSING, FeatureSpec

BLOCK = 2048
HIDDEN_SHARE = 0.2  # of a held-out person's answers
MOST_PEOPLE = 4096  # more say no more about a training, and each epoch waits for them
FEWEST_CELLS = 4096  # fewer people are asked again, other answers of theirs hidden
MOST_ROUNDS = 4
DRAWS = 32
FLOOR = 1e-9  # a probability of zero would end the training


@dataclass(frozen=True)
class HiddenCells:
    """Held-out people with some answers hidden: `seen` and `hidden` categories (B, J), -1 elsewhere; `weights` (B).

    The B rows are rounds of the same `people`, in the same order.
    """

    seen: Tensor
    hidden: Tensor
    weights: Tensor
    people: int

    def sum_rounds(self, values: Tensor) -> npt.NDArray[np.float64]:
        """Sums of values (B) by person (people)."""
        return np.asarray(values.double().numpy().reshape(-1, self.people).sum(axis=0))

    def to(self, device: str) -> "HiddenCells":
        return HiddenCells(self.seen.to(device), self.hidden.to(device), self.weights.to(device), self.people)


@dataclass(frozen=True)
class Validation:
    """Weighted means on held-out people, in nats: `bound` per person, costs per hidden answer (lower is better)."""

    bound: float
    nats_per_answer: float
    margins_per_answer: float


def hide_cells(inputs: Inputs) -> HiddenCells:
    """The same answers for every training on the same people. Raises ModelError where nothing is left to hide."""
    people, weights = inputs.held_out[:MOST_PEOPLE], inputs.held_out_weights[:MOST_PEOPLE]
    expected = HIDDEN_SHARE * float((people >= 0).sum())
    rounds = int(np.clip(np.ceil(FEWEST_CELLS / max(expected, 1.0)), 1, MOST_ROUNDS))
    count = len(people)
    people, weights = people.repeat(rounds, 1), weights.repeat(rounds)
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(people.shape, generator=generator) < HIDDEN_SHARE
    # Of the smallest surveys no answer might be chosen at all.
    chosen[torch.arange(len(people)), torch.randint(people.shape[1], (len(people),), generator=generator)] = True
    cells = HiddenCells(people.masked_fill(chosen, MISSING), people.masked_fill(~chosen, MISSING), weights, count)
    if not (cells.weights[(cells.hidden >= 0).any(dim=1)] > 0).any():
        raise ModelError("The held-out people have too few answers to judge a model by: more people are needed.")
    return cells


def design_cells(inputs: Inputs, strata: Sequence[str | None], psus: Sequence[str | None]) -> Design:
    """The design of the people whose cells are hidden; `strata` and `psus` are of all that are held out."""
    weights = inputs.held_out_weights[:MOST_PEOPLE].double().numpy()
    return Design.of(weights, strata[:MOST_PEOPLE], psus[:MOST_PEOPLE])


@torch.no_grad()
def cost_people(network: ProfileNetwork | PlainNetwork, cells: HiddenCells, draws: int = DRAWS) -> Tensor:
    """What each person's hidden answers cost (B), in nats, given the answers that are seen."""
    costs = []
    for seen, hidden in zip(torch.split(cells.seen, BLOCK), torch.split(cells.hidden, BLOCK), strict=True):
        inferred = network.infer(seen, draws)
        answers = network.log_prob(inferred.latents, hidden)
        log_mass = inferred.log_weights.log_softmax(dim=0)
        costs.append(-torch.logsumexp(log_mass[..., None] + answers, dim=0).clamp(min=np.log(FLOOR)).sum(dim=1))
    return torch.cat(costs)


def cost_per_answer(costs: Tensor, cells: HiddenCells) -> float:
    """Weighted mean cost of a hidden answer, in nats."""
    answers = (cells.hidden >= 0).sum(dim=1)
    return float((cells.weights * costs).sum() / (cells.weights * answers).sum())


def validate(network: ProfileNetwork, inputs: Inputs) -> Validation:
    cells = hide_cells(inputs)
    with torch.no_grad():
        people = inputs.held_out[:MOST_PEOPLE]
        bounds = torch.cat([network.infer(block, DRAWS).bound() for block in torch.split(people, BLOCK)])
    weights = inputs.held_out_weights[:MOST_PEOPLE]
    cost = cost_per_answer(cost_people(network, cells), cells)
    margins = cost_per_answer(cost_by_margins(cells, inputs, network.spec), cells)
    return Validation(float((weights * bounds).sum() / weights.sum()), cost, margins)


def cost_by_margins(cells: HiddenCells, inputs: Inputs, spec: FeatureSpec) -> Tensor:
    """What each row's hidden answers cost (B), in nats, under the training folds' item margins."""
    margins = torch.from_numpy(smooth_margins(inputs.counts, spec))
    probability = margins[torch.arange(len(spec.items)), cells.hidden.clamp(min=0)]
    costs: Tensor = -(probability.log() * (cells.hidden >= 0)).sum(dim=1)
    return costs
