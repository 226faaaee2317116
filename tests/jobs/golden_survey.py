"""A small simulated survey and R's estimates of it, both made by `benchmarks/peers/golden.R`."""

from pathlib import Path

import numpy as np
import pandas as pd

from expectations.replication import Replication, choose_scales

METHODS = ["BRR", "Fay", "JK1", "JKn", "bootstrap", "ACS", "JKn_mse", "bootstrap_mse"]
FOLDER = Path(__file__).parent / "golden"
TEXTS = {"psu": str, "stratum": str}


def read_people() -> pd.DataFrame:
    """202 people in 8 strata of 2 PSUs; `psu` here is stratum and label together."""
    people = pd.read_csv(FOLDER / "people.csv", dtype=TEXTS)
    return people.assign(psu=people["stratum"] + ":" + people["psu"])


def read_estimates(method: str, kind: str | None = None) -> list[dict]:
    rows = pd.read_csv(FOLDER / "estimates.csv").replace({np.nan: None})
    chosen = rows[(rows["method"] == method) & ((rows["kind"] == kind) | (kind is None))]
    assert len(chosen)
    return chosen.to_dict("records")


def read_weights(name: str) -> tuple[np.ndarray, Replication]:
    """Everybody's full and replicate weights (people, 1 + R) of one of METHODS, and the replicates' scales."""
    method, _, mse = name.partition("_")
    people, factors = read_people(), pd.read_csv(FOLDER / "factors.csv", dtype=TEXTS)
    factors = factors[factors["method"] == method]
    psu = factors["stratum"] + ":" + factors["psu"]
    wide = factors.assign(psu=psu).pivot(index="psu", columns="replicate", values="factor")
    weight = people["weight"].to_numpy()[:, None]
    weights = np.hstack([weight, weight * wide.loc[people["psu"]].to_numpy()])
    replication = choose_scales(
        method,
        weights.shape[1] - 1,
        rho=0.3 if method == "Fay" else None,
        rscales=list(factors.groupby("replicate")["rscale"].first()) if method == "JKn" else None,
        mse=bool(mse),
    )
    return weights, replication


def select(people: pd.DataFrame, domain: str, *answers: str) -> pd.DataFrame:
    """The people of a domain who gave all of the answers, in the PSUs' order."""
    kept = people[answers[0]].notna() & ((people["sex"] == domain) | (domain == "all"))
    for answer in answers:
        kept &= people[answer].notna()
    return people[kept].sort_values(["stratum", "psu"], kind="stable")


def add_up(people: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """The sum of the values in each PSU, sorted."""
    return values.groupby([people["stratum"], people["psu"]], sort=True).sum().to_numpy(dtype=float)


def list_psus(people: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Stratum and name of each PSU, in the order of `add_up`."""
    index = people.groupby(["stratum", "psu"], sort=True).size().index
    return index.get_level_values(0).to_numpy(), index.get_level_values(1).to_numpy()
