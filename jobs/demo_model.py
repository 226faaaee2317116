"""The simulated country: its strata, how traits differ between people, and how traits become answers.

All figures are made up, and of the size that surveys find: most people answer most symptom items with 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Columns = dict[str, npt.NDArray[Any]]

POPULATION = 50_000_000
COUNTRY_SEED = 20_000  # The country is the same for every sample's seed, so that nights can be compared.
PEOPLE_PER_PSU, FEWEST_PSUS, MOST_PSUS = 40, 2, 24
PSU_SD, PSU_SIZE_SD = 0.15, 0.4
GOLDEN_RATIO = 0.6180339887498949

TRAITS = ("depression", "anxiety", "stress", "low_wellbeing")
# Given everything else; the residual standard deviation of each trait is 1.
RESIDUAL_CORRELATIONS = np.array(
    [[1.00, 0.75, 0.65, 0.70], [0.75, 1.00, 0.65, 0.55], [0.65, 0.65, 1.00, 0.60], [0.70, 0.55, 0.60, 1.00]]
)

REGION_SHARE = {"north": 0.18, "east": 0.15, "south": 0.27, "west": 0.22, "centre": 0.18}
SETTLEMENT_SHARE = {"city": 0.35, "town": 0.30, "village": 0.25, "remote": 0.10}
URBAN = ("city", "town")

AGE_STARTS = np.array([15, 18, 30, 45, 60, 75])
AGE_WIDTHS = np.array([3, 12, 15, 15, 15, 21])
AGE_SHARE = np.array([0.015, 0.185, 0.245, 0.250, 0.205, 0.100])
AGE_OVERSAMPLING = np.array([1.0, 1.0, 0.9, 0.9, 1.2, 1.8])
HOUSEHOLD_SHARE = np.array([0.18, 0.32, 0.19, 0.18, 0.08, 0.05])  # of people, by size 1 to 6
MEN_SHARE = 0.49
EDUCATION_SHARE = np.array(  # primary, secondary, tertiary: a row an age group
    [
        [0.80, 0.20, 0.00],
        [0.12, 0.53, 0.35],
        [0.14, 0.44, 0.42],
        [0.22, 0.46, 0.32],
        [0.34, 0.43, 0.23],
        [0.50, 0.34, 0.16],
    ]
)
EMPLOYMENT_SHARE = np.array(  # employed, unemployed, not in labour force: a row an age group
    [
        [0.10, 0.05, 0.85],
        [0.60, 0.12, 0.28],
        [0.80, 0.07, 0.13],
        [0.78, 0.06, 0.16],
        [0.35, 0.03, 0.62],
        [0.03, 0.00, 0.97],
    ]
)
INCOME_LOG_MEAN, INCOME_LOG_SD = 10.2, 0.55

# The population's mean of each trait is then about 0, and its standard deviation little more than 1.
BASELINE = (-0.30, -0.27, -0.20, -0.20)
# What a cohort adds to the mean of each trait, in the order of TRAITS.
EFFECTS: dict[str, dict[int | str, tuple[float, float, float, float]]] = {
    "sex": {1: (0, 0, 0, 0), 2: (0.20, 0.30, 0.20, 0.10)},
    "age_group": {
        15: (0.15, 0.20, 0.15, 0.00),
        18: (0.20, 0.30, 0.25, 0.00),
        30: (0.05, 0.10, 0.15, 0.00),
        45: (0, 0, 0, 0),
        60: (-0.15, -0.20, -0.25, -0.10),
        75: (0.05, -0.20, -0.20, 0.20),
    },
    "education": {1: (0.20, 0.10, 0.10, 0.15), 2: (0, 0, 0, 0), 3: (-0.10, -0.05, 0.00, -0.10)},
    "employment": {1: (0, 0, 0, 0), 2: (0.50, 0.40, 0.45, 0.40), 3: (0.20, 0.10, 0.00, 0.20)},
    "region": {
        "north": (0.15, 0.10, 0.10, 0.15),
        "east": (0.05, 0.05, 0.00, 0.05),
        "south": (-0.10, -0.10, -0.05, -0.10),
        "west": (0, 0, 0, 0),
        "centre": (0.00, 0.10, 0.15, 0.05),
    },
    "household_size": {1: (0.20, 0.10, 0.00, 0.20)},
}
INCOME_EFFECT = (-0.12, -0.10, -0.12, -0.10)  # of one standard deviation of the income's logarithm

# Graded response model, in the direction of distress: P(answer >= k) = logistic(a * (trait - b_k)); a, (b_1 ...).
ITEMS: dict[str, tuple[float, tuple[float, ...]]] = {
    "phq9_1": (2.2, (0.60, 1.55, 2.15)),
    "phq9_2": (2.8, (0.65, 1.60, 2.15)),
    "phq9_3": (1.5, (0.25, 1.30, 2.05)),
    "phq9_4": (1.9, (0.05, 1.20, 1.85)),
    "phq9_5": (1.6, (0.85, 1.85, 2.55)),
    "phq9_6": (2.3, (0.95, 1.85, 2.40)),
    "phq9_7": (1.8, (1.00, 1.95, 2.60)),
    "phq9_8": (1.7, (1.60, 2.50, 3.15)),
    "phq9_9": (2.0, (1.95, 2.75, 3.30)),
    "gad7_1": (2.5, (0.35, 1.40, 1.95)),
    "gad7_2": (3.0, (0.70, 1.50, 2.00)),
    "gad7_3": (2.7, (0.45, 1.35, 1.90)),
    "gad7_4": (2.1, (0.50, 1.50, 2.15)),
    "gad7_5": (1.6, (1.15, 2.15, 2.85)),
    "gad7_6": (1.5, (0.40, 1.65, 2.50)),
    "gad7_7": (2.0, (0.95, 1.85, 2.40)),
    "pss4_1": (1.7, (-0.80, 0.25, 1.40, 2.40)),
    "pss4_2": (1.3, (-1.10, 0.20, 1.70, 2.90)),
    "pss4_3": (1.5, (-1.20, 0.10, 1.60, 2.70)),
    "pss4_4": (1.9, (-0.45, 0.45, 1.45, 2.30)),
    "who5_1": (2.4, (-1.60, -0.10, 0.85, 1.55, 2.40)),
    "who5_2": (2.1, (-1.70, -0.20, 0.75, 1.50, 2.45)),
    "who5_3": (2.3, (-1.50, 0.00, 0.80, 1.45, 2.25)),
    "who5_4": (1.6, (-1.60, -0.05, 0.80, 1.50, 2.30)),
    "who5_5": (1.9, (-1.50, 0.00, 0.95, 1.70, 2.60)),
}
TRAIT_OF_SCALE = dict(zip(("phq9", "gad7", "pss4", "who5"), TRAITS, strict=True))
# Worded, and so delivered, positively.
POSITIVE = ("pss4_2", "pss4_3", "who5_1", "who5_2", "who5_3", "who5_4", "who5_5")

# An answer is an index into CODES: refused and not known have codes, skipped is an empty field.
CODES = ("0", "1", "2", "3", "4", "5", "-7", "-9", "", "8", "often")
REFUSED, NOT_KNOWN, SKIPPED, UNKNOWN, TEXT = range(6, 11)
MISSING_SHARE = {REFUSED: 0.3, NOT_KNOWN: 0.2, SKIPPED: 0.5}
SENSITIVE = "phq9_9"


@dataclass(frozen=True)
class Country:
    """The PSUs of the sample: labels, the PSU's expected share of the sample, its weight, its effect on every trait."""

    region: npt.NDArray[np.str_]
    stratum: npt.NDArray[np.str_]
    psu: npt.NDArray[np.str_]
    urban: Ints
    sample_share: Floats
    weight: Floats
    effect: Floats


def build_country(people: int) -> Country:
    """Strata are settlements within regions; small ones are sampled more densely, and PSUs of a stratum equally.

    A PSU's weight is the population that it stands for over its expected sample, so that the weights sum to POPULATION.
    People of small PSUs are worse off: with equal takes, estimates without the weights are wrong.
    """
    rng = np.random.default_rng(COUNTRY_SEED)
    strata = [(r, s, a * b) for r, a in REGION_SHARE.items() for s, b in SETTLEMENT_SHARE.items()]
    share = np.array([s[2] for s in strata])
    allocation = np.sqrt(share) / np.sqrt(share).sum()
    psus = np.clip(np.round(people * allocation / PEOPLE_PER_PSU), FEWEST_PSUS, MOST_PSUS).astype(int)
    # Drawn for the most PSUs possible: a smaller sample visits the first of the same.
    log_size = rng.normal(size=(len(strata), MOST_PSUS))
    effect = PSU_SD * (0.8 * rng.normal(size=log_size.shape) - 0.6 * log_size)
    numbers = 1001 + rng.permutation(log_size.size).reshape(log_size.shape)
    stratum = np.repeat(np.arange(len(strata)), psus)
    position = np.concatenate([np.arange(n) for n in psus])
    size = np.exp(PSU_SIZE_SD * log_size[stratum, position])
    size_share = size / np.bincount(stratum, size)[stratum]
    sample_share = (allocation / psus)[stratum]
    return Country(
        region=np.array([s[0] for s in strata])[stratum],
        stratum=np.array([f"{s[0]}-{s[1]}" for s in strata])[stratum],
        psu=np.array([f"P{n}" for n in numbers[stratum, position]]),
        urban=np.array([int(s[1] in URBAN) for s in strata])[stratum],
        sample_share=sample_share,
        weight=POPULATION * share[stratum] * size_share / (people * sample_share),
        effect=effect[stratum, position],
    )


def spread_over_units(country: Country, index: Ints) -> Ints:
    """The PSU of each person: a low-discrepancy sequence, so that every PSU gets its share of any stretch of people."""
    edges = country.sample_share.cumsum() / country.sample_share.sum()
    unit: Ints = np.searchsorted(edges[:-1], (index + 0.5) * GOLDEN_RATIO % 1, side="right")
    return unit


def draw_people(country: Country, unit: Ints, rng: np.random.Generator) -> tuple[Columns, Floats]:
    """Who is sampled in these PSUs, and their true traits (people, 4).

    The old are sampled more densely and one person a household is taken, so weights and traits go together; the
    people who do not appear (`appears`) are made up for by the weight of those like them.
    """
    n = len(unit)
    group, group_weight = _draw_oversampled(AGE_SHARE, AGE_OVERSAMPLING, n, rng)
    household, household_weight = _draw_oversampled(HOUSEHOLD_SHARE, 1 / np.arange(1.0, 7), n, rng)
    age = AGE_STARTS[group] + np.floor(AGE_WIDTHS[group] * rng.random(n) ** np.where(group == 5, 2, 1)).astype(int)
    woman = rng.random(n) >= MEN_SHARE
    education = 1 + _draw_rows(EDUCATION_SHARE[group], rng)
    employment = 1 + _draw_rows(EMPLOYMENT_SHARE[group], rng)
    income_log = rng.normal(INCOME_LOG_MEAN, INCOME_LOG_SD, n) + 0.3 * (education - 2) - 0.3 * (employment != 1)
    appears_share = _logistic(1.8 + 0.25 * woman + 0.012 * (age - 45) - 0.35 * (employment == 2))
    people: Columns = {
        "unit": unit,
        "weight": country.weight[unit] * group_weight * household_weight / appears_share,
        "sex": 1 + woman,
        "age": age,
        "education": education,
        "employment": employment,
        "household_size": household + 1,
        "income_log": income_log,
        "appears": rng.random(n) < appears_share,
    }
    keys = {**people, "age_group": AGE_STARTS[group], "region": country.region[unit]}
    traits = rng.normal(size=(n, len(TRAITS))) @ np.linalg.cholesky(RESIDUAL_CORRELATIONS).T
    traits += BASELINE + country.effect[unit][:, None] + standard_income(income_log)[:, None] * np.array(INCOME_EFFECT)
    for name, levels in EFFECTS.items():
        for level, effect in levels.items():
            traits[keys[name] == level] += effect
    return people, traits


def draw_answers(people: Columns, traits: Floats, rng: np.random.Generator) -> Bytes:
    """Answers (people, items) as indices into CODES, in the direction in which each item is worded.

    An item is missing at random given age and income, of which neither is ever missing itself.
    """
    n = len(traits)
    answers = np.empty((n, len(ITEMS)), np.uint8)
    reluctance = 0.25 * (people["age"] - 50) / 20 - 0.35 * standard_income(people["income_log"])
    for column, (key, (discrimination, thresholds)) in enumerate(ITEMS.items()):
        trait = traits[:, TRAITS.index(TRAIT_OF_SCALE[key.split("_")[0]])]
        signal = trait + rng.logistic(size=n) / discrimination
        score = np.searchsorted(np.array(thresholds), signal, side="right")
        answers[:, column] = len(thresholds) - score if key in POSITIVE else score
        missing = np.flatnonzero(rng.random(n) < _logistic(reluctance - (3.3 if key == SENSITIVE else 4.2)))
        answers[missing, column] = rng.choice(list(MISSING_SHARE), len(missing), p=list(MISSING_SHARE.values()))
    return answers


def describe_truth(country: Country) -> dict[str, Any]:
    """The parameters behind the answers, for tests of recovery."""
    return {
        "traits": TRAITS,
        "residual_correlations": RESIDUAL_CORRELATIONS.tolist(),
        "baseline": BASELINE,
        "effects": EFFECTS,
        "income_effect": {"per_sd": INCOME_EFFECT, "mean": INCOME_LOG_MEAN, "sd": INCOME_LOG_SD},
        "psu_effects": dict(zip(country.psu.tolist(), country.effect.round(6).tolist(), strict=True)),
        "items": {
            key: {
                "trait": TRAIT_OF_SCALE[key.split("_")[0]],
                "discrimination": discrimination,
                "thresholds": thresholds,
                "worded_positively": key in POSITIVE,
            }
            for key, (discrimination, thresholds) in ITEMS.items()
        },
        "population": POPULATION,
    }


def standard_income(income_log: Floats) -> Floats:
    return (income_log - INCOME_LOG_MEAN) / INCOME_LOG_SD


def _draw_oversampled(share: Floats, density: Floats, n: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Categories drawn in proportion to share times density, and the weights that undo the density (mean 1)."""
    drawn = share * density / (share * density).sum()
    category = rng.choice(len(share), n, p=drawn)
    return category, (share / drawn)[category]


def _draw_rows(share: Floats, rng: np.random.Generator) -> Ints:
    """One category for each row of shares (n, categories)."""
    column: Ints = (rng.random(len(share))[:, None] >= share.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return column


def _logistic(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
