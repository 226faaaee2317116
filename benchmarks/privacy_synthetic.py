"""Synthetic NHANES beside CTGAN's and TVAE's: the report's figures, and what an attacker learns of real people.

Two lakes are made of NHANES: of everybody, for the figures, and of a random half, for the attacks: who was in it is
told apart from who was not. Peers are trained once on the same rows, at their own defaults, and drawn from DRAWS times.
Shapes: N people, D drawn ones, F features.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from benchmarks.environment import ROOT, prepare_environment, run
from benchmarks.synthetic_figures import (
    Agreement,
    average,
    compare_figures,
    estimate_items,
    estimate_report,
    read_extract,
)
from expectations.codebook import Codebook, read_codebook
from jobs.catalog import find_files
from jobs.explain import read_published
from jobs.lake import Lake
from jobs.synthesize import synthesize
from jobs.synthetic_columns import Texts, write_code

NIGHT = date(2020, 3, 1)
BOOK = "nhanes_2017_2018"
KEY = "benchmark"
DRAWS = 10
LEAST_OVERLAP = 0.9
PEERS = ("ctgan", "tvae")
UNIT = "unit"  # stratum and PSU together, for peers: apart they would make PSUs that the design has not
SECRET = "DPQ090"  # what the attacker wants to know, from everything else
NEIGHBOURS = 5

Floats = NDArray[np.float64]
Columns = dict[str, Texts]


def measure_synthetic() -> dict[str, Any]:
    """Utility and disclosure risk of the product's extracts and of the peers', by their names."""
    data = Path(os.environ.get("MINDCENSUS_SHARED", ROOT.parent / "shared")) / "data" / BOOK
    with TemporaryDirectory() as name:
        folder = Path(name)
        book, _ = read_codebook(BOOK)
        run_night(folder / "everybody", BOOK, data)
        real = read_accepted(folder / "everybody", book)
        people = len(real[book.person_id])
        members = np.random.default_rng(1).permutation(people) < people // 2
        half = select(real, members)
        files = make_half(folder, half)
        run_night(folder / "half", str(files / "codebook.yaml"), files)
        drawn = {"ours": [draw(folder / "everybody", BOOK, people, seed, folder) for seed in range(1, DRAWS + 1)]}
        attacked = {"ours": draw(folder / "half", str(files / "codebook.yaml"), len(half[book.person_id]), 1, folder)}
        for peer in PEERS:
            drawn[peer] = ask_generator(peer, book, real, DRAWS, folder)
            attacked[peer] = ask_generator(peer, book, half, 1, folder)[0]
        utility = {
            name: {**compare_draws(book, real, draws), "sdmetrics": ask_quality(name, book, real, draws, folder)}
            for name, draws in drawn.items()
        }
        risk = {name: attack(book, real, members, extract) for name, extract in attacked.items()}
    ours = utility["ours"]["overlap"]
    return {
        "synthetic_utility": utility,
        "synthetic_risk": risk,
        "synthetic_passed": ours >= LEAST_OVERLAP and all(ours > utility[peer]["overlap"] for peer in PEERS),
    }


def run_night(lake: Path, book: str, extract: Path) -> None:
    """Under one key, since folds follow from pseudonyms: figures come out again."""
    environment = {**os.environ, "MINDCENSUS_KEY": KEY}
    named = ["--lake", lake, "--run-date", NIGHT, "--codebook", book, "--extract", extract]
    subprocess.run(
        [sys.executable, "-m", "jobs.cli", "run", *map(str, named)],
        check=True,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def read_accepted(root: Path, book: Codebook) -> Columns:
    """The real extract's columns of eligible people, as texts; their ids are pseudonyms."""
    lake = Lake(root)
    files = [str(path) for path in find_files(lake.root, read_published(lake, NIGHT), "accepted")]
    table = ds.dataset(files, format="parquet").to_table().sort_by("person_id")
    table = table.rename_columns({"person_id": book.person_id})
    return {name: to_texts(table[name]) for name in book.column_types()}


def to_texts(column: pa.ChunkedArray) -> Texts:
    return np.array([write_code(value) for value in column.to_pylist()], dtype=object)


def select(columns: Mapping[str, Texts], chosen: NDArray[np.bool_]) -> Columns:
    return {name: column[chosen] for name, column in columns.items()}


def write_columns(columns: Mapping[str, Texts], file: Path) -> None:
    pa.csv.write_csv(pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()}), file)


def read_columns(file: Path) -> Columns:
    header = file.open().readline().strip().replace('"', "").split(",")
    kinds = pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True)
    table = pa.csv.read_csv(file, convert_options=kinds)
    return {name: np.array(table[name].to_pylist(), dtype=object) for name in header}


def make_half(folder: Path, half: Columns) -> Path:
    """An extract of a half of the people, and the codebook that reads it: the one of a synthetic extract."""
    made = folder / "half_extract"
    draw(folder / "everybody", BOOK, len(half[next(iter(half))]), 0, folder, made)
    write_columns(half, made / f"{BOOK}.csv")
    return made


def draw(root: Path, named: str, people: int, seed: int, folder: Path, out: Path | None = None) -> Columns:
    lake, (book, _) = Lake(root), read_codebook(named)
    out = out or folder / f"drawn-{root.name}-{seed}"
    return read_columns(synthesize(lake, read_published(lake, NIGHT), book, people, seed, out))


def ask_generator(peer: str, book: Codebook, columns: Columns, draws: int, folder: Path) -> list[Columns]:
    """Extracts of a peer that is trained on these columns, in the environment of its packages."""
    out = folder / f"{peer}-{len(columns[book.person_id])}"
    out.mkdir()
    stratum, psu = str(book.design.stratum), str(book.design.psu)
    given = {name: column for name, column in columns.items() if name not in (book.person_id, stratum, psu)}
    given[UNIT] = np.array([f"{a}:{b}" for a, b in zip(columns[stratum], columns[psu], strict=True)], dtype=object)
    write_columns(given, out / "table.csv")
    people = len(columns[book.person_id])
    task = {"model": peer, "seed": 1, "draws": draws, "people": people, "numbers": list_numbers(book)}
    (out / "task.json").write_text(json.dumps({**task, "table": str(out / "table.csv"), "out": str(out)}))
    run([str(prepare_environment(ROOT / ".bench")), "-m", "benchmarks.peers.generators", str(out / "task.json")])
    return [split_unit(book, read_columns(out / f"draw-{number}.csv")) for number in range(draws)]


def list_numbers(book: Codebook) -> list[str]:
    return [book.design.weight, *dict.fromkeys(part.column for part in book.covariates if part.is_number)]


def ask_quality(name: str, book: Codebook, real: Columns, draws: list[Columns], folder: Path) -> dict[str, float]:
    """SDMetrics' scores, by property, without ids, strata and PSUs: these have other names in each extract."""
    out = folder / f"quality-{name}"
    out.mkdir()
    left_out = (book.person_id, book.design.stratum, book.design.psu)
    files = []
    for number, columns in enumerate([real, *draws]):
        files.append(str(out / f"table-{number}.csv"))
        write_columns({key: column for key, column in columns.items() if key not in left_out}, Path(files[-1]))
    task = {"real": files[0], "drawn": files[1:], "numbers": list_numbers(book), "out": str(out / "scores.json")}
    (out / "task.json").write_text(json.dumps(task))
    run([str(prepare_environment(ROOT / ".bench")), "-m", "benchmarks.peers.quality", str(out / "task.json")])
    return {key: round(score, 4) for key, score in json.loads((out / "scores.json").read_text()).items()}


def split_unit(book: Codebook, columns: Columns) -> Columns:
    units = [unit.split(":") for unit in columns.pop(UNIT)]
    for place, name in enumerate((book.design.stratum, book.design.psu)):
        columns[str(name)] = np.array([unit[place] for unit in units], dtype=object)
    return columns


def compare_draws(book: Codebook, real: Columns, draws: list[Columns]) -> dict[str, Any]:
    """Of the report's figures, and under `items` of single items by the same cohorts: the mean over the draws."""
    truth = read_extract(book, real)
    figures, items = estimate_report(book, truth), estimate_items(book, truth)
    found: list[Agreement] = []
    others: list[Agreement] = []
    for columns in draws:
        people = read_extract(book, columns)
        found.append(compare_figures(figures, estimate_report(book, people)))
        others.append(compare_figures(items, estimate_items(book, people)))
    return {**asdict(average(found)), "items": asdict(average(others))}


def attack(book: Codebook, real: Columns, members: NDArray[np.bool_], extract: Columns) -> dict[str, float]:
    """What an extract of the members gives away. Beside each figure stands what it would be if they were strangers.

    `distance_ratio`: the median over drawn people of the distance to the nearest member over that to the second one;
    `…_strangers` to people who were not in. `membership_auc`: of telling members by the distance to the nearest drawn
    person (.5 = not at all). `attribute`: mean chance that the nearest drawn people, by all else, give a person's own
    answer to SECRET, of members and of strangers.
    """
    features, drawn = (measure_features(book, people, real) for people in (real, extract))
    ratios = [measure_ratio(drawn, features[who]) for who in (members, ~members)]
    nearest, _ = cKDTree(drawn).query(features)
    features, drawn = (measure_features(book, people, real, SECRET) for people in (real, extract))
    _, neighbours = cKDTree(drawn).query(features, k=NEIGHBOURS)
    own = real[SECRET]
    asked = np.array([answer is not None for answer in own])
    hits = (extract[SECRET][neighbours] == own[:, None]).mean(axis=1)
    return {
        "distance_ratio": round(ratios[0], 4),
        "distance_ratio_strangers": round(ratios[1], 4),
        "membership_auc": round(measure_auc(members, -nearest), 4),
        "attribute": round(float(hits[members & asked].mean()), 4),
        "attribute_strangers": round(float(hits[~members & asked].mean()), 4),
    }


def measure_features(book: Codebook, people: Columns, scale: Columns, without: str = "") -> Floats:
    """Points (N, F): numbers in the standard deviations of `scale`, each code of other columns a corner of its own.

    Whoever has no value lies at the mean of the others, or in a corner. Design columns and ids are left out.
    """
    types, design = book.column_types(), (book.person_id, book.design.weight, book.design.stratum, book.design.psu)
    features = []
    for name in (name for name in types if name not in (*design, without)):
        if types[name] == "number":
            ours, theirs = (
                np.array([np.nan if value is None else float(value) for value in columns[name]])
                for columns in (people, scale)
            )
            mean, sd = np.nanmean(theirs), np.nanstd(theirs) or 1.0
            features.append(np.nan_to_num((ours - mean) / sd))
        else:
            codes = sorted({str(value) for value in scale[name]})
            features += [(people[name].astype(str) == code) / np.sqrt(2.0) for code in codes]
    return np.column_stack(features)


def measure_ratio(drawn: Floats, people: Floats) -> float:
    distances, _ = cKDTree(people).query(drawn, k=2)
    return float(np.median(distances[:, 0] / np.maximum(distances[:, 1], 1e-9)))


def measure_auc(truth: NDArray[np.bool_], score: Floats) -> float:
    """The chance that one of the true ones has a higher score than one of the others (Mann and Whitney 1947)."""
    ranks, count = rankdata(score), int(truth.sum())
    return float((ranks[truth].sum() - count * (count + 1) / 2) / (count * (len(truth) - count)))
