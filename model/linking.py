"""Link a later model to the reference population: same items, same unit, and how sure that is.

Later models of a series keep the reference's item parameters (fixed parameter calibration, Kim 2006) and find where
their own population stands and how its traits go together. Whether an item still behaves as it did there is measured
by people's other answers: how far its location would have to move, and by what factor its discrimination would have to
change, to foretell tonight's answers best. An item that has drifted is no anchor any more: its parameters are learned
anew.
Shapes: B people, J items, T traits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import ModelError
from model.likelihood import log_between
from model.network import ProfileNetwork
from model.spec import MISSING, FeatureSpec, TraitSpec
from model.unit import place_population

MOST_PEOPLE = 4096
DRAWS = 16
STEPS = torch.linspace(-1.5, 1.5, 17)  # of a location, in trait sds
FACTORS = torch.linspace(-0.5, 2.5, 13)  # of a discrimination
LARGEST_DRIFT = 0.3  # trait sds: an item that has moved further is no anchor
LARGEST_FACTOR = 1.5  # nor is one whose discrimination has changed by more than this, either way
SURE = 3.0  # standard errors that a drift must exceed
FEWEST_ANSWERS = 30  # fewer do not tell how an item behaves
SEARCHES = 2  # of location and discrimination by turns: they are not independent where an item is hard
UNKNOWN_SE = 1e3
ROUNDS = 4  # a drifted item bears on where the population stands, and that on how far it has drifted


class LinkError(ModelError):
    """A model cannot be given the reference population's unit; `reasons` say why, a sentence for each trait."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(f"The unit of the reference population is lost: {'; '.join(reasons)}.")
        self.reasons = list(reasons)


@dataclass(frozen=True)
class Behaviour:
    """How an item's answers differ from what its parameters say: location in trait sds, factor of its discrimination.

    With standard errors; zero and one where nothing differs.
    """

    location: float
    location_se: float
    factor: float
    factor_se: float


@dataclass(frozen=True)
class Link:
    """`errors` (trait: sd of a mean's unit) enter the variance of a change; a trait that is not linked has none.

    `drifted` items, a trait's worst first, are no anchors, of which each trait has so many.
    """

    errors: dict[str, float]
    drifted: dict[str, list[str]]
    anchors: dict[str, int]


def link_population(
    network: ProfileNetwork, categories: Tensor, weights: Tensor, reference: Mapping[str, Behaviour]
) -> Link:
    """Judge the reference's items and place tonight's population on them, in place, until both agree.

    Items that have drifted say nothing about where the population stands. They are judged before it is placed for the
    first time: where many have lost their sense, a population without variance would explain them as well. `network`
    has the reference's items, `reference` how those behaved there; `categories` (B, J), `weights` (B). Raises LinkError
    where too few items of a trait behave as they did.
    """
    spec = network.spec
    apart: list[str] | None = None
    for _ in range(ROUNDS):
        found = link(spec, reference, measure_items(network, categories, weights, apart or ()))
        # Where too many items seem to have drifted, it may be the population: it is placed on the best of them.
        hidden = sorted(key for t in spec.traits for key in found.drifted[t.key][: len(t.items) - _count_needed(t)])
        if hidden == apart:
            break
        apart = hidden
        place_population(network, hide_items(spec, categories, apart), weights)
    if lost := [trait for trait in spec.traits if trait.key not in found.errors]:
        raise LinkError(
            [
                f"only {found.anchors[trait.key]} of {len(trait.items)} items of trait {trait.key} behave as before"
                for trait in lost
            ]
        )
    return found


def check_spread(network: ProfileNetwork) -> None:
    """Raises LinkError where a trait's sd has changed too much to tell a population from items that have changed."""
    sds = network.prior.covariance().diagonal()[: network.traits].sqrt().tolist()
    reasons = [
        f"trait {trait.key} has an sd of {sd:.2f} reference sds, or its items have changed"
        for trait, sd in zip(network.spec.traits, sds, strict=True)
        if not 1 / LARGEST_FACTOR <= sd <= LARGEST_FACTOR
    ]
    if reasons:
        raise LinkError(reasons)


def hide_items(spec: FeatureSpec, categories: Tensor, keys: Sequence[str]) -> Tensor:
    """The categories (B, J) without answers to some items."""
    hidden = torch.tensor([key in keys for key in spec.columns])
    return categories.masked_fill(hidden, MISSING)


@torch.no_grad()
def measure_items(
    network: ProfileNetwork, categories: Tensor, weights: Tensor, apart: Sequence[str] = ()
) -> dict[str, Behaviour]:
    """Each trait item's behaviour, by maximum likelihood on grids; items that too few answered are left out.

    A person's latents are inferred without the item itself, or the answer would excuse itself, and without the items
    `apart`. `categories` (B, J), `weights` (B).
    """
    spec = network.spec
    categories, weights = categories[: 2 * MOST_PEOPLE], weights[: 2 * MOST_PEOPLE].float()
    found: dict[str, Behaviour] = {}
    for position, item in enumerate(spec.items):
        rows = torch.nonzero((categories[:, position] >= 0) & (weights > 0))[:MOST_PEOPLE, 0]
        if item.trait is not None and len(rows) >= FEWEST_ANSWERS:
            others = hide_items(spec, categories[rows], [item.key, *apart])
            found[item.key] = _measure_item(network, position, categories[rows], others, weights[rows])
    return found


def _measure_item(
    network: ProfileNetwork, position: int, categories: Tensor, others: Tensor, weights: Tensor
) -> Behaviour:
    """Of people (B) who answered the item: `categories` (B, J) with it, `others` those that they are inferred from.

    The discrimination turns about the people's mean. The location is the one with the discrimination as it was.
    """
    inferred = network.infer(others, DRAWS)
    every, spreads = network.place(inferred.latents)
    location, spread = every[..., position], None if spreads is None else spreads[..., position]
    log_mass = inferred.log_weights.log_softmax(dim=0)
    edges = [part[:, position] for part in network.items.gather_edges(categories)]
    slopes = network.items.discriminations()[:, position]
    weights = weights * _count_people(weights) / weights.sum()
    place = inferred.latents[..., : network.traits] @ slopes
    turning = place - (inferred.masses() * place).sum(dim=0) @ weights / weights.sum()

    def score(step: float, factor: float) -> float:
        moved = location - slopes.sum() * step + (factor - 1) * turning
        return float(torch.logsumexp(log_mass + log_between(moved, spread, *edges), dim=0) @ weights)

    location_found = _find_peak(STEPS, [score(value, 1.0) for value in STEPS.tolist()])
    step = location_found[0]
    for search in range(SEARCHES):
        factor, factor_se = _find_peak(FACTORS, [score(step, value) for value in FACTORS.tolist()])
        if search < SEARCHES - 1:
            step, _ = _find_peak(STEPS, [score(value, factor) for value in STEPS.tolist()])
    return Behaviour(*location_found, factor, factor_se)


def _count_people(weights: Tensor) -> float:
    """Kish's (1965) effective number of people."""
    return float(weights.sum().square() / weights.square().sum())


def _find_peak(grid: Tensor, values: Sequence[float]) -> tuple[float, float]:
    """Where the parabola through the highest log likelihood and its neighbours peaks, and the standard error."""
    top = min(max(max(range(len(values)), key=values.__getitem__), 1), len(values) - 2)
    left, middle, right = values[top - 1 : top + 2]
    bend = left - 2 * middle + right
    step = float(grid[1] - grid[0])
    if bend >= 0:
        return float(grid[top]), UNKNOWN_SE
    offset = 0.5 * step * (left - right) / bend
    return float(grid[top]) + max(-step, min(step, offset)), step / math.sqrt(-bend)


def link(spec: FeatureSpec, reference: Mapping[str, Behaviour], now: Mapping[str, Behaviour]) -> Link:
    """Compare items' behaviour with that in the reference population.

    Linking error of a trait, as in PISA (Monseur & Berezner 2007): sqrt(sum (d_j - mean d)^2 / (n (n - 1))) over the
    moves d of its n anchors. A trait needs half of its items, and two at least, as anchors.
    """
    errors, drifted, anchors = {}, {}, {}
    for trait in spec.traits:
        moves, gone = _judge_trait(trait, reference, now)
        drifted[trait.key] = gone
        anchors[trait.key] = len(moves)
        if len(moves) >= _count_needed(trait):
            mean = sum(moves) / len(moves)
            squares = sum((move - mean) ** 2 for move in moves)
            errors[trait.key] = math.sqrt(squares / (len(moves) * (len(moves) - 1)))
    return Link(errors, drifted, anchors)


def _count_needed(trait: TraitSpec) -> int:
    """Anchors that hold a trait's unit."""
    return max(2, math.ceil(len(trait.items) / 2))


def _judge_trait(
    trait: TraitSpec, reference: Mapping[str, Behaviour], now: Mapping[str, Behaviour]
) -> tuple[list[float], list[str]]:
    """The moves of a trait's anchors in trait sds, and its drifted items: those that move otherwise than most.

    What nobody could judge in the reference population was not learned there, and is no anchor.
    """
    unknown = [key for key in trait.items if key not in reference]
    moves, factors = {}, {}
    for key in trait.items:
        if key in now and key in reference:
            then, tonight = reference[key], now[key]
            moves[key] = (tonight.location - then.location, math.hypot(tonight.location_se, then.location_se))
            factors[key] = (tonight.factor - then.factor, math.hypot(tonight.factor_se, then.factor_se))
    if not moves:
        return [], unknown
    middle = float(torch.tensor([move for move, _ in moves.values()]).median())
    sizes = {}
    for key, (move, move_se) in moves.items():
        change, change_se = factors[key]
        moved = abs(move - middle) > max(LARGEST_DRIFT, SURE * move_se)
        within = 1 / LARGEST_FACTOR - 1 <= change <= LARGEST_FACTOR - 1
        if moved or (not within and abs(change) > SURE * change_se):
            sizes[key] = max(abs(move - middle) / LARGEST_DRIFT, abs(change) / (LARGEST_FACTOR - 1))
    gone = [*unknown, *sorted(sizes, key=lambda key: -sizes[key])]
    return [move for key, (move, _) in moves.items() if key not in gone], gone


def free_items(network: ProfileNetwork, keys: Sequence[str]) -> None:
    """Of a network that learns nothing, let the encoder learn, and the parameters of some items."""
    network.encoder.requires_grad_(True)
    chosen = torch.tensor([key in keys for key in network.spec.columns])
    items, shift = network.items, network.shift
    shared = torch.zeros(len(items.log_discrimination), dtype=torch.bool)
    shared[items.shared[chosen]] = True
    _let_learn(items.log_discrimination, shared)
    _let_learn(items.first_threshold, chosen)
    _let_learn(items.raw_gaps, chosen)
    if shift is not None:
        _let_learn(shift.out.weight, chosen.repeat(2))
        _let_learn(shift.out.bias, chosen.repeat(2))


def _let_learn(parameter: Tensor, rows: Tensor) -> None:
    """Only some rows of a parameter: the others' gradient is zero, and so are Adam's steps."""
    parameter.requires_grad_(True)
    mask = rows.float().reshape(-1, *[1] * (parameter.dim() - 1))
    parameter.register_hook(lambda gradient: gradient * mask)  # type: ignore[no-untyped-call]
