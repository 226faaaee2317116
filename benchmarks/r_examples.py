"""`python -m benchmarks.r_examples`: the examples of R's survey package, its own data, beside ours.

Stratified and clustered designs with and without finite population correction, replicate weights of every type,
quantiles, ratios, totals, standardised means, raking and calibration. The last line is JSON: of each of R's functions
and designs the largest relative difference, and how many figures were left out: quantiles' lower limits where the share
lies below the first person's weight, for which R's qrule takes the second person. `benchmarks/install_r.sh` installs R.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.environment import ROOT
from expectations.replication import Replication
from jobs.calibration import rake_cells
from jobs.linearisation import score_ratio, score_standardised
from jobs.presentation import log_t_interval, t_interval
from jobs.quantiles import estimate_quantile
from jobs.replicates import count_df, estimate_replicated
from jobs.survey import DesignSizes, count_psus, sum_variance

LARGEST_DIFFERENCE = 1e-6
TIE = 1e-12
STANDARD = {"E": 0.6, "H": 0.25, "M": 0.15}
MARGINS = {"stype": {"E": 4421.0, "H": 755.0, "M": 1018.0}, "sch.wide": {"No": 1072.0, "Yes": 5122.0}}
BOUNDS = {"rake": (0.0, math.inf), "calibrate": (0.0, math.inf), "calibrate_bounded": (0.6, 1.7)}
PEOPLE_OF = {"JK1": "cluster", "bootstrap": "cluster", "JKn": "stratified", "ACS": "stratified"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """People of a design or a part of it, and how the variance of a linear figure of theirs is found."""

    people: pd.DataFrame
    sizes: DesignSizes
    replicates: Floats | None = None  # (people, 1 + R) weights, the full one first
    replication: Replication | None = None

    def select(self, kept: pd.Series) -> "Sample":
        replicates = None if self.replicates is None else self.replicates[kept.to_numpy()]
        return Sample(self.people[kept], self.sizes, replicates, self.replication)

    def add(self, values: pd.Series) -> Floats:
        """Weighted sums: with each replicate's weight, or per PSU."""
        if self.replicates is not None:
            return np.asarray((self.replicates * values.to_numpy(dtype=float)[:, None]).sum(axis=0))
        weighted = (values * self.people["weight"]).groupby([self.people["stratum"], self.people["psu"]]).sum()
        return weighted.to_numpy(dtype=float)

    def find_se(self, scores: Floats) -> float:
        strata = self.people.groupby(["stratum", "psu"]).size().index.get_level_values(0).to_numpy()
        variance = sum_variance(strata, scores, self.sizes, "fail")
        assert variance is not None
        return math.sqrt(variance)

    def ratio(self, over: pd.Series, under: pd.Series) -> tuple[float, float | None]:
        if self.replication is not None:
            return estimate_replicated(self.add(over) / self.add(under), self.replication)
        ratio, scores = score_ratio(self.add(over), self.add(under))
        return ratio, self.find_se(scores)

    def total(self, values: pd.Series) -> tuple[float, float | None]:
        sums = self.add(values)
        return estimate_replicated(sums, self.replication) if self.replication else (sums.sum(), self.find_se(sums))

    @property
    def df(self) -> int:
        if self.replicates is not None:
            return count_df(self.replicates[:, 1:])
        return len(self.people["psu"].unique()) - len(self.people["stratum"].unique())


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            subprocess.run(["Rscript", "--vanilla", str(ROOT / "benchmarks/peers/examples.R"), name], check=True)
        except (OSError, subprocess.CalledProcessError):
            sys.exit("r_examples: R or its package survey is not installed: run benchmarks/install_r.sh")
        worst: dict[str, float] = defaultdict(float)
        figures = pd.read_csv(folder / "figures.csv", dtype={"figure": str}).replace({np.nan: None})
        samples, left_out = dict[str, Sample](), 0
        for found in figures.to_dict("records"):
            row: dict[str, Any] = {str(name): value for name, value in found.items()}
            design = str(row["design"])
            sample = samples[design] = samples.get(design) or read_sample(folder, design)
            ours = ANSWERS[str(row["method"])](sample, row)
            left_out += not ours
            theirs = [row[name] for name in ("estimate", "se", "df", "low", "high")][: len(ours)]
            label = f"{row['method']} {row['design']}"
            worst[label] = max([worst[label], *(compare(*pair) for pair in zip(ours, theirs, strict=True))])
    largest = max(worst.values())
    print(json.dumps({"figures": len(figures), "left_out": left_out, "largest": largest, "largest_by_method": worst}))
    return 0 if largest <= LARGEST_DIFFERENCE else 1


def compare(ours: float | None, theirs: float | None) -> float:
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else math.inf
    return abs(ours - theirs) / max(abs(theirs), 1e-12)


def read_sample(folder: Path, design: str) -> Sample:
    known: Any = {"psu": str, "stratum": str}
    is_taylor = (folder / f"{design}.csv").exists()
    people = pd.read_csv(folder / f"{design if is_taylor else PEOPLE_OF.get(design, 'pairs')}.csv", dtype=known)
    psus = people.groupby("stratum")["psu"].nunique().to_dict()
    population = people.groupby("stratum")["fpc"].first()
    sampled = {
        str(name): float(psus[name] / size) for name, size in population.to_dict().items() if math.isfinite(size)
    }
    sizes = count_psus(zip(people["stratum"], people["psu"], strict=True), sampled)
    if is_taylor:
        return Sample(people, sizes)
    weights = pd.read_csv(folder / f"{design}_weights.csv").to_numpy(dtype=float)
    scales = pd.read_csv(folder / f"{design}_scales.csv")
    replication = Replication(float(scales["scale"][0]), scales["rscale"].to_numpy(dtype=float), mse=design == "ACS")
    return Sample(people, sizes, np.hstack([people[["weight"]].to_numpy(), weights]), replication)


def find_domain(sample: Sample, school: str) -> Sample:
    return sample if school == "all" else sample.select(sample.people["stype"] == school)


def answer_mean(sample: Sample, row: dict[str, Any]) -> list[float | None]:
    domain = find_domain(sample, row["figure"])
    mean, se = domain.ratio(domain.people["api00"], domain.people["api00"] * 0 + 1)
    assert se is not None
    return [mean, se, domain.df, *t_interval(mean, se, domain.df)]


def answer_total(sample: Sample, row: dict[str, Any]) -> list[float | None]:
    domain = find_domain(sample, row["figure"])
    answered = domain.select(domain.people["enroll"].notna())
    total, se = answered.total(answered.people["enroll"])
    assert se is not None
    return [total, se, domain.df, *log_t_interval(total, se, domain.df)]


def answer_ratio(sample: Sample, row: dict[str, Any]) -> list[float | None]:
    domain = find_domain(sample, row["figure"])
    answered = domain.select(domain.people["enroll"].notna())
    return [*answered.ratio(answered.people["api.stu"], answered.people["enroll"])]


def answer_quantile(sample: Sample, row: dict[str, Any]) -> list[float | None]:
    school, share = row["figure"].split()
    domain = find_domain(sample, school)
    y, ones = domain.people["api00"], domain.people["api00"] * 0 + 1
    weights = domain.people.groupby("api00")["weight"].sum()
    values = weights.index.to_numpy(dtype=float)

    def estimate(wanted: float) -> list[float | None]:
        found = estimate_quantile(
            values, weights.to_numpy(), wanted, lambda value: domain.ratio(1.0 * (y <= value), ones)[1], domain.df
        )
        return [found.estimate, found.se, domain.df, found.ci_low, found.ci_high]

    # A share that equal weights reach exactly: R's answer is the value or the next, as its last digit has it.
    reached = np.abs(np.cumsum(weights.to_numpy()) / weights.sum() - float(share)).min() < TIE
    ours = estimate(float(share))
    if reached and ours[0] != row["estimate"]:
        ours = estimate(float(share) + 1e-9)
    second = float(np.sort(np.repeat(values, domain.people.groupby("api00").size()))[1])
    return [] if ours[3] == values[0] and row["low"] == second > values[0] else ours


def answer_standardised(sample: Sample, row: dict[str, Any]) -> list[float | None]:
    domain = sample.select(sample.people["sch.wide"] == row["figure"])
    groups = [1.0 * (domain.people["stype"] == group) for group in STANDARD]
    sums = np.array([domain.add(inside) for inside in groups])
    sums_wy = np.array([domain.add(inside * domain.people["api00"]) for inside in groups])
    mean, scores = score_standardised(np.array(list(STANDARD.values())), sums, sums_wy)
    return [mean, domain.find_se(scores)]


def answer_raking(sample: Sample, row: dict[str, Any]) -> list[float | None]:
    weights = sample.people.groupby(["stype", "sch.wide"])["weight"].sum()
    cells = [dict(zip(MARGINS, labels, strict=True)) for labels in weights.index]
    raking = rake_cells(cells, weights.to_numpy(), MARGINS, BOUNDS[row["method"]])
    return [float(raking.factors[list(weights.index).index(tuple(row["figure"].split()))])]


ANSWERS: dict[str, Callable[[Sample, dict[str, Any]], list[float | None]]] = {
    "svymean": answer_mean,
    "svytotal": answer_total,
    "svyratio": answer_ratio,
    "svyquantile": answer_quantile,
    "svystandardize": answer_standardised,
    **dict.fromkeys(BOUNDS, answer_raking),
}

if __name__ == "__main__":
    sys.exit(main())
