"""Differential item functioning: an item that is planted is found, and items that are not are left alone.

Surveys are simulated of strata, PSUs and informative weights. Two cohorts differ in the trait by GAP, and people of the
second answer one of nine floored items as if their trait were SHIFT lower. The items' parameters are learned from each
survey, the planted item among them, as a model's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from benchmarks.margins import find_margins
from model.design import Design
from model.differential import ItemFinding, examine_items, regress_answers
from model.graded_response import fit_scale, nodes
from model.matching import TraitItems
from model.multiplicity import SIGNIFICANCE

GAP = SHIFT = 0.5  # sds of everybody's trait
STRATA, PSUS, PER_PSU = 10, 5, 40  # PSUs of a stratum, people of a PSU
STRATUM_SD, PSU_SD = 0.15, 0.2
CANDIDATES = 5  # people of whom one is drawn
AGE_EFFECT, DRAWN_AGE = -0.2, 0.4  # on the trait, and on the log odds of being drawn
ITEMS, LEVELS = 9, 4
PLANTED, WATCHED = 0, 4  # the shifted item, and the one whose false alarms are counted
COHORTS = ("first", "second")
ITEMS_SEED = 7
LEAST_POWER, ALARMS = 0.8, (4, 16)  # of 200

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Survey:
    answers: Integers  # (n, ITEMS)
    cohort: Integers  # (n)
    design: Design


def measure_dif(surveys: int, seed: int) -> dict[str, object]:
    """`dif_power` is the share of surveys whose planted item is flagged, by the test, after adjustment, and the size of
    the difference; `dif_size` counts those in which an item that is not shifted has p below .05 in the same analysis.
    """
    runs, by_sum = [], 0
    for number in range(surveys):
        survey = simulate_survey(seed + number)
        runs.append(examine_survey(survey))
        by_sum += is_alarm(match_by_sum(survey))
    flagged = [run[PLANTED].verdict is not None for run in runs]
    alarms = sum(is_alarm(run[WATCHED].p) for run in runs)
    others = [item for run in runs for place, item in enumerate(run) if place != PLANTED]
    power = float(np.mean(flagged))
    least, most = (round(bound * surveys / 200) for bound in ALARMS)
    return {
        "surveys": surveys,
        "dif_people": STRATA * PSUS * PER_PSU,
        "dif_gap": GAP,
        "dif_shift": SHIFT,
        "dif_power": round(power, 4),
        "dif_size": alarms,
        "dif_size_of_all_items": round(float(np.mean([is_alarm(item.p) for item in others])), 4),
        "dif_flagged_of_all_items": round(float(np.mean([item.verdict is not None for item in others])), 4),
        "dif_power_by_likelihood": round(float(np.mean([is_alarm(run[PLANTED].model_adjusted) for run in runs])), 4),
        "dif_size_by_likelihood": sum(is_alarm(run[WATCHED].p_model) for run in runs),
        "dif_size_by_sum_score": by_sum,
        "dif_effect": round(float(np.mean([abs(run[PLANTED].effect) for run in runs])), 4),
        "dif_passed": power >= LEAST_POWER and least <= alarms <= most,
    }


def is_alarm(p: float | None) -> bool:
    return p is not None and p < SIGNIFICANCE


def match_by_sum(survey: Survey) -> float:
    """p of the watched item where people are matched by their sum score, whose measurement error is not allowed for."""
    total = survey.answers.sum(axis=1).astype(np.float64)
    return regress_answers(survey.answers[:, WATCHED], total, survey.cohort, survey.design).p


def examine_survey(survey: Survey) -> Sequence[ItemFinding]:
    sizes = np.full(ITEMS, LEVELS)
    codes = survey.answers.astype(np.int8)
    table = fit_scale(codes, find_margins(codes, sizes)).numpy()
    theta = nodes().numpy()
    density = np.exp(-0.5 * theta**2)
    items = TraitItems(
        trait="trait",
        keys=tuple(f"item_{number}" for number in range(ITEMS)),
        sizes=tuple(sizes.tolist()),
        theta=theta,
        probability=table.transpose(1, 0, 2),
        scores=np.tile(np.arange(LEVELS, dtype=np.float64), (ITEMS, 1)),
        density=density / density.sum(),
    )
    labels = [COHORTS[number] for number in survey.cohort]
    return examine_items([(items, survey.answers)], {"cohort": labels}, survey.design)


def simulate_survey(seed: int, shift: float = SHIFT) -> Survey:
    """Everybody's trait has mean 0 and variance 1 in the population; age bears on it and on who is drawn."""
    random = np.random.default_rng(seed)
    people = STRATA * PSUS * PER_PSU
    stratum, psu = np.repeat(np.arange(STRATA), PSUS * PER_PSU), np.repeat(np.arange(STRATA * PSUS), PER_PSU)
    effects = STRATUM_SD * np.resize([1.0, -1.0], STRATA)[stratum]
    effects += (PSU_SD * random.standard_normal(STRATA * PSUS))[psu]
    ages = random.standard_normal((people, CANDIDATES))
    odds = DRAWN_AGE * ages
    chosen = (odds + random.gumbel(size=ages.shape)).argmax(axis=1)
    rows = np.arange(people)
    weights = np.exp(odds).sum(axis=1) / np.exp(odds[rows, chosen])
    cohort = random.integers(0, 2, people)
    rest = np.sqrt(1 - (GAP / 2) ** 2 - STRATUM_SD**2 - PSU_SD**2 - AGE_EFFECT**2)
    trait = GAP * (cohort - 0.5) + effects + AGE_EFFECT * ages[rows, chosen] + rest * random.standard_normal(people)
    slopes, cuts = make_items()
    seen = np.repeat(trait[:, None], ITEMS, axis=1)
    seen[:, PLANTED] -= shift * cohort
    reached = random.uniform(size=(people, ITEMS, 1)) < expit((slopes * seen)[:, :, None] - cuts)
    return Survey(reached.sum(axis=2), cohort, Design.of(weights, stratum.tolist(), psu.tolist()))


def make_items() -> tuple[Floats, Floats]:
    """Discriminations (ITEMS) and cuts (ITEMS, LEVELS - 1), floored, the same whatever the survey."""
    random = np.random.default_rng(ITEMS_SEED)
    slopes = random.uniform(1.3, 2.6, ITEMS)
    first = slopes * random.uniform(0.4, 1.4, ITEMS)
    gaps = slopes[:, None] * random.uniform(0.5, 1.0, (ITEMS, LEVELS - 2))
    return slopes, np.concatenate([first[:, None], first[:, None] + gaps.cumsum(axis=1)], axis=1)
