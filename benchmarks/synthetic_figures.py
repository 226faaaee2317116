"""The report's estimates of an extract, real or synthetic, by the product's own estimators, and how two of them agree.

Shapes: N people, J items, T traits.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from expectations.codebook import Codebook
from jobs.survey import DomainSums, Estimate, Kind, count_psus, estimate_domain
from jobs.synthetic_columns import Texts, name_groups
from jobs.synthetic_population import list_levels, measure
from jobs.trait_estimates import combine_values
from model.conditioning import condition_on
from model.network import ProfileNetwork
from model.plausible import VALUES, Imputer, find_regression
from model.spec import PERSON

Floats = NDArray[np.float64]
Place = tuple[str, tuple[str, ...], str]  # breakdown, cell, outcome
Figures = Mapping[Place, Estimate]


@dataclass(frozen=True)
class People:
    """Of an extract: item codes (N, J), groups of each cohort, design and weights (N)."""

    codes: NDArray[np.int64]
    groups: Mapping[str, Texts]
    stratum: NDArray[np.str_]
    psu: NDArray[np.str_]
    weights: Floats

    def cells(self, book: Codebook) -> Iterator[tuple[str, tuple[str, ...], NDArray[np.bool_]]]:
        """Every breakdown's cells, and who is in each."""
        for breakdown in book.breakdowns:
            labels = [tuple(self.groups[name][row] for name in breakdown) for row in range(len(self.weights))]
            for cell in sorted({label for label in labels if None not in label}):
                yield "*".join(breakdown) or "all", cell, np.array([label == cell for label in labels])


def read_extract(book: Codebook, columns: Mapping[str, Texts]) -> People:
    """Of an extract's columns, texts (N), None where there is no value."""
    codes = []
    for item in book.items:
        levels = list_levels(item).tolist()
        codes.append([levels.index(text) if text in levels else -1 for text in columns[item.column]])
    stratum = columns[str(book.design.stratum)].astype(str)
    psu = np.char.add(np.char.add(stratum, ":"), columns[str(book.design.psu)].astype(str))
    return People(
        np.array(codes).T,
        {cohort.key: name_groups(book, cohort, columns[cohort.column]) for cohort in book.cohorts},
        stratum,
        psu,
        columns[book.design.weight].astype(np.float64),
    )


def estimate_report(book: Codebook, people: People) -> dict[Place, Estimate]:
    """Means and proportions of totals."""
    outcomes = [o for o in book.parsed_outcomes() if o.kind in ("mean", "proportion") and not o.latent]
    measured: dict[tuple[str, Kind], Floats] = {(o.name, o.kind): measure(book, o, people.codes) for o in outcomes}
    return _estimate(book, people, measured)


def estimate_items(book: Codebook, people: People) -> dict[Place, Estimate]:
    """Means of single items' codes: nothing that a synthetic extract was calibrated to."""
    codes = np.where(people.codes >= 0, people.codes, np.nan)
    measured: dict[tuple[str, Kind], Floats] = {
        (item.key, "mean"): codes[:, place] for place, item in enumerate(book.items)
    }
    return _estimate(book, people, measured)


def _estimate(book: Codebook, people: People, measured: Mapping[tuple[str, Kind], Floats]) -> dict[Place, Estimate]:
    sizes = count_psus(zip(people.stratum, people.psu, strict=True))
    found = {}
    for breakdown, cell, inside in people.cells(book):
        for (name, kind), values in measured.items():
            domain = add_up(people, values, inside & ~np.isnan(values))
            found[breakdown, cell, name] = estimate_domain(domain, sizes, kind, "remove")
    return found


def add_up(people: People, values: Floats, inside: NDArray[np.bool_]) -> DomainSums:
    """The sums per PSU of the answers of those inside."""
    psus, first, place = np.unique(people.psu, return_index=True, return_inverse=True)
    w, y = np.where(inside, people.weights, 0.0), np.where(inside, values, 0.0)
    n, cases = (np.bincount(place[who], minlength=len(psus)) for who in (inside, inside & (y == 1)))
    sum_w, sum_wy, sum_wyy = (
        np.bincount(place, column, len(psus)).astype(np.float64) for column in (w, w * y, w * y * y)
    )
    return DomainSums(people.stratum[first], psus, n, cases, sum_w, sum_wy, sum_wyy)


def estimate_traits(book: Codebook, people: People, network: ProfileNetwork) -> dict[Place, Estimate]:
    """Means of traits by plausible values, as `aggregate` makes them, all under one model."""
    ids = [f"{number:08d}" for number in range(len(people.weights))]
    design = {"psu": people.psu, "stratum": people.stratum, "weight": people.weights}
    codes = people.codes.astype(np.int8)
    items = {item.key: codes[:, place] for place, item in enumerate(book.items)}
    table = pa.table({PERSON: ids, **items, **people.groups, **design})
    levels = {cohort.key: tuple(cohort.groups) for cohort in book.cohorts}
    psus = sorted(set(people.psu.tolist()))
    conditioning = condition_on(book.breakdowns, levels, psus, people.weights)
    parameters = find_regression(network, conditioning, table).draw(VALUES)
    values = Imputer(conditioning, parameters).draw(network, table).values.astype(np.float64)
    sizes = count_psus(zip(people.stratum, people.psu, strict=True))
    found = {}
    for breakdown, cell, inside in people.cells(book):
        for number, trait in enumerate(network.spec.traits):
            domains = [add_up(people, values[:, value, number], inside) for value in range(VALUES)]
            figures = [estimate_domain(domain, sizes, "mean", "remove") for domain in domains]
            found[breakdown, cell, f"{trait.key}_mean"] = combine_values(figures)
    return found


@dataclass(frozen=True)
class Agreement:
    """`overlap`: mean share of the intervals that is common (Karr et al. 2006), 0 where they are apart; `difference`:
    mean absolute difference in standard errors of the real figure; `missing`: real figures without a synthetic one."""

    overlap: float
    difference: float
    figures: int
    missing: int


def compare_figures(real: Figures, synthetic: Figures) -> Agreement:
    """Over all real figures with an interval; one that the synthetic extract lacks counts as apart."""
    overlaps, differences, missing = [], [], 0
    for place, ours in real.items():
        if ours.ci_low is None or ours.ci_high is None or not ours.se:
            continue
        theirs = synthetic.get(place)
        if theirs is None or theirs.ci_low is None or theirs.ci_high is None or theirs.ci_low == theirs.ci_high:
            missing += 1
            overlaps.append(0.0)
            continue
        overlaps.append(overlap((ours.ci_low, ours.ci_high), (theirs.ci_low, theirs.ci_high)))
        differences.append(abs((theirs.estimate or 0.0) - (ours.estimate or 0.0)) / ours.se)
    return Agreement(float(np.mean(overlaps)), float(np.mean(differences)), len(overlaps), missing)


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The mean of the shares that the common part is of either interval."""
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return 0.5 * (common / (one[1] - one[0]) + common / (other[1] - other[0]))


def average(parts: Iterable[Agreement]) -> Agreement:
    every = list(parts)
    return Agreement(
        float(np.mean([part.overlap for part in every])),
        float(np.mean([part.difference for part in every])),
        every[0].figures,
        round(float(np.mean([part.missing for part in every]))),
    )
