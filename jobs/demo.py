"""`mindcensus demo`: simulated respondents as a survey would deliver them, and the truth about them apart.

The extract is a folder of people-0000.csv, people-0001.csv ... and SHA256SUMS; beside it, in `<folder>-truth`, lie the
true traits (Parquet) and counts.json. Each part is made from (people, seed, part) alone, so cores and partitions change
nothing.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from jobs.delivery import MARKER, write_marker
from jobs.demo_model import (
    SKIPPED,
    TRAITS,
    Columns,
    Country,
    Floats,
    Ints,
    build_country,
    describe_truth,
    draw_answers,
    draw_people,
    spread_over_units,
)
from jobs.demo_rows import (
    COLUMNS,
    DAY,
    DEFECTS,
    EMPTY,
    TIED_ID,
    format_ids,
    format_lines,
    make_ragged,
    shuffle_ids,
    spoil_rows,
)
from jobs.errors import UsageError

PEOPLE_PER_PART = 250_000
FEWEST_PEOPLE, MOST_PEOPLE = 1_000, 1_000_000_000
DIRTY_SHARE, MOST_DIRTY = 0.002, 0.02
NO_ANSWERS_SHARE, SECOND_ANSWER_SHARE, HOUSEHOLD_UNKNOWN_SHARE, CODE_MISSING_SHARE = 0.015, 0.005, 0.02, 0.02
FIELD_DAYS = 28
SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Plan:
    """What one extract is made from; it travels to the workers."""

    people: int
    seed: int
    run_date: date
    dirty_share: float
    people_per_part: int = PEOPLE_PER_PART

    @property
    def parts(self) -> int:
        return -(-self.people // self.people_per_part)

    def bounds(self, part: int) -> tuple[int, int]:
        """The first person of a part, and of the next: parts are of one size, so that none is too small for defects."""
        return self.people * part // self.parts, self.people * (part + 1) // self.parts

    def rows_of(self, kind: str) -> int:
        """How many people in all get a defect (where there is dirt at all, at least one), or answer twice."""
        if kind == SUPERSEDED:
            return round(self.people * SECOND_ANSWER_SHARE)
        return max(1, round(self.people * self.dirty_share / len(DEFECTS))) if self.dirty_share else 0


def write_demo(
    spark: SparkSession, folder: Path, people: int, seed: int, *, run_date: date, dirty_share: float = DIRTY_SHARE
) -> dict[str, int]:
    """Writes an extract of `people` sampled people and its truth, in place of earlier ones; returns the counts.

    `delivered` rows = `clean` + `ineligible` + `superseded` + the rows of every kind in DEFECTS.
    Raises UsageError where the numbers are out of bounds or the folder holds something else.
    """
    if not FEWEST_PEOPLE <= people <= MOST_PEOPLE:
        raise UsageError(f"a demonstration needs {FEWEST_PEOPLE:,} to {MOST_PEOPLE:,} people, not {people:,}")
    if seed < 0:
        raise UsageError(f"the seed must be 0 or greater, not {seed}")
    if not 0 <= dirty_share <= MOST_DIRTY:
        raise UsageError(f"the share of dirty rows must be between 0 and {MOST_DIRTY}, not {dirty_share}")
    folder = folder.absolute()
    check_replaceable(folder)
    plan = Plan(people, seed, run_date, dirty_share)
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        counts = write_parts(spark, plan, scratch / "extract", scratch / "truth")
        content = {
            "people": people,
            "seed": seed,
            "run_date": run_date.isoformat(),
            "dirty_share": dirty_share,
            "counts": counts,
            "parameters": describe_truth(build_country(people)),
        }
        write_marker(scratch / "extract")
        (scratch / "truth" / "counts.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        replace_folder(scratch / "truth", truth_folder(folder), scratch)
        replace_folder(scratch / "extract", folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return counts


def truth_folder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-truth")


def expected_counts(folder: Path) -> dict[str, Any]:
    """What is known about an extract: `counts` (rows of each kind) and `parameters` (what the answers come from)."""
    content: dict[str, Any] = json.loads((truth_folder(folder) / "counts.json").read_text(encoding="utf-8"))
    return content


def check_replaceable(folder: Path) -> None:
    """Only an earlier demonstration may be replaced. Raises UsageError for any other file in the way."""
    for target, patterns in (
        (folder, ("people-*.csv", MARKER)),
        (truth_folder(folder), ("traits-*.parquet", "counts.json")),
    ):
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target} is a file: name a folder for the demonstration")
        strange = [p for p in target.glob("*") if not any(p.match(pattern) for pattern in patterns)]
        if strange:
            raise UsageError(f"{target} holds other files, {strange[0].name} for one: name a new folder")


def replace_folder(new: Path, target: Path, scratch: Path) -> None:
    if target.exists():
        target.rename(scratch / f"old-{target.name}")
    new.rename(target)


def write_parts(spark: SparkSession, plan: Plan, extract: Path, truth: Path) -> dict[str, int]:
    """Writes every part from Spark's workers, one task a part, and adds up what they counted.

    The folders must be on a file system that the workers share.
    """
    for folder in (extract, truth):
        folder.mkdir(parents=True)
    make = partial(_write_batches, plan, extract, truth)
    parts = spark.range(0, plan.parts, 1, numPartitions=plan.parts)
    total: Counter[str] = Counter()
    for row in parts.mapInArrow(make, "kind string, n long").collect():
        total[row.kind] += row.n
    kinds = ("sampled", "absent", "delivered", "clean", "no_answers", "ineligible", SUPERSEDED, *DEFECTS)
    return {kind: total[kind] for kind in kinds}


def _write_batches(
    plan: Plan, extract: Path, truth: Path, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    country = build_country(plan.people)
    for batch in batches:
        for part in batch.column(0).to_pylist():
            counts = write_part(plan, country, part, extract, truth)
            yield pa.RecordBatch.from_pydict({"kind": list(counts), "n": pa.array(counts.values(), pa.int64())})


def write_part(plan: Plan, country: Country, part: int, extract: Path, truth: Path) -> dict[str, int]:
    """Writes people-<part>.csv and traits-<part>.parquet; returns the rows of each kind."""
    rng = np.random.default_rng([plan.seed, part])
    index = np.arange(*plan.bounds(part))
    people, traits = draw_people(country, spread_over_units(country, index), rng)
    people["id"] = shuffle_ids(index, plan.seed)
    people["answered_at"] = -rng.integers(1, FIELD_DAYS * DAY, len(index))  # seconds before the run date
    people["answers"] = draw_answers(people, traits, rng)
    silent = rng.random(len(index)) < NO_ANSWERS_SHARE
    people["answers"][silent] = SKIPPED
    write_truth(people, traits, country, truth / f"traits-{part:04d}.parquet")

    candidates = rng.permutation(np.flatnonzero(people["appears"] & (people["age"] >= 18) & ~silent))
    picks = pick_people(plan, part, candidates)
    # A second answer comes from the same traits: earlier for the superseded row, at the same moment for a tie.
    again = np.concatenate([picks[SUPERSEDED], picks[TIED_ID]])
    present = np.flatnonzero(people["appears"])
    rows = {name: values[np.concatenate([present, again])] for name, values in people.items()}
    second = np.arange(len(present), len(present) + len(again))
    rows["answers"][second] = draw_answers({k: v[again] for k, v in people.items()}, traits[again], rng)
    earlier = second[: len(picks[SUPERSEDED])]
    rows["answered_at"][earlier] -= rng.integers(1, 20 * DAY, len(earlier))
    for name in ("education", "employment"):
        rows[name][rng.random(len(rows[name])) < CODE_MISSING_SHARE] = -9
    rows["household_size"][rng.random(len(rows["id"])) < HOUSEHOLD_UNKNOWN_SHARE] = EMPTY
    rows["stratum"], rows["psu"] = country.stratum[rows["unit"]], country.psu[rows["unit"]]

    row_of = np.full(len(index), -1)
    row_of[present] = np.arange(len(present))
    spoiled = {kind: row_of[picked] for kind, picked in picks.items()}
    spoil_rows(rows, spoiled, country, rng)
    lines = format_lines(rows, country, plan.run_date)
    make_ragged(lines, spoiled)
    order = rng.permutation(len(lines))
    with (extract / f"people-{part:04d}.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(lines[row] + "\n" for row in order)

    counts = {kind: len(picked) * (2 if kind == TIED_ID else 1) for kind, picked in picks.items()}
    ineligible = int((people["age"][present] < 18).sum())
    counts |= {
        "sampled": len(index),
        "absent": len(index) - len(present),
        "delivered": len(lines),
        "clean": len(lines) - ineligible - sum(counts.values()),
        "no_answers": int(silent[present].sum()),
        "ineligible": ineligible,
    }
    return counts


def pick_people(plan: Plan, part: int, candidates: Ints) -> dict[str, Ints]:
    """For each kind of row its people of this part, nobody twice: the parts' shares add up to the kind's total."""
    start, end = plan.bounds(part)
    picks, at = {}, 0
    for kind in (SUPERSEDED, *DEFECTS):
        total = plan.rows_of(kind)
        n = total * end // plan.people - total * start // plan.people
        picks[kind] = candidates[at : at + n]
        at += n
    return picks


def write_truth(people: Columns, traits: Floats, country: Country, file: Path) -> None:
    """Everybody who was sampled, those who did not appear included: id, true traits, and the right design values."""
    columns = {"respondent_id": format_ids(people["id"])}
    columns |= {trait: pa.array(traits[:, column]) for column, trait in enumerate(TRAITS)}
    columns |= {"appears": pa.array(people["appears"]), "weight": pa.array(people["weight"].round(4))}
    columns |= {"stratum": pa.array(country.stratum[people["unit"]]), "psu": pa.array(country.psu[people["unit"]])}
    pq.write_table(pa.table(columns), file, compression="zstd")
