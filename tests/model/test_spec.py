import json
from dataclasses import replace

import pyarrow as pa
import pytest

from model.errors import ModelError
from model.spec import FeatureSpec, ItemSpec, ScaleSpec, TraitSpec, compare_specs
from tests.model.simulation import make_spec


def schema(spec: FeatureSpec) -> pa.Schema:
    return pa.schema([(key, pa.int8()) for key in spec.columns] + [("weight", pa.float64())])


def test_json_gives_the_same_spec_back():
    spec = make_spec((3, 2), loose=1, flipped=1)
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("break_it", [lambda d: d.pop("items"), lambda d: d["items"][0].update(colour="red")])
def test_json_of_another_form_is_refused(break_it):
    data = make_spec().to_json()
    break_it(data)
    with pytest.raises(ModelError, match="cannot be read"):
        FeatureSpec.from_json(data)


def test_columns_that_differ_are_named():
    spec = make_spec((2, 2))
    spec.check_columns(schema(spec))
    spec.check_columns(schema(spec), other_columns=["weight"])
    other = pa.schema([("t0_0", pa.int8()), ("t1_0", pa.int16()), ("t1_1", pa.int8()), ("sleep", pa.int8())])
    with pytest.raises(ModelError) as error:
        spec.check_columns(other, other_columns=["weight"])
    for part in ("missing: t0_1", "not int8: t1_0 (int16)", "unknown to the model: sleep"):
        assert part in str(error.value)
    with pytest.raises(ModelError, match="missing"):
        spec.check_columns(other)


def test_differences_between_specs_are_named():
    spec = make_spec((3, 2))
    assert compare_specs(spec, replace(spec, codebook_version="2")) == []
    first = replace(spec.items[0], levels=(0, 1, 2))
    loose = ItemSpec("sleep", (0, 1), None, False)
    scales = (replace(spec.scales[0], multiply=4.0), spec.scales[1])
    other = replace(spec, items=(first, *spec.items[1:], loose), scales=scales)
    assert compare_specs(spec, other) == [
        "item sleep: in the features only",
        "item t0_0: levels is (0, 1, 2, 3) in the model, (0, 1, 2) in the features",
        "scale s0: multiply is 1.0 in the model, 4.0 in the features",
    ]


ITEMS = (ItemSpec("a", (0, 1), "t", False), ItemSpec("b", (0, 1), "t", False))
TRAIT = TraitSpec("t", ("a", "b"))


@pytest.mark.parametrize(
    ("items", "traits", "scales", "reason"),
    [
        (ITEMS, (), (), "no trait"),
        (ITEMS[:1], (TraitSpec("t", ("a",)),), (), "fewer than two items"),
        ((*ITEMS, ITEMS[0]), (TRAIT,), (), "a comes twice"),
        ((ITEMS[0], replace(ITEMS[1], levels=(0,))), (TRAIT,), (), "b needs 2 to 127"),
        ((ITEMS[0], replace(ITEMS[1], trait=None)), (TRAIT,), (), "do not name each other: b"),
        ((*ITEMS, ItemSpec("c", (0, 1), "u", False)), (TRAIT,), (), "unknown trait u"),
        (ITEMS, (TRAIT,), (ScaleSpec("s", ("a", "z")),), "unknown items: z"),
    ],
)
def test_unsound_specs_are_refused(items, traits, scales, reason):
    with pytest.raises(ModelError, match=reason):
        FeatureSpec(items, traits, scales, "book", "1")
