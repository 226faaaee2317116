"""Traits of the night's people: a latent regression on every published cell, plausible values, and their sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import SparkContext

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from jobs.domain_sums import find_largest
from jobs.plausible_sums import Breakdown, Plan, PlausibleSums, add_up, choose_steps
from jobs.replicate_sums import WEIGHTS
from jobs.replicated_traits import choose_grids
from model.conditioning import Conditioning, condition_on
from model.errors import ModelError
from model.plausible import FARTHEST, VALUES, EffectiveDraws, Imputer, choose_people, find_regression
from model.registry import load_model
from model.rewriting import Piece, read_people
from model.spec import PERSON, FeatureSpec

ROWS_AT_ONCE = 131_072


@dataclass(frozen=True)
class Imputed:
    """Sums of plausible values of all traits (`traits`, in their order), and what the record says of their making."""

    sums: PlausibleSums
    conditioning: Conditioning
    traits: tuple[str, ...]
    details: dict[str, Any]


def impute_traits(
    spark: SparkContext, model: Path, features: Sequence[Path], design: Sequence[tuple[str, str]], book: Codebook
) -> Imputed | None:
    """None where nobody has a weight above zero.

    Raises ContractBroken for people without a PSU, ModelError for features that do not fit the model.
    """
    network = load_model(model).network
    breakdowns: tuple[Breakdown, ...] = book.breakdowns
    cohorts = list(dict.fromkeys(name for breakdown in breakdowns for name in breakdown))
    chosen, people, largest = choose_sample(features, network.spec, cohorts)
    if not len(chosen):
        return None
    levels = {cohort.key: tuple(cohort.groups) for cohort in book.cohorts}
    psus = sorted({psu for _, psu in design})
    conditioning = condition_on(breakdowns, levels, psus, chosen["weight"].to_numpy())
    regression = find_regression(network, conditioning, chosen)
    imputer = Imputer(conditioning, regression.draw(VALUES))
    grids = None
    if book.design.replicates:
        replicate = find_largest(features, [pq.read_metadata(path) for path in features], WEIGHTS)
        grids = choose_grids(max(largest, replicate), people, FARTHEST)
    plan = Plan(imputer, breakdowns, str(model), choose_steps(largest, people, VALUES), grids)
    sums = add_up(spark, features, plan)
    details = {
        "values": VALUES,
        "regression": {"people": len(chosen), "effects": conditioning.size, "rounds": regression.rounds},
        "effective_draws": EffectiveDraws(sums.effective).describe(),
    }
    return Imputed(sums, conditioning, tuple(trait.key for trait in network.spec.traits), details)


def choose_sample(features: Sequence[Path], spec: FeatureSpec, cohorts: Sequence[str]) -> tuple[pa.Table, int, float]:
    """People to find the regression on, the number of all, and the largest weight."""
    everybody = sum(pq.read_metadata(path).num_rows for path in features)
    others = [PERSON, *cohorts, "stratum", "psu", "weight"]
    parts, largest = [], 0.0
    for people in read_people([Piece(path) for path in features], spec, others, ROWS_AT_ONCE):
        lost = pc.and_(
            pc.greater(people["weight"], 0), pc.or_(pc.is_null(people["psu"]), pc.is_null(people["stratum"]))
        )
        if homeless := pc.sum(lost).as_py():
            raise ContractBroken(f"{homeless:,} people have a weight but no stratum or no PSU: give them one")
        largest = max(largest, pc.max(people["weight"]).as_py())
        parts.append(choose_people(people, everybody))
    if not parts:
        raise ModelError("There are no features: run preprocess again.")
    return pa.concat_tables(parts), everybody, largest
