"""`python -m benchmarks.estimates`: every estimate of the demo codebook, beside R's survey package and PyPI's svy.

A simulated survey with the codebook's outcomes and breakdowns; what is timed is from people to estimates and their
standard errors, without reading a peer's file. The peers get one outcome at a time, since each has missing answers of
its own. `benchmarks/install_r.sh` installs R and its package.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.environment import ROOT, PeerError, prepare_environment, run
from expectations.codebook import Codebook, read_codebook
from expectations.outcomes import Outcome
from jobs.design import read_design
from jobs.domain_sums import domain_sums, name_breakdown
from jobs.estimates import Survey, estimate_rows, list_sums
from jobs.lake import Lake
from jobs.spark import spark_session
from jobs.survey import CohortRow

PEOPLE = 1_000_000
ROUNDS = 3
STRATA, PSUS = 100, 12  # PSUs a stratum
ROWS_PER_FILE, ROWS_PER_GROUP = 1_000_000, 131_072
MISSING = 0.05  # of each outcome's answers
USUAL_CUT = 10  # of a total without one: totals lie about their cuts
TINY = 1e-300  # instead of an estimate of 0
BASE = ("mean", "proportion")  # the kinds that the peers are asked for, of traits as if they were measured
LABELS = ("breakdown", "cell", "outcome")


def main() -> int:
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    book, _ = read_codebook("demo_population")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        files = simulate_people(book, arguments.people, folder / "people")
        found, every = measure_ours(book, files, folder)
        rows = [row for row in every if row.figures.kind in BASE]
        ours = {tuple(label): figures for label, figures in map(_tell, rows)}
        for peer in arguments.peers:
            answer = folder / f"{peer}.csv"
            try:
                if peer == "r":
                    ask_r(book, files, folder / "asked", answer)
                else:
                    ask_svy(book, files, arguments.folder, answer)
            except PeerError as error:
                sys.exit(f"estimates: {error}")
            seconds = float(answer.with_suffix(".seconds").read_text())
            ratio = round(seconds / found["ours"]["seconds"], 1)
            found[peer] = {"seconds": seconds, "times_ours": ratio, **compare(ours, answer)}
    print(json.dumps({"people": arguments.people, "estimates": len(rows), **found}, indent=1))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--peers", nargs="*", choices=("r", "svy"), default=("r", "svy"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where people and environments are made")
    return parser.parse_args()


def simulate_people(book: Codebook, people: int, folder: Path) -> list[Path]:
    """Feature-like files: cohorts, design, and every outcome's source, correlated within PSUs."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    effects = random.normal(0, 0.3, (STRATA, PSUS))
    outcomes = list_outcomes(book)
    cuts = {outcome.source: outcome.cut for outcome in outcomes if outcome.cut}
    files = []
    for number, start in enumerate(range(0, people, ROWS_PER_FILE)):
        rows = min(ROWS_PER_FILE, people - start)
        stratum, psu = random.integers(0, STRATA, rows), random.integers(0, PSUS, rows)
        columns: dict[str, pa.Array] = {
            "weight": pa.array(random.lognormal(5, 0.5, rows)),
            "stratum": pa.array([f"S{n:03d}" for n in range(STRATA)]).take(pa.array(stratum)),
            "psu": pa.array([f"P{n:04d}" for n in range(STRATA * PSUS)]).take(pa.array(stratum * PSUS + psu)),
        }
        for cohort in book.cohorts:
            levels = list(cohort.labels or dict.fromkeys((cohort.map or {}).values()))
            columns[cohort.key] = pa.array(levels).take(pa.array(random.integers(0, len(levels), rows)))
        for source in dict.fromkeys(outcome.source for outcome in outcomes):
            value = effects[stratum, psu] + random.normal(size=rows)
            if source.endswith("_total"):
                value = np.round(cuts.get(source, USUAL_CUT) * (0.7 + 0.4 * value)).clip(0)
            columns[source] = pa.array(value, mask=random.random(rows) < MISSING)
        files.append(folder / f"part-{number:03d}.parquet")
        pq.write_table(pa.table(columns), files[-1], row_group_size=ROWS_PER_GROUP, compression="zstd")
    return files


def list_outcomes(book: Codebook) -> list[Outcome]:
    """The means and proportions; those of traits as of a measured column, since the peers have no plausible values."""
    return [outcome._replace(latent=False) for outcome in book.parsed_outcomes() if outcome.kind in BASE]


def measure_ours(book: Codebook, files: Sequence[Path], folder: Path) -> tuple[dict[str, Any], list[CohortRow]]:
    """Median seconds, the first round's apart: workers start in it."""
    outcomes, seconds = list_outcomes(book), []
    lake = Lake(folder / "lake")
    lake.prepare()
    start = time.perf_counter()
    with spark_session(lake, "aggregate") as spark:
        started = time.perf_counter() - start
        for _ in range(1 + ROUNDS):
            start = time.perf_counter()
            sums = domain_sums(spark.sparkContext, files, list_sums(outcomes), book.breakdowns)
            rows = estimate_rows(Survey(date.min, sums, read_design(files)), outcomes)
            seconds.append(time.perf_counter() - start)
    first, *others = seconds
    told = {"seconds": round(float(np.median(others)), 2), "first_round": round(first, 2), "start": round(started, 2)}
    return {"ours": told}, rows


def _tell(row: CohortRow) -> tuple[Sequence[str], tuple[float | None, float | None]]:
    label = name_breakdown(row.breakdown), ".".join(row.cell), row.outcome
    return label, (row.figures.estimate, row.figures.se)


def ask_r(book: Codebook, files: Sequence[Path], folder: Path, answer: Path) -> None:
    """Its estimates into `answer`, and beside it its seconds. Raises PeerError where R or its package is not there."""
    folder.mkdir()
    write_people(files, folder)
    write_calls(book, folder / "calls.csv")
    try:
        subprocess.run(["Rscript", "-e", "library(survey)"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise PeerError("R or its package survey is not installed: run benchmarks/install_r.sh") from None
    run(["Rscript", "--vanilla", str(ROOT / "benchmarks/peers/survey.R"), str(folder), str(answer)])


def ask_svy(book: Codebook, files: Sequence[Path], cache: Path, answer: Path) -> None:
    """Its estimates into `answer`, and beside it its seconds."""
    task = {
        "people": str(files[0].parent),
        "outcomes": [[outcome.name, outcome.source, outcome.side, outcome.cut] for outcome in list_outcomes(book)],
        "breakdowns": [list(breakdown) for breakdown in book.breakdowns],
    }
    asked = answer.with_suffix(".json")
    asked.write_text(json.dumps(task))
    run([str(prepare_environment(cache, "svy")), "-m", "benchmarks.peers.survey_svy", str(asked), str(answer)])


def write_people(files: Sequence[Path], folder: Path) -> None:
    """Columns as R reads them without a package: numbers as doubles, texts as codes beside their labels."""
    people = pq.read_table(list(files)).combine_chunks()
    for name, column in zip(people.column_names, people.columns, strict=True):
        if pa.types.is_floating(column.type):
            column.to_numpy().astype("<f8").tofile(folder / f"{name}.double")
        else:
            encoded = column.combine_chunks().dictionary_encode()
            (encoded.indices.to_numpy() + 1).astype("<i4").tofile(folder / f"{name}.codes")
            (folder / f"{name}.labels").write_text("\n".join(encoded.dictionary.to_pylist()) + "\n")


def write_calls(book: Codebook, file: Path) -> None:
    """One estimate of R's a line: outcome, its source and cut, and the breakdown as a formula."""
    lines = ["outcome,source,side,cut,breakdown"]
    for outcome in list_outcomes(book):
        for breakdown in book.breakdowns:
            cut = (outcome.side or "", "" if outcome.cut is None else str(outcome.cut))
            lines.append(",".join([outcome.name, outcome.source, *cut, name_breakdown(breakdown)]))
    file.write_text("\n".join(lines) + "\n")


def compare(ours: dict[tuple[str, ...], tuple[float | None, float | None]], file: Path) -> dict[str, Any]:
    """The largest relative differences of estimates and SEs; every cell must be in both."""
    theirs = pyarrow.csv.read_csv(
        file, convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(LABELS, pa.string()))
    )
    found = {tuple(str(row[name] or "") for name in LABELS): (row["estimate"], row["se"]) for row in theirs.to_pylist()}
    if found.keys() != ours.keys():
        sys.exit(
            f"estimates: {len(found.keys() ^ ours.keys())} cells are not in both, {min(found.keys() ^ ours.keys())}"
        )
    pairs = np.array([(*ours[label], *found[label]) for label in found], dtype=float)
    apart = np.abs(pairs[:, :2] - pairs[:, 2:]) / np.abs(pairs[:, 2:]).clip(TINY)
    return {"largest_difference": {"estimate": float(apart[:, 0].max()), "se": float(apart[:, 1].max())}}


if __name__ == "__main__":
    sys.exit(main())
