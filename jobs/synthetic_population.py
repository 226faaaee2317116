"""What a synthetic extract is drawn from, and the drawing of its columns. Shapes: N people, D drawn ones, J items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from expectations.codebook import Codebook
from expectations.codebook_parts import Item
from expectations.outcomes import Outcome
from jobs.catalog import find_files
from jobs.domain_sums import split_breakdown
from jobs.errors import StageError, UsageError
from jobs.explain import find_inputs
from jobs.lake import Lake, StageRecord
from jobs.latent_outcomes import choose_sample
from jobs.synthetic_columns import Answering, Column, Texts, cut_numbers, name_groups, read_answering, read_columns
from jobs.synthetic_design import join_psus
from jobs.synthetic_weights import Design, Margin, calibrate_weights, round_weights
from jobs.withdrawn import check_withdrawn
from model.cells import SMALLEST, Floats, Integers, draw_cells
from model.conditioning import Conditioning, condition_on
from model.inputs import read_codes
from model.latent_regression import Regression
from model.network import ProfileNetwork
from model.plausible import find_regression
from model.registry import load_model
from model.simulating import draw_answers
from model.spec import PERSON

# Columns on the way that are no extract's.
PSU, WEIGHT, TIME, ANSWERING = "psu of the design", "weight of the design", "time of the answers", "who answers"
DESIGN_SEED = 1  # the design is named alike in every extract of a night

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Population:
    """What people are drawn from, and what is published of the survey's. `homes` has the stratum of each PSU."""

    book: Codebook
    network: ProfileNetwork
    conditioning: Conditioning
    regression: Regression
    columns: Mapping[str, Column]
    answering: Answering
    psus: Integers  # (N)
    homes: Integers
    weights: Floats  # (2 N), in the night and as delivered
    published: Sequence[Mapping[str, Any]]


def read_population(lake: Lake, manifest: Manifest, book: Codebook) -> Population:
    """Raises UsageError for a codebook that it cannot serve, StageError where tables are missing, the night was kept
    internal or its model retired, ModelError where the model does not fit."""
    if book.disclosure.dp:
        raise UsageError("releases of this lake are differentially private, and the model is not: no extract is drawn")
    if not book.design.stratum:
        raise UsageError("the codebook has replicate weights alone: a synthetic extract needs `stratum` and `psu`")
    check_withdrawn(lake, StageRecord.from_json(manifest["stages"]["validate"]), manifest["run_date"])
    model, features = find_inputs(lake, manifest, book)
    published = find_files(lake.root, manifest, "cohorts")
    if not published:
        raise StageError(f"the night of {manifest['run_date']} was kept internal: take one that is public")
    network = load_model(model).network
    cohorts = list(dict.fromkeys(name for breakdown in book.breakdowns for name in breakdown))
    people = choose_sample(features, network.spec, cohorts)[0].sort_by(PERSON)
    strata, psus = (people[name].to_numpy().astype(str) for name in ("stratum", "psu"))
    psus, homes = join_psus(strata, psus, np.random.default_rng(DESIGN_SEED))
    people = people.set_column(people.column_names.index("psu"), "psu", pa.array(psus.astype(str)))
    weights = people["weight"].to_numpy()
    levels = {cohort.key: tuple(cohort.groups) for cohort in book.cohorts}
    conditioning = condition_on(book.breakdowns, levels, [str(psu) for psu in range(len(homes))], weights)
    rows = ds.dataset([str(path) for path in find_files(lake.root, manifest, "accepted")], format="parquet")
    accepted = rows.to_table(filter=ds.field(PERSON).isin(people[PERSON])).sort_by(PERSON)
    columns = read_columns(book, accepted) | {WEIGHT: cut_numbers(weights, [])}
    if book.answered_at:
        days = accepted[book.answered_at].cast(pa.date32()).cast(pa.int32())
        columns[TIME] = cut_numbers(days.cast(pa.float64()).to_numpy(), [])
    return Population(
        book=book,
        network=network,
        conditioning=conditioning,
        regression=find_regression(network, conditioning, people),
        columns=columns,
        answering=read_answering(book, accepted, read_codes(people, network.spec)),
        psus=psus,
        homes=homes,
        weights=np.concatenate([weights, accepted[book.design.weight].to_numpy()]),
        published=pa.concat_tables([pq.read_table(path) for path in published]).to_pylist(),
    )


def draw_extract(population: Population, people: int, seed: int) -> dict[str, Texts]:
    """The extract's columns by their names: texts (D), None where there is no value."""
    book, random = population.book, np.random.default_rng(seed)
    real = {PSU: population.psus, **{name: column.codes for name, column in population.columns.items()}}
    drawn = draw_cells(real | {ANSWERING: population.answering.classes}, people, random)
    texts = {name: column.write(drawn[name], random) for name, column in population.columns.items()}
    weights = texts.pop(WEIGHT).astype(np.float64)
    groups = {cohort.key: name_groups(book, cohort, texts[cohort.column]) for cohort in book.cohorts}
    table = pa.table({**groups, "psu": drawn[PSU].astype(str), "weight": weights})
    terms = population.conditioning.read(table)
    parameters = population.regression.settle()
    codes = draw_answers(population.network, population.conditioning, parameters, terms, seed)
    answers = np.stack([list_levels(item)[codes[:, place]] for place, item in enumerate(book.items)], axis=1)
    gone = population.answering.leave_out(answers, drawn[ANSWERING], random)
    margins = list_margins(population, groups, np.where(gone, -1, codes))
    design = Design(drawn[PSU], population.homes)
    weights = round_weights(calibrate_weights(weights, margins, design), population.weights, SMALLEST)
    made: dict[str, Texts] = {book.person_id: np.array([str(number) for number in range(1, people + 1)], dtype=object)}
    if book.consent:
        made[book.consent.column] = np.full(people, book.consent.agreed_texts[0], dtype=object)
    if book.answered_at:
        days = [np.datetime64(int(day), "D") for day in texts.pop(TIME)]
        made[book.answered_at] = np.array([str(day) for day in days], dtype=object)
    made[book.design.weight] = np.array([f"{weight:.12g}" for weight in weights], dtype=object)
    made[str(book.design.stratum)] = (population.homes[drawn[PSU]] + 1).astype(str).astype(object)
    made[str(book.design.psu)] = (drawn[PSU] + 1).astype(str).astype(object)
    made |= {item.column: answers[:, place] for place, item in enumerate(book.items)}
    return made | texts


def list_levels(item: Item) -> Texts:
    """The answers as delivered, by their codes."""
    return np.array([str(level) for level in (reversed(item.levels) if item.reversed else item.levels)], dtype=object)


def list_margins(population: Population, groups: Mapping[str, Texts], codes: Integers) -> list[Margin]:
    """The published means and proportions that answers tell, with the drawn people (codes (D, J)) who are in each."""
    outcomes = [o for o in population.book.parsed_outcomes() if o.kind in ("mean", "proportion") and not o.latent]
    answers = {outcome.name: measure(population.book, outcome, codes) for outcome in outcomes}
    margins = []
    for row in population.published:
        known = all(row[name] is not None for name in ("n", "n_weighted", "estimate", "se"))
        if row["kind"] in ("mean", "proportion") and row["outcome"] in answers and known:
            values = answers[row["outcome"]]
            inside = ~np.isnan(values)
            for name in split_breakdown(row["breakdown"]):
                inside &= groups[name] == row[name]
            figures = (row[name] for name in ("n", "n_weighted", "estimate", "se"))
            margins.append(Margin(inside, np.nan_to_num(values), *figures))
    return margins


def measure(book: Codebook, outcome: Outcome, codes: Integers) -> Floats:
    """The outcome of people by their item codes (D, J): a scale's total or whether it reaches the cut; NaN = none."""
    scale = book.scale(outcome.source.removesuffix("_total"))
    places = [place for place, item in enumerate(book.items) if item.key in scale.items]
    scores = np.stack([np.array([*book.items[p].scores, 0])[codes[:, p]] for p in places], axis=1)
    answered = (codes[:, places] >= 0).sum(axis=1)
    enough = (answered >= len(places) - scale.prorate_up_to) & (answered > 0)
    total = scores.sum(axis=1) * scale.multiply * len(places) / np.maximum(answered, 1)
    if outcome.cut is not None:
        total = (total >= outcome.cut if outcome.side == ">=" else total <= outcome.cut).astype(np.float64)
    return np.where(enough, total, np.nan)
