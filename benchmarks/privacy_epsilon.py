"""What an attacker finds of epsilon in thousands of differentially private releases, and in those of half the noise.

Two populations differ by one person. Each release is made by the product's own functions, of exact sums to noisy ones;
the attacker knows everything but that person and the noise, and guesses by the likelihood ratio of the whole release.
An event that is chosen on half of the releases bounds epsilon on the other half: ln of the lower Clopper-Pearson limit
of its share with the person over the upper limit without (Jagielski, Ullman and Oprea 2020), both at 97.5 %.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from scipy.stats import beta

from expectations.codebook import Codebook, find_codebook, read_codebook
from jobs.dp_noise import Noise, add_noise, plan_noise
from jobs.dp_sums import CellSums, add_up, list_questions

RELEASES = 10_000
EPSILONS = (0.5, 1.0, 2.0)
OUTCOMES = ("phq9_ge10", "phq9_total")  # a proportion, and a mean, of which a total and squares are released, too
CONFIDENCE = 0.95
PEOPLE, LARGEST = 200, 2.0
Plan = Mapping[tuple[tuple[str, ...], str], Noise]


@dataclass(frozen=True)
class Bound:
    """The claimed epsilon of one outcome's releases, and its lower bounds with 95 % confidence: of the product, and
    with half its noise."""

    outcome: str
    claimed: float
    lower: float
    lower_half_noise: float

    @property
    def holds(self) -> bool:
        """Whether the claim stands, and the defect is found."""
        return self.lower <= self.claimed < self.lower_half_noise


def measure_epsilon(releases: int = RELEASES) -> list[Bound]:
    """For each of OUTCOMES and EPSILONS. A codebook has one breakdown and one outcome: each part's share is large."""
    bounds = []
    for outcome in OUTCOMES:
        with TemporaryDirectory() as name:
            book = make_book(Path(name), outcome)
            questions = list_questions(book.parsed_outcomes())
            there, gone = make_neighbours(Path(name), book)
            for claimed in EPSILONS:
                plan = plan_noise(claimed, book.breakdowns, questions)
                halved = {
                    key: Noise({part: scale / 2 for part, scale in noise.scales.items()}) for key, noise in plan.items()
                }
                lower, caught = (bound_epsilon(there, gone, used, releases) for used in (plan, halved))
                bounds.append(Bound(outcome, claimed, lower, caught))
    return bounds


def make_book(folder: Path, outcome: str) -> Codebook:
    """The demo codebook with one outcome for everybody."""
    book = yaml.safe_load(find_codebook("demo_population").read_text())
    book |= {"breakdowns": [[]], "outcomes": [outcome]}
    book.pop("standard", None)
    file = folder / "codebook.yaml"
    file.write_text(yaml.safe_dump(book, allow_unicode=True, sort_keys=False))
    return read_codebook(str(file))[0]


def make_neighbours(folder: Path, book: Codebook) -> tuple[list[CellSums], list[CellSums]]:
    """The exact sums of people, and of the same people without the one of the largest weight and the highest total."""
    random = np.random.default_rng(1)
    weights = np.append(LARGEST, random.uniform(0.1, LARGEST, PEOPLE))
    totals = np.append(27.0, random.binomial(27, 0.15, PEOPLE))
    found = []
    for start in (0, 1):
        file = folder / f"people-{start}.parquet"
        pq.write_table(pa.table({"weight": weights[start:], "phq9_total": totals[start:]}), file)
        found.append(add_up([file], book, list_questions(book.parsed_outcomes()), LARGEST, folder))
    return found[0], found[1]


def bound_epsilon(there: Sequence[CellSums], gone: Sequence[CellSums], plan: Plan, releases: int) -> float:
    """The lower bound of epsilon: so many releases of each population, half of them to choose the event by.

    Adding and removing the person are both tried: the event may be one of many or of few.
    """
    guess = likelihood_ratio(there, gone, plan)
    drawn = [
        np.array(
            [guess([add_noise(one, plan[one.breakdown, one.question.source]) for one in sums]) for _ in range(releases)]
        )
        for sums in (there, gone)
    ]
    halves = [(scores[: releases // 2], scores[releases // 2 :]) for scores in drawn]
    (choose_there, judge_there), (choose_gone, judge_gone) = halves
    best = max(
        ((direction, cut) for direction in (1, -1) for cut in np.quantile(choose_there, np.linspace(0.02, 0.98, 49))),
        key=lambda event: bound_event(choose_there, choose_gone, *event),
    )
    return max(0.0, bound_event(judge_there, judge_gone, *best))


def bound_event(there: NDArray[np.float64], gone: NDArray[np.float64], direction: int, cut: float) -> float:
    """ln(p / q) at its confidence limits, of the event that the score passes the cut."""
    if direction > 0:
        hits, alarms, trials = int((there >= cut).sum()), int((gone >= cut).sum()), len(there)
    else:
        hits, alarms, trials = int((gone <= cut).sum()), int((there <= cut).sum()), len(there)
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, alarms + 1, trials - alarms)) if alarms < trials else 1.0
    return math.log(low / high) if low > 0 else -math.inf


def likelihood_ratio(
    there: Sequence[CellSums], gone: Sequence[CellSums], plan: Plan
) -> Callable[[Sequence[CellSums]], float]:
    """The log-likelihood ratio of a release, in units of the attacker's plan."""

    def score(released: Sequence[CellSums]) -> float:
        ratio = 0.0
        for with_person, without, seen in zip(there, gone, released, strict=True):
            scales = plan[seen.breakdown, seen.question.source].scales
            for part, scale in scales.items():
                values = [np.atleast_1d(np.array(getattr(sums, part), float)) for sums in (seen, with_person, without)]
                ratio += float((np.abs(values[0] - values[2]) - np.abs(values[0] - values[1])).sum()) / scale
        return ratio

    return score
