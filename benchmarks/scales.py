"""Scales as traits: an item loads on one trait; a scale within another, or of one item, is none."""

from dataclasses import dataclass

import numpy as np

from benchmarks.heldout_data import MISSING, Codes, Questionnaire


@dataclass(frozen=True)
class Scale:
    """Item positions, and which of them are scored the other way round."""

    key: str
    items: tuple[int, ...]
    flipped: tuple[bool, ...]


def find_partitions(data: Questionnaire) -> list[list[Scale]]:
    """The scales that make traits; one of all items that have two levels or more where the keys name none.

    An item loads on one trait. Where scales overlap there are two ways: it stays with the first scale that names it, or
    with the shortest.
    """
    usable = {item: position for position, item in enumerate(data.items) if data.sizes[position] > 1}
    named = (parse_scale(key, members, usable) for key, members in data.keys.items())
    scales = [scale for scale in named if len(scale.items) > 1]
    first = part_items(scales)
    if first:
        items = [item for scale in drop_nested(scales) for item in scale.items]
        if len(items) == len(set(items)):
            return [first]
        return [first, part_items(sorted(scales, key=lambda scale: len(scale.items)), nested=True)]
    positions = tuple(usable.values())
    return [[Scale("all", positions, find_directions(data.train[:, positions]))] if len(usable) > 1 else []]


def part_items(scales: list[Scale], nested: bool = False) -> list[Scale]:
    """Of scales of two items or more, such that have no item in common; those within another go unless `nested`."""
    while True:
        kept = share_out(scales if nested else drop_nested(scales))
        short = [scale.key for scale in kept if len(scale.items) < 2]
        if not short:
            return kept
        # What a scale loses to earlier ones may leave it with a single item, which is free for later ones then.
        scales = [scale for scale in scales if scale.key != short[0]]


def parse_scale(key: str, members: tuple[str, ...], usable: dict[str, int]) -> Scale:
    """Known items, each once; an item's name may itself begin with "-"."""
    found: dict[int, bool] = {}
    for member in members:
        flipped = member not in usable and member.startswith("-")
        if (position := usable.get(member.removeprefix("-") if flipped else member)) is not None:
            found.setdefault(position, flipped)
    return Scale(key, tuple(found), tuple(found.values()))


def drop_nested(scales: list[Scale]) -> list[Scale]:
    """Without the scales whose items all stand in another; of equal ones the first stays."""
    sets = [frozenset(scale.items) for scale in scales]
    return [
        scale
        for number, scale in enumerate(scales)
        if not any(sets[number] < other for other in sets) and sets[number] not in sets[:number]
    ]


def share_out(scales: list[Scale]) -> list[Scale]:
    """Each item stays in its first scale alone."""
    taken: set[int] = set()
    shared = []
    for scale in scales:
        free = [number for number, item in enumerate(scale.items) if item not in taken]
        taken.update(scale.items)
        shared.append(
            Scale(scale.key, tuple(scale.items[number] for number in free), tuple(scale.flipped[n] for n in free))
        )
    return shared


def find_directions(codes: Codes) -> tuple[bool, ...]:
    """Which items (rows, items) run against the others: the signs of the first principal axis."""
    answers = np.where(codes == MISSING, np.nan, codes.astype(float))
    answered = np.maximum((codes != MISSING).sum(axis=0), 1)
    centred = np.nan_to_num(answers - np.nansum(answers, axis=0) / answered)
    sd = np.sqrt((centred**2).sum(axis=0) / answered)
    standard = centred / np.where(sd > 0, sd, 1.0)
    axis = np.linalg.eigh(standard.T @ standard)[1][:, -1]
    against = axis < 0 if (axis < 0).sum() * 2 <= len(axis) else axis > 0
    return tuple(bool(value) for value in against)
