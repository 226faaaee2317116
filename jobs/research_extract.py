"""`mindcensus research-extract`: a night's people for researchers, coarsened until few of them are alone.

A row a person, without pseudonym, answers, strata and PSUs: cohorts, scale totals by band, traits in steps, and a
weight that everybody of its class has, SMALLEST people at least. The least coarse of LADDER is taken whose share of
people with a row that nobody else has (sample uniqueness; Skinner and Elliot 2002) is within the limit; where even the
coarsest has more, cohorts go, the codebook's last first. Weights are the mean of their class, so that their sum stays
what it is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expectations.codebook import Codebook
from jobs.catalog import find_files
from jobs.errors import UsageError
from jobs.lake import Lake, write_atomically
from jobs.withdrawn import read_withdrawn
from model.cells import SMALLEST
from model.spec import PERSON

FILE, SHEET = "people.parquet", "extract.json"
WEIGHT = "weight"
# How many classes of weight there are, and how wide a trait's step is, in standard deviations of the reference.
LADDER = ((32, 0.25), (16, 0.5), (8, 0.5), (8, 1.0), (4, 1.0), (2, 2.0), (1, 2.0))
NOT_IN_IT = "pseudonyms, answers, dates, strata and PSUs: standard errors cannot be made of it"


@dataclass(frozen=True)
class Coarse:
    """People as they would leave the house, how coarse they are, and the share whose row nobody else has."""

    people: pa.Table
    weights: int
    step: float
    cohorts: tuple[str, ...]
    alone: float


def write_extract(lake: Lake, manifest: Mapping[str, Any], book: Codebook, limit: float, folder: Path) -> Coarse:
    """Writes the extract and a sheet that says what it is into a folder; the same night gives the same bytes.

    Raises UsageError where the folder holds something, where even the coarsest has more people alone than `limit`, and
    where releases are differentially private.
    """
    if book.disclosure.dp:
        raise UsageError("releases of this lake are differentially private, and rows of people are not: none leave it")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--out: {folder} is not empty: name a new folder")
    chosen = coarsen(read_people(find_files(lake.root, manifest, "profiles"), book, read_withdrawn(lake)), book, limit)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = folder / f".{FILE}.tmp"
    pq.write_table(chosen.people, scratch, compression="zstd")
    scratch.replace(folder / FILE)
    sheet = {
        "codebook": manifest["codebook"],
        "run_date": manifest["run_date"],
        "model_version": manifest["model"]["model_version"],
        "people": len(chosen.people),
        "share_alone": chosen.alone,
        "limit": limit,
        "weight_classes": chosen.weights,
        "trait_step_sd": chosen.step,
        "cohorts": list(chosen.cohorts),
        "cohorts_left_out": [cohort.key for cohort in book.cohorts if cohort.key not in chosen.cohorts],
        "not_in_it": NOT_IN_IT,
    }
    write_atomically(folder / SHEET, json.dumps(sheet, indent=1))
    return chosen


def read_people(profiles: Sequence[Path], book: Codebook, withdrawn: Sequence[str] = ()) -> pa.Table:
    """The columns that an extract is made of, of everybody with a weight who has not withdrawn since."""
    names = [cohort.key for cohort in book.cohorts] + [_column(scale) for scale in book.scales]
    names += [f"{trait.key}_mean" for trait in book.traits] + [WEIGHT]
    people = pa.concat_tables([pq.ParquetFile(file).read(columns=[*names, PERSON]) for file in profiles])
    gone = pc.is_in(people[PERSON], pa.array(withdrawn, pa.string()))
    return people.filter(pc.and_not(pc.greater(people[WEIGHT], 0), gone)).select(names).combine_chunks()


def _column(scale: Any) -> str:
    return f"{scale.key}_band" if scale.bands else f"{scale.key}_total"


def coarsen(people: pa.Table, book: Codebook, limit: float) -> Coarse:
    """The least coarse table with at most the share `limit` of people alone. Raises UsageError where there is none."""
    cohorts = tuple(cohort.key for cohort in book.cohorts)
    tried = [(weights, step, cohorts) for weights, step in LADDER]
    tried += [(*LADDER[-1], cohorts[:kept]) for kept in range(len(cohorts) - 1, -1, -1)]
    alone = 1.0
    for weights, step, kept in tried:
        coarse = make_coarse(people, book, weights, step, kept)
        alone = share_alone(coarse)
        if alone <= limit:
            return Coarse(sort_rows(coarse), weights, step, kept, round(alone, 6))
    raise UsageError(
        f"--limit: {alone:.2%} of the people are alone with their row even in the coarsest extract, more than "
        f"{limit:.2%}: allow more, or give researchers the public tables"
    )


def make_coarse(people: pa.Table, book: Codebook, weights: int, step: float, cohorts: Sequence[str]) -> pa.Table:
    columns = {name: people[name] for name in (*cohorts, *map(_column, book.scales))}
    for trait in book.traits:
        mean = people[f"{trait.key}_mean"].to_numpy()
        columns[f"{trait.key}_step"] = pa.chunked_array([np.rint(mean / step) * step + 0.0])
    columns[WEIGHT] = pa.chunked_array([class_weights(people[WEIGHT].to_numpy(), weights)])
    return pa.table(columns)


def class_weights(weight: np.ndarray[Any, np.dtype[np.float64]], classes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Each weight as the mean of its class; classes are of equal width on the logarithm's scale.

    One of fewer than SMALLEST people goes with the next higher one, the last with those below: alone in its class, a
    person would have the very weight that was delivered.
    """
    logs = np.log(weight)
    low, width = logs.min(), np.ptp(logs) or 1.0
    place = np.minimum(((logs - low) / width * classes).astype(np.int64), classes - 1)
    sizes, joined, into = np.bincount(place, minlength=classes), np.full(classes, -1), 0
    for number in range(classes):
        joined[number] = into
        if sizes[joined == into].sum() >= SMALLEST:
            into += 1
    if into and sizes[joined == into].sum() < SMALLEST:
        joined[joined == into] = into - 1
    place = joined[place]
    order = np.argsort(weight)  # so that no digit of a sum hangs on how the people stand
    totals, people = np.bincount(place[order], weight[order], classes), np.bincount(place, minlength=classes)
    means: np.ndarray[Any, np.dtype[np.float64]] = (totals / np.maximum(people, 1))[place]
    return means


def share_alone(people: pa.Table) -> float:
    """The share of rows that no other row is like."""
    if not len(people):
        return 0.0
    sizes = people.group_by(people.column_names).aggregate([([], "count_all")])["count_all"]
    return float(pc.sum(pc.equal(sizes, 1)).as_py() or 0) / len(people)


def sort_rows(people: pa.Table) -> pa.Table:
    """By their content, so that no place tells whose row it is."""
    return people.sort_by([(name, "ascending") for name in people.column_names])
