from dataclasses import replace

import numpy as np
import pytest

from benchmarks.graded_response import choose_scales
from benchmarks.heldout_data import Questionnaire
from benchmarks.profile_model import make_spec, predict_cells, write_features
from benchmarks.scales import find_directions, find_partitions
from model.inputs import survey_inputs
from model.network import ProfileNetwork


def make_data(keys, levels=3, items="abcdef", train=None):
    codes = np.zeros((4, len(items)), np.int8) if train is None else train
    return Questionnaire(
        name="made",
        items=tuple(items),
        levels=tuple(tuple(range(levels)) for _ in items),
        keys={key: tuple(members) for key, members in keys.items()},
        train=codes,
        validation=np.arange(len(codes)) == 0,
        rows=np.array([5]),
        test=np.full((1, len(items)), -1, np.int8),
        cell_rows=np.array([0]),
        cell_items=np.array([0]),
    )


def describe(scales):
    return {
        scale.key: " ".join(
            "-" * turned + "abcdef"[item] for item, turned in zip(scale.items, scale.flipped, strict=True)
        )
        for scale in scales
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"s": ["a", "-b"], "t": ["c", "d"]}, {"s": "a -b", "t": "c d"}),
        # An item of two scales loads on the first.
        ({"s": ["a", "b"], "t": ["-b", "c", "d"]}, {"s": "a b", "t": "c d"}),
        # Nested scales, the same scale twice, and scales of one item are no traits.
        ({"s": ["a", "b"], "t": ["a", "b", "c"]}, {"t": "a b c"}),
        ({"s": ["a", "b"], "t": ["b", "a"]}, {"s": "a b"}),
        ({"s": ["a"], "t": ["b", "c"]}, {"t": "b c"}),
        # What is left of t is one item, which u may have.
        ({"s": ["a", "b"], "t": ["b", "c"], "u": ["c", "d"]}, {"s": "a b", "u": "c d"}),
        # Unknown items, and an item twice in a scale.
        ({"s": ["a", "b", "z", "-a"]}, {"s": "a b"}),
        # No scale of two items: one of all.
        ({}, {"all": "a b c d e f"}),
        ({"s": ["a"], "t": ["z", "y"]}, {"all": "a b c d e f"}),
    ],
)
def test_scales_become_traits(keys, expected):
    assert describe(find_partitions(make_data(keys))[0]) == expected


def test_overlapping_scales_may_share_items_out_by_their_length():
    ways = find_partitions(make_data({"s": ["a", "b", "c", "d"], "t": ["d", "e"], "u": ["a", "-b"]}))
    assert [describe(way) for way in ways] == [{"s": "a b c d"}, {"t": "d e", "u": "a -b"}]
    assert len(find_partitions(make_data({"s": ["a", "b", "c"], "u": ["a", "-b"]}))) == 1  # nested is not overlapping


def test_the_way_that_foretells_better_is_taken():
    """Six items of three pairs that have nothing to do with one another: one scale of all, and each pair's own."""
    random = np.random.default_rng(1)
    train = np.repeat(random.integers(0, 3, (400, 3)), 2, axis=1).astype(np.int8)
    keys = {"all": ["a", "c", "d", "e"], "p": ["a", "b"], "q": ["c", "d"], "r": ["e", "f"]}
    data = replace(make_data(keys, train=train), validation=np.arange(400) % 4 == 0)
    assert describe(choose_scales(data)) == {"p": "a b", "q": "c d", "r": "e f"}


def test_an_item_whose_name_begins_with_a_dash():
    [scales] = find_partitions(replace(make_data({"s": ["-x", "--x", "b"]}), items=("-x", "b", "c", "d", "e", "f")))
    assert scales[0].items == (0, 1) and scales[0].flipped == (False, False)


def test_items_of_one_level_are_in_no_scale():
    data = make_data({"s": ["a", "b"], "t": ["c", "d"]})
    data = replace(data, levels=((1,), *data.levels[1:]))
    assert describe(find_partitions(data)[0]) == {"t": "c d"}
    spec, positions = make_spec(data)
    assert positions.tolist() == [1, 2, 3, 4, 5]
    assert [item.trait for item in spec.items] == [None, "trait_0", "trait_0", None, None]


def test_a_questionnaire_of_one_item_has_no_spec():
    assert make_spec(make_data({}, items="a"))[0] is None


def test_directions_without_keys():
    random = np.random.default_rng(1)
    trait = random.normal(size=500)
    codes = np.stack([sign * trait + random.normal(size=500) > 0 for sign in (1, -1, 1, 1)], axis=1).astype(np.int8)
    codes[random.uniform(size=codes.shape) < 0.2] = -1
    assert find_directions(codes) == (False, True, False, False)


def test_features_are_read_by_the_model(tmp_path):
    train = np.array([[0, 1], [2, 2], [-1, -1], [1, 0]], np.int8)
    data = make_data({"s": ["a", "-b"]}, items="ab", train=train)
    spec, positions = make_spec(data)
    write_features(tmp_path / "features.parquet", spec, data.train[:, positions], data.validation)
    inputs = survey_inputs([tmp_path / "features.parquet"], spec, None)
    assert inputs.rows == 2 and len(inputs.held_out) == 1  # who answered nothing is left out


def test_flipped_items_come_back_in_ascending_order():
    data = make_data({"s": ["a", "-b"]}, items="ab")
    spec, _ = make_spec(data)
    margins = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])  # in the network's direction
    network = ProfileNetwork(spec, margins)
    found = predict_cells(network, np.full((1, 2), -1, np.int8), np.array([0, 0]), np.array([0, 1]), 4)
    assert found[:, 3].tolist() == [0, 0]
    assert found[0, 0] > found[0, 1] > found[0, 2]
    assert found[1, 0] < found[1, 1] < found[1, 2]
