"""`mindcensus demo`: simulated respondents as a survey would deliver them, and the truth about them apart.

The extract is a folder of people-0000.csv, people-0001.csv ...; beside it, in `<folder>-truth`, lie the true traits
(Parquet) and counts.json. Each part is made from (people, seed, part) alone, so cores and partitions change nothing.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from jobs.demo_model import (
    CODES,
    ITEMS,
    SKIPPED,
    TEXT,
    TRAITS,
    UNKNOWN,
    Columns,
    Country,
    Floats,
    Ints,
    build_country,
    describe_truth,
    draw_answers,
    draw_people,
)
from jobs.errors import UsageError

PEOPLE_PER_PART = 250_000
FEWEST_PEOPLE, MOST_PEOPLE = 1_000, 1_000_000_000
DIRTY_SHARE, MOST_DIRTY = 0.002, 0.02
NO_ANSWERS_SHARE, SECOND_ANSWER_SHARE, HOUSEHOLD_UNKNOWN_SHARE, CODE_MISSING_SHARE = 0.015, 0.005, 0.02, 0.02
FIELD_DAYS, DAY = 28, 86_400
SUPERSEDED, TIED_ID = "superseded", "id_repeated"
GOLDEN_RATIO = 0.6180339887498949
MISSING_TIME, UNREADABLE_TIME, EARLIEST_TIME = -3_000_000_000, -2_000_000_000, -1_000_000_000  # seconds

COLUMNS = (
    *("respondent_id", "answered_at", "weight", "stratum", "psu", "region", "sex", "age", "education", "employment"),
    *("household_size", "income_log", "urban", *ITEMS),
)
# One defect a row, and the rows are counted; an id that is repeated takes two rows.
DEFECTS = (
    *("unknown_answer", "text_in_number", "id_missing", TIED_ID, "weight_missing", "weight_zero", "weight_negative"),
    *("weight_infinite", "stratum_missing", "psu_missing", "psu_in_foreign_stratum", "answered_at_missing"),
    *("answered_at_unreadable", "answered_at_in_future", "covariate_missing", "covariate_out_of_range"),
    *("unknown_cohort_code", "implausible_employment", "too_few_fields", "too_many_fields"),
)


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
    for target, patterns in ((folder, ("people-*.csv",)), (truth_folder(folder), ("traits-*.parquet", "counts.json"))):
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
    start = part * plan.people_per_part
    index = np.arange(start, min(start + plan.people_per_part, plan.people))
    people, traits = draw_people(country, spread_over_units(country, index), rng)
    people["id"] = shuffle_ids(index, plan.seed)
    people["answered_at"] = -rng.integers(1, FIELD_DAYS * DAY, len(index))  # seconds before the run date
    people["answers"] = draw_answers(people, traits, rng)
    silent = rng.random(len(index)) < NO_ANSWERS_SHARE
    people["answers"][silent] = SKIPPED
    write_truth(people, traits, country, truth / f"traits-{part:04d}.parquet")

    candidates = rng.permutation(np.flatnonzero(people["appears"] & (people["age"] >= 18) & ~silent))
    picks = pick_people(plan, candidates, start, start + len(index))
    # A second answer comes from the same traits: earlier for the superseded row, at the same moment for a tie.
    again = np.concatenate([picks[SUPERSEDED], picks[TIED_ID]])
    present = np.flatnonzero(people["appears"])
    rows = {name: values[np.concatenate([present, again])] for name, values in people.items()}
    second = np.arange(len(present), len(present) + len(again))
    rows["answers"][second] = draw_answers({k: v[again] for k, v in people.items()}, traits[again], rng)
    earlier = second[: len(picks[SUPERSEDED])]
    rows["answered_at"][earlier] -= rng.integers(1, 20 * DAY, len(earlier))
    rows["row"] = np.arange(len(present) + len(again))
    for name in ("education", "employment"):
        rows[name] = np.where(rng.random(len(rows[name])) < CODE_MISSING_SHARE, -9, rows[name])
    unknown_size = rng.random(len(rows["row"])) < HOUSEHOLD_UNKNOWN_SHARE
    rows["household_size"] = np.where(unknown_size, -1, rows["household_size"])
    rows["stratum"], rows["psu"] = country.stratum[rows["unit"]], country.psu[rows["unit"]]

    row_of = np.full(len(index), -1)
    row_of[present] = np.arange(len(present))
    spoiled = {kind: row_of[picked] for kind, picked in picks.items()}
    spoil_rows(rows, spoiled, country, rng)
    lines = format_lines(rows, country, plan.run_date)
    for row in spoiled["too_few_fields"]:
        lines[row] = lines[row].rsplit(",", 3)[0]
    for row in spoiled["too_many_fields"]:
        lines[row] += ",0"
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


def spread_over_units(country: Country, index: Ints) -> Ints:
    """The PSU of each person: a low-discrepancy sequence, so that every PSU gets its share of any stretch of people."""
    edges = country.sample_share.cumsum() / country.sample_share.sum()
    unit: Ints = np.searchsorted(edges[:-1], (index + 0.5) * GOLDEN_RATIO % 1, side="right")
    return unit


def shuffle_ids(index: Ints, seed: int) -> Ints:
    """Distinct numbers of nine digits whose order says nothing: a Feistel network on 30 bits, walked until it fits."""
    keys = np.random.default_rng([seed, 1_000_003]).integers(1, 2**31, 4).tolist()
    numbers = index.copy()
    todo = np.arange(len(index))
    while len(todo):
        left, right = numbers[todo] >> 15, numbers[todo] & 0x7FFF
        for key in keys:
            mixed = ((right + key) * 0x2545F491 & 0x7FFFFFFF) ^ key
            mixed = (mixed ^ mixed >> 13) * 0x5BD1E995 >> 16
            left, right = right, left ^ (mixed & 0x7FFF)
        numbers[todo] = left << 15 | right
        todo = todo[numbers[todo] >= 10**9]
    return numbers


def pick_people(plan: Plan, candidates: Ints, start: int, end: int) -> dict[str, Ints]:
    """For each kind of row its people of this part, nobody twice: the parts' shares add up to the kind's total."""
    picks, at = {}, 0
    for kind in (SUPERSEDED, *DEFECTS):
        total = plan.rows_of(kind)
        n = total * end // plan.people - total * start // plan.people
        picks[kind] = candidates[at : at + n]
        at += n
    return picks


def spoil_rows(rows: Columns, spoiled: dict[str, Ints], country: Country, rng: np.random.Generator) -> None:
    """Puts the defects in; ragged rows come later, when the lines are written."""
    for kind, code in (("unknown_answer", UNKNOWN), ("text_in_number", TEXT)):
        rows["answers"][spoiled[kind], rng.integers(0, len(ITEMS), len(spoiled[kind]))] = code
    rows["id"][spoiled["id_missing"]] = -1
    rows["weight"][spoiled["weight_missing"]] = np.nan
    rows["weight"][spoiled["weight_zero"]] = 0
    rows["weight"][spoiled["weight_negative"]] *= -1
    rows["weight"][spoiled["weight_infinite"]] = np.inf
    rows["stratum"][spoiled["stratum_missing"]] = ""
    rows["psu"][spoiled["psu_missing"]] = ""
    # A few PSUs take all the strangers, who stay a small minority in each: it is clear which stratum is right.
    hosts = np.unique(country.stratum, return_index=True)[1]
    strangers = spoiled["psu_in_foreign_stratum"]
    host = hosts[rng.integers(0, 2, len(strangers))]
    at_home = country.stratum[host] == rows["stratum"][strangers]
    rows["psu"][strangers] = country.psu[np.where(at_home, hosts[2], host)]
    answered_at = rows["answered_at"]
    answered_at[spoiled["answered_at_missing"]] = MISSING_TIME
    answered_at[spoiled["answered_at_unreadable"]] = UNREADABLE_TIME
    future = spoiled["answered_at_in_future"]
    answered_at[future] = rng.integers(2 * DAY, 400 * DAY, len(future))
    rows["age"][spoiled["covariate_missing"]] = -1
    rows["household_size"][spoiled["covariate_out_of_range"]] = 45
    rows["education"][spoiled["unknown_cohort_code"]] = 7
    rows["age"][spoiled["implausible_employment"]] = 104
    rows["employment"][spoiled["implausible_employment"]] = 1


def format_lines(rows: Columns, country: Country, run_date: date) -> list[str]:
    """The rows as lines of CSV, fields in the order of COLUMNS; nothing in them needs quotes."""
    unit = rows["unit"]
    number = pc.utf8_lpad(pa.array(rows["id"]).cast(pa.string()), 9, "0")
    person_id = pc.binary_join_element_wise("R", number, "")
    seconds = rows["answered_at"]
    moment = pa.array(np.datetime64(run_date, "s") + np.maximum(seconds, EARLIEST_TIME).astype("timedelta64[s]"))
    answered_at = pc.if_else(pa.array(seconds == UNREADABLE_TIME), "last Tuesday", moment.cast(pa.string()))
    weight = pa.array(rows["weight"].round(4), from_pandas=True).cast(pa.string())
    codes = pa.array(CODES)
    fields = {
        "respondent_id": _blank(person_id, rows["id"] < 0),
        "answered_at": _blank(answered_at, seconds == MISSING_TIME),
        "weight": pc.replace_substring(weight, "inf", "Inf"),
        "stratum": pa.array(rows["stratum"]),
        "psu": pa.array(rows["psu"]),
        "region": pa.array(country.region[unit]),
        "income_log": pa.array(rows["income_log"].round(3)).cast(pa.string()),
        "urban": pa.array(country.urban[unit]).cast(pa.string()),
        **{n: pa.array(rows[n]).cast(pa.string()) for n in ("sex", "education", "employment")},
        **{n: _blank(pa.array(rows[n]).cast(pa.string()), rows[n] < 0) for n in ("age", "household_size")},
        **{key: codes.take(pa.array(rows["answers"][:, column])) for column, key in enumerate(ITEMS)},
    }
    ordered = [fields[name] for name in COLUMNS]
    lines: list[str] = pc.binary_join_element_wise(*ordered, ",", null_handling="replace").to_pylist()
    return lines


def write_truth(people: Columns, traits: Floats, country: Country, file: Path) -> None:
    """Everybody who was sampled, those who did not appear included: id, true traits, and the right design values."""
    number = pc.utf8_lpad(pa.array(people["id"]).cast(pa.string()), 9, "0")
    columns = {"respondent_id": pc.binary_join_element_wise("R", number, "")}
    columns |= {trait: pa.array(traits[:, column]) for column, trait in enumerate(TRAITS)}
    columns |= {"appears": pa.array(people["appears"]), "weight": pa.array(people["weight"].round(4))}
    columns |= {"stratum": pa.array(country.stratum[people["unit"]]), "psu": pa.array(country.psu[people["unit"]])}
    pq.write_table(pa.table(columns), file, compression="zstd")


def _blank(values: pa.Array, where: Any) -> pa.Array:
    return pc.if_else(pa.array(where), None, values)
