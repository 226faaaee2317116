"""The delivered rows of the demonstration: their columns, the defects that are put in, and the lines of CSV."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.demo_model import CODES, ITEMS, TEXT, UNKNOWN, Columns, Country, Ints

DAY = 86_400  # seconds
EMPTY = -1  # in the id, age and household size: nothing is delivered
MISSING_TIME, UNREADABLE_TIME, EARLIEST_TIME = -3_000_000_000, -2_000_000_000, -1_000_000_000  # seconds
TIED_ID = "id_repeated"

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


def spoil_rows(rows: Columns, spoiled: dict[str, Ints], country: Country, rng: np.random.Generator) -> None:
    """Puts the defects in; ragged rows are made of lines."""
    for kind, code in (("unknown_answer", UNKNOWN), ("text_in_number", TEXT)):
        rows["answers"][spoiled[kind], rng.integers(0, len(ITEMS), len(spoiled[kind]))] = code
    rows["id"][spoiled["id_missing"]] = EMPTY
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
    rows["age"][spoiled["covariate_missing"]] = EMPTY
    rows["household_size"][spoiled["covariate_out_of_range"]] = 45
    rows["education"][spoiled["unknown_cohort_code"]] = 7
    rows["age"][spoiled["implausible_employment"]] = 104
    rows["employment"][spoiled["implausible_employment"]] = 1


def format_lines(rows: Columns, country: Country, run_date: date) -> list[str]:
    """The rows as lines of CSV, fields in the order of COLUMNS; nothing in them needs quotes."""
    unit = rows["unit"]
    seconds = rows["answered_at"]
    moment = pa.array(np.datetime64(run_date, "s") + np.maximum(seconds, EARLIEST_TIME).astype("timedelta64[s]"))
    answered_at = pc.if_else(pa.array(seconds == UNREADABLE_TIME), "last Tuesday", moment.cast(pa.string()))
    weight = pa.array(rows["weight"].round(4), from_pandas=True).cast(pa.string())
    codes = pa.array(CODES)
    fields = {
        "respondent_id": _blank(format_ids(rows["id"]), rows["id"] == EMPTY),
        "answered_at": _blank(answered_at, seconds == MISSING_TIME),
        "weight": pc.replace_substring(weight, "inf", "Inf"),
        "stratum": pa.array(rows["stratum"]),
        "psu": pa.array(rows["psu"]),
        "region": pa.array(country.region[unit]),
        "income_log": pa.array(rows["income_log"].round(3)).cast(pa.string()),
        "urban": pa.array(country.urban[unit]).cast(pa.string()),
        **{n: pa.array(rows[n]).cast(pa.string()) for n in ("sex", "education", "employment")},
        **{n: _blank(pa.array(rows[n]).cast(pa.string()), rows[n] == EMPTY) for n in ("age", "household_size")},
        **{key: codes.take(pa.array(rows["answers"][:, column])) for column, key in enumerate(ITEMS)},
    }
    ordered = [fields[name] for name in COLUMNS]
    lines: list[str] = pc.binary_join_element_wise(*ordered, ",", null_handling="replace").to_pylist()
    return lines


def make_ragged(lines: list[str], spoiled: dict[str, Ints]) -> None:
    """Takes the last three fields away, or adds one."""
    for row in spoiled["too_few_fields"]:
        lines[row] = lines[row].rsplit(",", 3)[0]
    for row in spoiled["too_many_fields"]:
        lines[row] += ",0"


def format_ids(numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise("R", pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0"), "")


def _blank(values: pa.Array, where: Any) -> pa.Array:
    return pc.if_else(pa.array(where), None, values)
