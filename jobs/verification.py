"""How a scale's published cut compares with what clinicians found, although they looked at a chosen few.

Whoever is looked at has mostly a high total, so that among them the cut finds too many of the cases and clears too few
of the others (verification bias). Where who is looked at hangs on the total alone, a case is as likely among those who
were looked at as among the others with the same total; that probability, averaged over everybody, gives the corrected
figures (Begg & Greenes 1983). It is a logistic regression on the total with Firth's (1993) penalty, which stays finite
where the total parts cases from others, its constant fitted without the penalty, which pulls chances to a half (FLIC,
Puhr and others 2017). The cut itself never moves. Shapes: C totals that people reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.special import expit

from expectations.codebook import Codebook
from expectations.feedback import Confirmed

FEWEST = 20  # cases, others, and people on either side of the cut, who were looked at
STEPS, SMALL = 100, 1e-9
DRAWS, SEED = 2_000, 1
NORMAL_95 = 1.959963984540054

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Totals:
    """By total (C, rising): sums of people's weights and of these squared, those who were looked at, cases of these."""

    totals: Floats
    weights: Floats
    squares: Floats
    verified: Counts
    cases: Counts


@dataclass(frozen=True)
class Figure:
    """A share: among those who were looked at, and of everybody, corrected, with its 95 % interval; None of nobody."""

    verified: float | None
    corrected: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """The probability of a case by total, between those of people who were looked at: coefficients of its logit."""

    middle: float
    spread: float
    found: Floats
    covariance: Floats
    lowest: float
    highest: float

    def at(self, totals: Floats) -> tuple[Floats, Floats, Floats]:
        """Probability and its 95 % limits."""
        design = self.design(totals)
        logit, half = (
            design @ self.found,
            NORMAL_95 * np.sqrt(np.einsum("ci,ij,cj->c", design, self.covariance, design)),
        )
        return expit(logit), expit(logit - half), expit(logit + half)

    def design(self, totals: Floats) -> Floats:
        return np.column_stack([np.ones(len(totals)), (totals - self.middle) / self.spread])


@dataclass(frozen=True)
class Verification:
    """People looked at, the cases of these, and of enough of them the curve and what the cut finds.

    `beyond` is the share of people whose total lies beyond those of all who were looked at: of them the curve knows by
    its form alone. `accuracy` has sensitivity, specificity and both predictive values; `prevalence` is that of cases.
    """

    verified: int
    cases: int
    curve: Curve | None = None
    accuracy: Mapping[str, Figure] | None = None
    beyond: float | None = None

    def to_json(self) -> dict[str, Any]:
        told = {key: asdict(figure) for key, figure in self.accuracy.items()} if self.accuracy else None
        return {"verified": self.verified, "cases": self.cases, "beyond": self.beyond, "accuracy": told}

    def to_rows(self, totals: Sequence[float]) -> list[dict[str, float]]:
        """The rows of the table `calibration`, of those of the totals for which the curve stands."""
        if self.curve is None:
            return []
        within = np.array([one for one in totals if self.curve.lowest <= one <= self.curve.highest])
        names = ("total", "probability", "low", "high")
        return [
            dict(zip(names, map(float, row), strict=True)) for row in zip(within, *self.curve.at(within), strict=True)
        ]


def verify_cut(book: Codebook, confirmed: Confirmed, features: Sequence[Path]) -> Verification:
    """The scale's cut against what clinicians found, of the people of the features who have a total."""
    scale = book.scale(confirmed.scale)
    assert scale.cut
    totals = count_totals(features, f"{scale.key}_total", confirmed.key, book.list_cases(scale))
    bound, upwards = float(scale.cut[2:]), scale.cut.startswith(">=")
    return measure_cut(totals, totals.totals >= bound if upwards else totals.totals <= bound)


def list_totals(book: Codebook, confirmed: Confirmed) -> list[float]:
    """The totals that the scale has, nobody's answers missing."""
    scale = book.scale(confirmed.scale)
    low, high = book.span_total(scale)
    return [float(total) for total in range(int(low), int(high) + 1, scale.multiply)]


def count_helpful(feedback: Sequence[Path]) -> dict[str, int]:
    """People who found their analysis helpful, and people who did not."""
    said = [value for path in feedback for value in pq.read_table(path, columns=["helpful"])["helpful"].to_pylist()]
    return {"yes": said.count(True), "no": said.count(False)}


def count_totals(features: Sequence[Path], total: str, confirmed: str, cases: Sequence[str]) -> Totals:
    parts = []
    for path in sorted(features):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[total, "weight", confirmed]):
                rows = batch.filter(batch[total].is_valid())
                found = rows[confirmed]
                looked_at = found.is_valid().to_numpy(zero_copy_only=False)
                is_case = np.isin(np.array(found.to_pylist(), dtype=object), np.array(cases, dtype=object))
                parts.append((rows[total].to_numpy(), rows["weight"].to_numpy(), looked_at, is_case))
    if not parts:
        return Totals(*(np.zeros(0, kind) for kind in (float, float, float, np.int64, np.int64)))
    values, weights, looked_at, is_case = (np.concatenate(column) for column in zip(*parts, strict=True))
    totals, place = np.unique(values, return_inverse=True)

    def add(what: npt.NDArray[Any]) -> Floats:
        return np.bincount(place, weights=what, minlength=len(totals)).astype(np.float64)

    return Totals(totals, add(weights), add(weights**2), add(looked_at).astype(np.int64), add(is_case).astype(np.int64))


def measure_cut(counted: Totals, positive: npt.NDArray[np.bool_]) -> Verification:
    """`positive` (C) says which totals pass the cut.

    Intervals hold the draw of people, taken as independent, and that of the curve.
    """
    verified, cases = int(counted.verified.sum()), int(counted.cases.sum())
    sides = (int(counted.verified[positive].sum()), int(counted.verified[~positive].sum()))
    if min(cases, verified - cases, *sides) < FEWEST or not counted.weights.sum():
        return Verification(verified, cases)
    curve = fit_curve(counted)
    design = curve.design(counted.totals)
    random = np.random.default_rng(SEED)
    chances = expit(random.multivariate_normal(curve.found, curve.covariance, DRAWS, method="cholesky") @ design.T)
    noise = random.standard_normal((DRAWS, len(counted.totals)))
    weights = np.maximum(counted.weights + noise * np.sqrt(counted.squares), 0.0)
    corrected = _describe_cut(expit(design @ curve.found), counted.weights, positive)
    draws = _describe_cut(chances, weights, positive)
    naive = _describe_cut(counted.cases / np.maximum(counted.verified, 1), counted.verified.astype(float), positive)
    accuracy = {}
    for key, value in corrected.items():
        ends = np.quantile(draws[key], [0.025, 0.975])
        accuracy[key] = Figure(*map(_number, (naive[key], value, *ends)))
    within = (curve.lowest <= counted.totals) & (counted.totals <= curve.highest)
    return Verification(verified, cases, curve, accuracy, float(counted.weights[~within].sum() / counted.weights.sum()))


def fit_curve(counted: Totals) -> Curve:
    """People who were looked at have two totals at least."""
    counts, cases = counted.verified.astype(float), counted.cases.astype(float)
    middle = float(np.average(counted.totals, weights=counts))
    spread = float(np.sqrt(np.average((counted.totals - middle) ** 2, weights=counts)))
    design = np.column_stack([np.ones(len(counts)), (counted.totals - middle) / spread])
    found, covariance = fit_firth(design, counts, cases)
    for _ in range(STEPS):
        chance = expit(design @ found)
        step = (cases - counts * chance).sum() / (counts * chance * (1 - chance)).sum()
        found = found + np.array([step, 0.0])
        if abs(step) < SMALL:
            break
    seen = counted.totals[counts > 0]
    return Curve(middle, spread, found, covariance, float(seen[0]), float(seen[-1]))


def fit_firth(design: Floats, counts: Floats, cases: Floats) -> tuple[Floats, Floats]:
    """Coefficients (P) and their covariance (P, P): a logistic regression with Jeffreys' prior, of grouped counts (C).

    Firth (1993); Heinze & Schemper (2002): the score is that of likelihood with h (1/2 - p) added, h being leverages.
    """
    found = np.zeros(design.shape[1])

    def measure(at: Floats) -> tuple[float, Floats, Floats]:
        """Penalised log likelihood, its score, and the information."""
        chance = np.clip(expit(design @ at), SMALL, 1 - SMALL)
        weight = counts * chance * (1 - chance)
        information = design.T @ (weight[:, None] * design)
        leverage = weight * np.einsum("ci,ij,cj->c", design, np.linalg.inv(information), design)
        score = design.T @ (cases - counts * chance + leverage * (0.5 - chance))
        likelihood = (cases * np.log(chance) + (counts - cases) * np.log1p(-chance)).sum()
        return likelihood + 0.5 * np.linalg.slogdet(information)[1], score, information

    likelihood, score, information = measure(found)
    for _ in range(STEPS):
        step = np.linalg.solve(information, score)
        if np.abs(step).max() < SMALL:
            break
        for share in 0.5 ** np.arange(30):
            ahead = measure(found + share * step)
            if ahead[0] > likelihood:
                break
        else:
            break
        found, (likelihood, score, information) = found + share * step, ahead
    return found, np.asarray(np.linalg.inv(information), dtype=np.float64)


def _describe_cut(chance: Floats, weights: Floats, positive: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Shares, of chances of a case (..., C) among people whose weights by total are (..., C)."""
    cases, others = chance * weights, (1 - chance) * weights

    def part(some: Floats, chosen: npt.NDArray[np.bool_]) -> Any:
        return some[..., chosen].sum(axis=-1)

    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": part(cases, positive) / cases.sum(axis=-1),
            "specificity": part(others, ~positive) / others.sum(axis=-1),
            "positive_predictive_value": part(cases, positive) / part(weights, positive),
            "negative_predictive_value": part(others, ~positive) / part(weights, ~positive),
            "prevalence": cases.sum(axis=-1) / weights.sum(axis=-1),
        }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
