"""`python -m benchmarks.plausible`: a gap between two cohorts in a trait, from plausible values and from profiles.

Surveys are simulated of strata, PSUs and informative weights; people answer nine floored items whose parameters are
known to the model. In truth the cohorts lie GAP apart. From each survey the gap is estimated on the full design.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy.special import expit

from jobs.imputation import combine
from jobs.presentation import t_interval
from model.amortise import settle_encoder
from model.conditioning import condition_on
from model.network import ProfileNetwork
from model.plausible import VALUES, EffectiveDraws, Imputer, find_regression
from model.spec import FeatureSpec, ItemSpec, TraitSpec

GAP = 0.5  # sds of everybody's trait
STRATA, PSUS, PER_PSU = 10, 5, 24  # PSUs of a stratum, people of a PSU
STRATUM_SD, PSU_SD = 0.15, 0.2
CANDIDATES = 5  # people of whom one is drawn
AGE_EFFECT, DRAWN_AGE = -0.2, 0.4  # on the trait, and on the log odds of being drawn
ITEMS, LEVELS = 9, 4
ENCODER_STEPS = 3000
COHORTS = ("first", "second")
TOLERANCE, COVERAGE = 0.02, (0.92, 0.98)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    people: pa.Table
    cohort: npt.NDArray[np.int64]
    stratum: npt.NDArray[np.int64]
    psu: npt.NDArray[np.int64]
    weights: Floats


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plausible", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--surveys", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first survey")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = make_network()
    surveys = (simulate_survey(network, seed) for seed in range(arguments.seed, arguments.seed + arguments.surveys))
    report = compare(network, surveys)
    print(f"{'':18}{'mean gap':>10}{'95 % intervals that hold the truth':>38}{'of cohorts':>14}")
    for way in ("plausible_values", "profile_means"):
        found = report[way]
        print(f"{way:18}{found['gap']:10.3f}{found['coverage']:38.3f}{found['cohort_coverage']:14.3f}")
    print(json.dumps(report))
    return 0 if report["plausible_values"]["passed"] and not report["profile_means"]["passed"] else 1


def compare(network: ProfileNetwork, surveys: Iterator[Survey]) -> dict[str, Any]:
    gaps: dict[str, list[float]] = {"plausible_values": [], "profile_means": []}
    held: dict[str, list[bool]] = {name: [] for name in gaps}
    inside: dict[str, list[bool]] = {name: [] for name in gaps}
    effective, missing, se = [], [], []
    for survey in surveys:
        drawn = impute(network, survey)
        effective.append(drawn.effective)
        profiles = find_means(network, survey.people)
        for name, values in (("plausible_values", drawn.values[:, :, 0].T), ("profile_means", profiles[None])):
            contrasts = {None: GAP, 0: -GAP / 2, 1: GAP / 2}
            for cohort, truth in contrasts.items():
                found = [estimate_contrast(survey, value.astype(np.float64), cohort) for value in values]
                df = STRATA * (PSUS - 1)
                if len(found) == 1:
                    estimate, (low, high) = found[0][0], t_interval(found[0][0], found[0][1] ** 0.5, df)
                else:
                    combined = combine([one for one, _ in found], [variance for _, variance in found], df)
                    estimate, (low, high) = combined.estimate, combined.interval
                (held if cohort is None else inside)[name].append(low <= truth <= high)
                if cohort is None:
                    gaps[name].append(estimate)
                    if len(found) > 1:
                        missing.append(combined.missing)
                        se.append(combined.se)
    report: dict[str, Any] = {
        "surveys": len(missing),
        "people": STRATA * PSUS * PER_PSU,
        "values": VALUES,
        "truth": GAP,
    }
    for name, estimates in gaps.items():
        gap, coverage = float(np.mean(estimates)), float(np.mean(held[name]))
        report[name] = {
            "gap": round(gap, 4),
            "spread": round(float(np.std(estimates, ddof=1)), 4) if len(estimates) > 1 else None,
            "coverage": round(coverage, 4),
            "cohort_coverage": round(float(np.mean(inside[name])), 4),
            "passed": abs(gap - GAP) <= TOLERANCE and COVERAGE[0] <= coverage <= COVERAGE[1],
        }
    report["plausible_values"]["se"] = round(float(np.sqrt(np.mean(np.square(se)))), 4)
    report["missing_information"] = round(float(np.mean(missing)), 3)
    report["effective_draws"] = EffectiveDraws.of(effective).describe()
    return report


def make_network(steps: int = ENCODER_STEPS) -> ProfileNetwork:
    """A network with the true items and a standard normal trait; its encoder has learned their posterior."""
    keys = tuple(f"item_{number}" for number in range(ITEMS))
    items = tuple(ItemSpec(key, tuple(range(LEVELS)), "trait", False) for key in keys)
    spec = FeatureSpec(items, (TraitSpec("trait", keys),), (), "simulation", "1")
    torch.manual_seed(1)
    network = ProfileNetwork(spec)
    random = np.random.default_rng(7)
    slopes = random.uniform(1.3, 2.6, ITEMS)
    first = slopes * random.uniform(0.4, 1.4, ITEMS)
    gaps = slopes[:, None] * random.uniform(0.5, 1.0, (ITEMS, LEVELS - 2))
    network.requires_grad_(False)
    network.items.log_discrimination.copy_(torch.from_numpy(np.log(slopes)))
    network.items.first_threshold.copy_(torch.from_numpy(first))
    network.items.raw_gaps.copy_(torch.from_numpy(np.log(np.expm1(gaps))))
    network.prior.means.zero_()
    settle_encoder(network, torch.ones(1, ITEMS, dtype=torch.bool), 1, steps)
    return network.eval()


def simulate_survey(network: ProfileNetwork, seed: int) -> Survey:
    """Everybody's trait has mean 0 and variance 1 in the population; age bears on it and on who is drawn."""
    random = np.random.default_rng(seed)
    stratum = np.repeat(np.arange(STRATA), PSUS * PER_PSU)
    psu = np.repeat(np.arange(STRATA * PSUS), PER_PSU)
    effects = STRATUM_SD * np.resize([1.0, -1.0], STRATA)[stratum] + (PSU_SD * random.standard_normal(len(psu)))[psu]
    ages = random.standard_normal((len(psu), CANDIDATES))
    odds = DRAWN_AGE * ages
    chosen = (odds + random.gumbel(size=ages.shape)).argmax(axis=1)
    rows = np.arange(len(psu))
    age = ages[rows, chosen]
    weights = np.exp(odds).sum(axis=1) / np.exp(odds[rows, chosen])
    cohort = random.integers(0, 2, len(psu))
    rest = np.sqrt(1 - (GAP / 2) ** 2 - STRATUM_SD**2 - PSU_SD**2 - AGE_EFFECT**2)
    trait = GAP * (cohort - 0.5) + effects + AGE_EFFECT * age + rest * random.standard_normal(len(psu))
    slopes = network.items.discriminations()[0].double().numpy()
    edges = network.items.edges()[:, 1:-1].double().numpy()
    reached = random.uniform(size=(len(psu), ITEMS, 1)) < expit((slopes * trait[:, None])[:, :, None] - edges)
    codes = reached.sum(axis=2).astype(np.int8)
    columns = {key: codes[:, place] for place, key in enumerate(network.spec.columns)}
    ids = [f"{seed}:{number}" for number in range(len(psu))]
    design = {"psu": psu.astype(str), "stratum": stratum.astype(str), "weight": weights}
    cohorts = {"cohort": np.array(COHORTS)[cohort]}
    return Survey(pa.table({"person_id": ids, **columns, **cohorts, **design}), cohort, stratum, psu, weights)


def impute(network: ProfileNetwork, survey: Survey) -> Any:
    psus = [str(number) for number in range(STRATA * PSUS)]
    conditioning = condition_on([("cohort",)], {"cohort": COHORTS}, psus, survey.weights)
    regression = find_regression(network, conditioning, survey.people)
    return Imputer(conditioning, regression.draw(VALUES)).draw(network, survey.people)


@torch.no_grad()
def find_means(network: ProfileNetwork, people: pa.Table) -> Floats:
    codes = np.stack([people[key].to_numpy() for key in network.spec.columns], axis=1)
    return network.posterior(network.categories(torch.from_numpy(codes))).mean[:, 0].double().numpy()


def estimate_contrast(survey: Survey, values: Floats, cohort: int | None) -> tuple[float, float]:
    """A cohort's mean, or the second's less the first's, and its variance by linearisation on the full design."""
    signs: Sequence[tuple[int, float]] = ((0, -1.0), (1, 1.0)) if cohort is None else ((cohort, 1.0),)
    estimate, scores = 0.0, np.zeros(STRATA * PSUS)
    for level, sign in signs:
        weight = survey.weights * (survey.cohort == level)
        mean = float(weight @ values / weight.sum())
        estimate += sign * mean
        scores += sign * np.bincount(survey.psu, weight * (values - mean) / weight.sum())
    centred = scores.reshape(STRATA, PSUS)
    centred = centred - centred.mean(axis=1, keepdims=True)
    return estimate, float((centred**2).sum() * PSUS / (PSUS - 1))


if __name__ == "__main__":
    sys.exit(main())
