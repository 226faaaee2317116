"""Every derived column, as a table of what was delivered and what must come out."""

from typing import Any

import pytest
import yaml
from pyspark.sql import Row, SparkSession

from expectations.codebook import Codebook
from jobs.nonresponse import Class
from jobs.preprocess import derive_features
from jobs.tables import features_columns, select_columns
from jobs.weighing import weigh_people

BOOK: dict[str, Any] = yaml.safe_load("""
codebook: small
version: 1
title: Three questions
source: {format: csv, files: [small.csv]}
person_id: id
design: {weight: w, stratum: s, psu: p, nest: true}
items:
  - {key: a, column: A, levels: [0, 1, 2], missing: [7, 9]}
  - {key: b, column: B, levels: [0, 1, 2], reversed: true}
  - {key: c, column: C, levels: [1, 2, 3, 4]}
scales:
  - {key: full, items: [a, b, c], bands: {low: 1, mid: 4, high: 6}, source: made up}
  - {key: part, items: [a, b, c], bands: {low: 1, mid: 4, high: 6}, prorate_up_to: 1, source: made up}
  - {key: four, items: [a, b], multiply: 4, source: made up}
traits: [{key: mood, scale: full}]
covariates:
  - {key: age, column: age, kind: count, min: 0}
  - {key: urban, column: urban, kind: binary, levels: [0, 1], missing: [9]}
  - {key: marital, column: marital, kind: nominal, levels: [single, married], missing: [refused]}
cohorts:
  - {key: sex, column: sex, map: {1: men, 2: women}, missing: [9]}
  - {key: region, column: region, map: {north: North, south: South}}
  - {key: band, column: age, breaks: [18, 40], labels: [young, old]}
outcomes: [full_total]
""")
TYPES = {"person_id": "string", "w": "double", "s": "string", "p": "string", "marital": "string", "region": "string"}
DELIVERED = {
    **{"person_id": "ab" * 32, "w": 2.5, "s": "7", "p": "1", "A": 1.0, "B": 0.0, "C": 3.0},
    **{"age": 30.0, "urban": 1.0, "marital": "single", "sex": 2.0, "region": "north"},
}


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # items: position from 0, reversed from the top, -1 for no answer
    ({"A": 0.0}, {"a": 0}),
    ({"A": 2.0}, {"a": 2}),
    ({"A": 7.0}, {"a": -1}),
    ({"A": None}, {"a": -1}),
    ({"B": 0.0}, {"b": 2}),
    ({"B": 2.0}, {"b": 0}),
    ({"C": 1.0}, {"c": 0}),
    ({"C": 4.0}, {"c": 3}),
    # totals: A + (2 - B) + C; complete answers only, or one missing item prorated
    ({"A": 0.0, "B": 2.0, "C": 1.0}, {"full_total": 1.0, "full_band": "low", "four_total": 0.0}),
    ({"A": 2.0, "B": 0.0, "C": 4.0}, {"full_total": 8.0, "full_band": "high", "four_total": 16.0}),
    ({"A": 1.0, "B": 1.0, "C": 2.0}, {"full_total": 4.0, "full_band": "mid", "part_total": 4.0}),
    ({"A": 9.0, "B": 1.0, "C": 2.0}, {"full_total": None, "full_band": None, "part_total": 4.5}),
    ({"A": 9.0, "B": 1.0, "C": 3.0}, {"part_total": 6.0, "part_band": "high"}),
    ({"A": 9.0, "B": 1.0, "C": None}, {"part_total": None, "part_band": None, "four_total": None}),
    # covariates: missing codes become null
    ({"age": 30.0}, {"age": 30.0}),
    ({"urban": 0.0}, {"urban": "0"}),
    ({"urban": 9.0}, {"urban": None}),
    ({"marital": "married"}, {"marital": "married"}),
    ({"marital": "refused"}, {"marital": None}),
    # cohorts: codes by name, numbers by interval
    ({"sex": 1.0}, {"sex": "men"}),
    ({"sex": 9.0}, {"sex": None}),
    ({"region": "south"}, {"region": "South"}),
    ({"age": 17.0}, {"band": None}),
    ({"age": 18.0}, {"band": "young"}),
    ({"age": 39.9}, {"band": "young"}),
    ({"age": 40.0}, {"band": "old"}),
    ({"age": None}, {"band": None, "age": None}),
    # design: the PSU carries its stratum
    ({"s": "7", "p": "1"}, {"stratum": "7", "psu": "7:1"}),
    # fold: digits 25 to 39 of the pseudonym, modulo 10
    ({"person_id": "0" * 38 + "b" + "f" * 25}, {"fold": 1}),
]


@pytest.fixture(scope="module")
def features(spark: SparkSession) -> dict[int, Row]:
    """All cases in one Spark job; the weight tells which row is which."""
    book = Codebook.model_validate(BOOK)
    rows = [{**DELIVERED, "w": float(i), **delivered} for i, (delivered, _) in enumerate(CASES)]
    schema = ", ".join(f"{name} {TYPES.get(name, 'double')}" for name in rows[0])
    frame = spark.createDataFrame([tuple(row.values()) for row in rows], schema)
    found = select_columns(derive_features(frame, book), features_columns(book)).collect()
    return {int(row["weight"]): row for row in found}


@pytest.mark.parametrize("case", range(len(CASES)))
def test_derived_columns(features: dict[int, Row], case: int) -> None:
    derived = CASES[case][1]
    assert {name: features[case][name] for name in derived} == derived


def test_replicate_weights_take_the_factors_of_their_persons_weight(spark: SparkSession) -> None:
    replicates = {"method": "BRR", "columns": ["r1", "r2-r3"]}
    book = Codebook.model_validate({**BOOK, "design": {**BOOK["design"], "replicates": replicates}})
    rows = [{**DELIVERED, "s": s, "w": 2.0, "r1": 0.0, "r2": 3.0, "r3": 4.0} for s in ("7", "8")]
    schema = ", ".join(f"{name} {TYPES.get(name, 'double')}" for name in rows[0])
    frame = spark.createDataFrame([tuple(row.values()) for row in rows], schema)
    classes = {"7": Class(kept=1, kept_weight=2.0, lost=1, lost_weight=1.0), "8": Class(kept=1, kept_weight=2.0)}
    weighed, _ = weigh_people(derive_features(frame, book), classes, None)
    found = {row["stratum"]: row for row in select_columns(weighed, features_columns(book)).collect()}
    assert (found["7"]["weight"], found["7"]["replicate_weights"]) == (3.0, [0.0, 4.5, 6.0])
    assert (found["8"]["weight"], found["8"]["replicate_weights"]) == (2.0, [0.0, 3.0, 4.0])
